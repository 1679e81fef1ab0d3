// Statements about sessions and transactions, which drivers send whatever they talk to. The admin database has neither
// settings of a session nor transactions: they are answered as PostgreSQL would, and nothing comes of them but the session's
// transaction status and its prepared statements.

import { general } from "../config/settings.ts";
import { unservedGeneral } from "../config/unserved.ts";
import { type Command, type Effect, notServed, syntaxError } from "./command.ts";
import { isSymbol, type Word } from "./words.ts";

/** Settings that PgDog's SET takes and that are in no file under that name. */
const OTHER_OWN = ["rewrite_enabled", "rewrite_shard_key_updates", "rewrite_split_inserts", "rewrite_primary_key"];

/** Refuses SET of the proxy's own settings (0A000): PgDog changes them at once; to say SET and do nothing would be a lie. */
export function refuseOwnSetting(name: string): void {
	const own = [general, unservedGeneral.refused].some((table) => Object.hasOwn(table, name.toLowerCase()));
	const other = unservedGeneral.ignored.includes(name.toLowerCase()) || OTHER_OWN.includes(name.toLowerCase());
	if (own || other) throw notServed(`SET ${name.toLowerCase()}`, "Change it in the configuration file, then RELOAD.");
}

const done = (tag: string, effect?: Effect): Command => ({
	columns: [],
	tag,
	run: () => [],
	...(effect === undefined ? {} : { effect }),
});

/** The command for a statement that begins with `first`, `rest` behind it; undefined when it is none of these. @throws PgError */
export function courtesy(first: string, rest: readonly Word[]): Command | undefined {
	const second = rest[0]?.key ?? "";
	const last = rest.at(-1);
	switch (first) {
		case "set": {
			const name = second === "session" || second === "local" ? rest[1] : rest[0];
			if (name === undefined || rest.length < 2) throw syntaxError();
			refuseOwnSetting(name.text);
			return done("SET");
		}
		case "reset":
			if (second === "prepared" || second === "query_cache") throw notServed(`RESET ${second.toUpperCase()}`);
			if (rest.length === 0) throw syntaxError();
			return done("RESET");
		case "begin":
			return done("BEGIN", { kind: "begin" });
		case "start":
			return second === "transaction" ? done("START TRANSACTION", { kind: "begin" }) : undefined;
		case "commit":
		case "end":
			return done("COMMIT", { kind: "commit" });
		case "rollback":
		case "abort": {
			const savepoint = rest.some(({ key }) => key === "to");
			return done("ROLLBACK", { kind: savepoint ? "rollback to savepoint" : "rollback" });
		}
		case "savepoint":
		case "release":
			return rest.length === 0 ? undefined : done(first.toUpperCase());
		case "discard":
			if (rest.length !== 1 || !["all", "plans", "sequences", "temp", "temporary"].includes(second)) return undefined;
			return done(`DISCARD ${second.toUpperCase()}`, second === "all" ? { kind: "discard" } : undefined);
		case "deallocate": {
			if (last === undefined || isSymbol(last, "*")) return undefined;
			const all = last.key === "all";
			const name = all ? undefined : last.key || last.text;
			return done(all ? "DEALLOCATE ALL" : "DEALLOCATE", { kind: "deallocate", name });
		}
		case "unlisten":
			return rest.length === 0 ? undefined : done("UNLISTEN");
		case "close":
			return second === "all" ? done("CLOSE CURSOR ALL") : undefined;
		default:
			return undefined;
	}
}

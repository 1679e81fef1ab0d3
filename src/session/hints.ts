// What a client has asked of routing for its session and its transaction: `pgdog.role`, `pgdog.shard` and
// `pgdog.sharding_key`, by its StartupMessage or by SET. They obey transactions as PostgreSQL's settings do, but for
// savepoints. Used by client/client.ts and shards/sharded-client.ts.

import { PgError } from "../errors.ts";
import { flat } from "../parser/flat.ts";
import { type Hints, NO_HINTS, type OwnName, type OwnSetting, parseRole, parseShard } from "../parser/hints.ts";

/** Characters of a sharding key that a session keeps; a guess, generous. */
const LONGEST_KEY = 8192;

export class SessionHints {
	/** Hints of the StartupMessage, to which RESET goes back. */
	readonly startup: Hints;
	/** Hints in force, with those of the transaction under way. */
	now: Hints;
	/** Hints of the session to which ROLLBACK goes back (`before`), and those that COMMIT leaves, without SET LOCAL (`after`). */
	private before: Hints;
	private after: Hints;
	/** There is something for `end` to do; written here only. */
	isOpen = false;

	constructor(startup: Hints = NO_HINTS) {
		this.startup = startup;
		this.now = startup;
		this.before = startup;
		this.after = startup;
	}

	/**
	 * SET or RESET. Outside of a transaction SET LOCAL does nothing, as in PostgreSQL.
	 * @throws PgError 22023 for a value that means nothing, 54000 for a sharding key that is too long
	 */
	change(setting: Exclude<OwnSetting, { kind: "show" }>, inTransaction: boolean): void {
		const change =
			setting.kind === "set" && setting.value !== null
				? hintsOf(setting.name, setting.value)
				: this.initial(setting.name);
		const local = setting.kind === "set" && setting.local;
		if (local && !inTransaction) return;
		this.isOpen = true;
		this.now = { ...this.now, ...change };
		if (!local) this.after = { ...this.after, ...change };
		if (!inTransaction) this.before = this.after;
	}

	private initial(name: OwnName | "all"): Partial<Hints> {
		const { role, shard, shardingKey } = this.startup;
		switch (name) {
			case "all":
				return this.startup;
			case "role":
				return { role };
			case "shard":
				return { shard };
			case "sharding_key":
				return { shardingKey };
		}
	}

	/** A server says that its session has this value since the transaction that is over: a SET that nobody saw. */
	learn(name: OwnName, value: string): void {
		try {
			const change = hintsOf(name, value);
			this.now = { ...this.now, ...change };
			// The transaction may not have ended on another shard yet.
			this.before = { ...this.before, ...change };
			this.after = { ...this.after, ...change };
		} catch (error) {
			// PostgreSQL takes any value of a setting that it does not know.
			if (!(error instanceof PgError)) throw error;
		}
	}

	/** As another thread had them, between transactions. */
	arrive(now: Hints): void {
		this.now = now;
		this.before = now;
		this.after = now;
	}

	/** The transaction is over: COMMIT keeps what was SET in it, ROLLBACK does not. */
	end(committed: boolean): void {
		this.isOpen = false;
		this.now = committed ? this.after : this.before;
		this.before = this.now;
		this.after = this.now;
	}

	/** The value that SHOW tells; "" when there is none. */
	text(name: OwnName): string {
		const { role, shard, shardingKey } = this.now;
		if (name === "role") return role ?? "";
		if (name === "shard") return shard === null ? "" : String(shard);
		return shardingKey ?? "";
	}
}

/** @throws PgError 22023 for a value that means nothing, 54000 for a sharding key that is too long */
export function hintsOf(name: OwnName, value: string): Partial<Hints> {
	if (name === "role") return { role: parseRole(value) };
	if (name === "shard") return { shard: parseShard(value) };
	if (value.length > LONGEST_KEY)
		throw new PgError("ERROR", "54000", "pgdog.sharding_key is too long", `It may have ${LONGEST_KEY} characters.`);
	return { shardingKey: value === "" ? null : flat(value) };
}

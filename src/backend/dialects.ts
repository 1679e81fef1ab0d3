// How sessions read the SQL that they are sent. PostgreSQL decides when it parses which objects the names in a text stand for,
// and which values its constants: by settings of the session, and by what the catalogue says at that moment. Sessions that agree
// in those settings share their prepared statements, and nobody else does.

import { LRUCache } from "lru-cache";
import { Reads, readsOf } from "../parser/session.ts";
import type { ParameterSet } from "./parameters.ts";
import { Dialect } from "./statement.ts";

/** Characters of all keys that are found again; a session with a longer one shares its statements with nobody. */
const KEPT = 1 << 20;

/** The sessions of one user on one database, or one shard of it. */
export class Dialects {
	private readonly default: Dialect;
	private readonly others = new LRUCache<string, Dialect>({
		maxSize: KEPT,
		sizeCalculation: (_, key) => key.length + 256,
	});
	private readonly owner: Dialect["owner"];

	constructor(owner: Dialect["owner"]) {
		this.owner = owner;
		this.default = new Dialect(owner, "", "");
	}

	/** @param settings what a session has set, and its StartupMessage */
	of(settings: ParameterSet): Dialect {
		let names = "";
		let constants = "";
		for (const name of [...settings.values.keys()].sort()) {
			const reads = readsOf(name);
			if (reads === Reads.Nothing) continue;
			const pair = `${name}\0${settings.values.get(name)}\0`;
			if (reads === Reads.Names) names += pair;
			else constants += pair;
		}
		if (names === "" && constants === "") return this.default;
		const dialect = new Dialect(this.owner, names, constants);
		const known = this.others.get(dialect.key);
		if (known === undefined) this.others.set(dialect.key, dialect);
		return known ?? dialect;
	}
}

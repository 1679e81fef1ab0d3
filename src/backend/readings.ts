// How sessions read the SQL that they are sent. PostgreSQL decides when it parses which objects the names in a text stand for,
// and which values its constants: by settings of the session, and by what the catalogue says at that moment. Sessions that agree
// in those settings share their prepared statements, and nobody else does.

import { LRUCache } from "lru-cache";
import { Reads, readsOf } from "../parser/session.ts";
import type { ParameterSet } from "./parameters.ts";
import type { Statement, Statements } from "./prepared.ts";

/** The settings that texts are read by, in so far as they are not the pool's own. */
export class Reading {
	/** Those that constants depend on, as `name\0value\0 …`; "" when all are the pool's own. */
	readonly constants: string;
	/** Those that names depend on. */
	readonly names: string;
	/** All of them. */
	readonly key: string;
	/** The statements that a new Parse may be given, by text and declared parameter types. */
	readonly statements = new Map<string, Statement>();

	readonly owner: Statements;

	constructor(owner: Statements, names: string, constants: string) {
		this.owner = owner;
		this.names = names;
		this.constants = constants;
		this.key = `${names}\0${constants}`;
	}
}

/** Longest keys that are found again, together; who sets more than that shares with nobody. */
const KEPT = 1 << 20;

/** The sessions of one user on one database, or one shard of it. */
export class Readings {
	private readonly default: Reading;
	private readonly others = new LRUCache<string, Reading>({
		maxSize: KEPT,
		sizeCalculation: (_, key) => key.length + 256,
	});
	private readonly owner: Statements;

	constructor(owner: Statements) {
		this.owner = owner;
		this.default = new Reading(owner, "", "");
	}

	/** @param settings what a session has set, and its StartupMessage */
	of(settings: ParameterSet): Reading {
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
		const reading = new Reading(this.owner, names, constants);
		const known = this.others.get(reading.key);
		if (known === undefined) this.others.set(reading.key, reading);
		return known ?? reading;
	}
}

// What a script of the conformance test is, and the short words that scripts are written in.

import { frontend as f } from "../support/wire-frames.ts";

/** One side of the comparison: a connection that sends and remembers. */
export interface Talk {
	/** Sends the frames and reads until as many messages of type `until` have come as there are frames that end in one. */
	say(...frames: Uint8Array[]): Promise<void>;
	/** Sends the frames and reads to the first message of this type. */
	upTo(code: string, ...frames: Uint8Array[]): Promise<void>;
	/** Sends in two writes cut at `at`. */
	split(at: number, ...frames: Uint8Array[]): Promise<void>;
	/** Sends, then reads until the other side ends the connection. */
	end(...frames: Uint8Array[]): Promise<void>;
}

export interface Script {
	readonly name: string;
	run(talk: Talk): Promise<void>;
	/** Names of ParameterStatus that count; the others are left out. Default: all. */
	readonly parameters?: string[];
	/** Replaces what differs from run to run. */
	readonly mask?: (line: string) => string;
	/** Why what comes through the proxy is known to differ. It must differ, or this line is out of date. */
	readonly differs?: string;
	/** The same for a server connection that another client uses in between. */
	readonly differsShared?: string;
	/** The same for three shards. */
	readonly differsSharded?: string;
}

export const OID = { bool: 16, bytea: 17, int8: 20, int4: 23, text: 25 };
export const q = f.query;
export const sync = f.sync();
export const flush = f.flush();

/** Parse, Bind, Describe, Execute of the unnamed statement and portal. */
export function ask(sql: string, values: (string | null)[] = []): Uint8Array[] {
	return [f.parse(sql), f.bind({ values }), f.describe("P"), f.execute()];
}

export function script(name: string, run: (talk: Talk) => Promise<void>, options: Partial<Script> = {}): Script {
	return { name, run, ...options };
}

export const says = (name: string, ...turns: Uint8Array[][]) =>
	script(name, async (t) => {
		for (const turn of turns) await t.say(...turn);
	});

export const differs = (reason: string, known: Script): Script => ({ ...known, differs: reason });
export const differsShared = (reason: string, known: Script): Script => ({ ...known, differsShared: reason });
export const differsSharded = (reason: string, known: Script): Script => ({ ...known, differsSharded: reason });

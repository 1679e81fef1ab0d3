// A client's statements on a real Server whose socket only remembers (test/backend/support.ts). What the client says is given to
// ClientStatements message by message, as client.ts does it; what reached the server comes back as lines.

import { expect } from "bun:test";
import { Reply } from "../../src/backend/books.ts";
import { type ParameterSet, ParameterSets } from "../../src/backend/parameters.ts";
import type { Server } from "../../src/backend/server.ts";
import { Statements } from "../../src/backend/statements.ts";
import { createFactsCache, factsOf } from "../../src/parser/facts-cache.ts";
import type { Cluster } from "../../src/pool/cluster.ts";
import { OwnTexts } from "../../src/session/own-texts.ts";
import { Parsing, type ParsingContext } from "../../src/session/parsing.ts";
import { noteRun } from "../../src/session/runs.ts";
import { Said } from "../../src/session/said.ts";
import type { ClientSettings } from "../../src/session/settings.ts";
import type { ShardedStatements } from "../../src/session/sharded-statements.ts";
import { ClientStatements, type KeptStatements } from "../../src/session/statements.ts";
import { TxStatus } from "../../src/wire/codes.ts";
import { query } from "../../src/wire/frontend-messages.ts";
import { type Rig, rig } from "../backend/support.ts";
import { Body, cut } from "../support/message.ts";
import { describeMessage } from "../support/transcript.ts";
import { backend, concat } from "../support/wire-frames.ts";

/** What a client's messages say, a line each: `Parse s "SELECT 1" 23`, `Bind s`, `Sync` … */
function spoken(bytes: Buffer): string[] {
	const { messages, rest } = cut(bytes);
	expect(rest.length).toBe(0);
	return messages.map(({ code, body: bytes }) => {
		const body = new Body(bytes);
		switch (code) {
			case "P": {
				const [name, text] = [body.cstring(), body.cstring()];
				const types = Array.from({ length: body.int16() }, () => body.int32());
				return words("Parse", name, JSON.stringify(text), types.join(" "));
			}
			case "B":
				return words("Bind", body.cstring(), body.cstring());
			case "D":
			case "C":
				return words(code === "D" ? "Describe" : "Close", String.fromCharCode(body.int8()), body.cstring());
			case "E":
				return words("Execute", body.cstring());
			case "Q":
				return words("Query", JSON.stringify(body.cstring()));
			default:
				return { S: "Sync", H: "Flush" }[code] ?? code;
		}
	});
}

const words = (...parts: string[]): string => parts.filter((part) => part !== "").join(" ");

/** What the clients of one worker have in common. */
export function thread() {
	let id = 0;
	return {
		statements: new Statements(() => ++id),
		facts: createFactsCache(),
		sets: new ParameterSets(),
		/** ms */
		time: 1000,
		/** State of the catalogue. */
		catalogue: 0,
		limit: 100,
		ttl: undefined as number | undefined,
		serial: 0,
	};
}

export type Thread = ReturnType<typeof thread>;

interface Options {
	/** False: `prepared_statements = "disabled"`. */
	shared?: boolean;
	routed?: boolean;
	/** One of several shards. */
	shard?: { number: number; of: ShardedStatements };
	/** All of several shards. */
	all?: ShardedStatements;
}

export class TestClient {
	readonly statements: ClientStatements;
	/** With several shards. */
	readonly kept: KeptStatements | null;
	/** The settings of its session. */
	wanted: ParameterSet;
	rig: Rig;
	private readonly thread: Thread;

	/** Has a server of its own. */
	constructor(of: Thread, { shared = true, routed = false, shard, all }: Options = {}) {
		this.thread = of;
		this.wanted = of.sets.empty;
		const settings = { get: () => this.wanted };
		const pool = {
			spec: { user: "alice", database: "app", shard: shard?.number ?? 0 },
			get catalogue() {
				return of.catalogue;
			},
		};
		const context = {
			statements: of.statements,
			get time() {
				return of.time;
			},
			get general() {
				return {
					prepared_statements_limit: of.limit,
					prepared_statements_ttl: of.ttl,
					prepared_statements_ttl_jitter: 0,
				};
			},
		} as unknown as ParsingContext;
		const wanted = Object.defineProperty({}, "wanted", settings) as ClientSettings;
		const parsing = new Parsing(context, { cluster: { first: pool } as unknown as Cluster }, wanted);
		this.kept = shard?.of.partOf(shard.number, parsing) ?? all ?? null;
		const own = shared ? null : new OwnTexts(routed);
		this.statements = new ClientStatements(of.statements, of.facts, parsing, own, this.kept);
		this.rig = rig();
		this.take(this.rig);
	}

	get server(): Server {
		return this.rig.server;
	}

	/**
	 * Takes this server from the client that has it, which has ended its transaction; gives back its own.
	 * @param locked for good (session pooling)
	 */
	take(other: Rig, locked = false): this {
		if (this.server.client?.statements === this.statements) this.leave();
		this.rig = other;
		if (other.server.client !== null) other.server.giveBack();
		const client = { ...other.client, statements: this.statements, onReady: () => this.onReady() };
		other.server.lend(client, 0, locked);
		other.toServer.take();
		other.toClient.take();
		return this;
	}

	leave(): void {
		this.statements.onServerLeft();
		this.server.giveBack();
	}

	private onReady(): void {
		this.statements.onAnswered();
		this.rig.events.push("ready");
	}

	/** A number for an unnamed statement. */
	serial(): number {
		return ++this.thread.serial;
	}

	/** What reaches the server of these messages, and what became of the last where that is not sent: "later" or "refused". */
	say(...messages: Uint8Array[]): string[] {
		const chunk = Buffer.from(concat(...messages));
		const { server } = this;
		let run = 0;
		let at = 0;
		const outcome: string[] = [];
		while (at < chunk.length && outcome.length === 0) {
			const next = at + 1 + chunk.readInt32BE(at + 1);
			const said = this.sayOne(chunk, run, at, next);
			if (said === Said.Later) outcome.push("later");
			if (said === Said.Refused) outcome.push("refused");
			if (said !== Said.AsIs) run = next;
			at = next;
		}
		server.stream.out.forward(chunk, run, at);
		return [...spoken(this.rig.toServer.take()), ...outcome];
	}

	/** The message `chunk[at, next)`, behind the run `chunk[run, at)`. */
	sayOne(chunk: Buffer, run: number, at: number, next: number): Said {
		const { server, statements } = this;
		const { books } = server;
		switch (String.fromCharCode(chunk[at]!)) {
			case "P":
				return statements.onParse(server, chunk, run, at, next, this.serial());
			case "B":
				return statements.onBind(server, chunk, run, at, next, next);
			case "D":
				return statements.onDescribe(server, chunk, run, at, next);
			case "C":
				return statements.onClose(server, chunk, run, at, next);
			case "E":
				books.said(Reply.Execute);
				server.session.restoring?.noteRun();
				return Said.AsIs;
			case "S":
				books.sync();
				return Said.AsIs;
			default:
				return this.sayQuery(chunk, run, at, next);
		}
	}

	private sayQuery(chunk: Buffer, run: number, at: number, next: number): Said {
		const { server, statements } = this;
		statements.onQuery();
		server.statements.dropUnnamed();
		const facts = factsOf(this.thread.facts, chunk, at + 5, next - 1);
		const { deallocates } = facts;
		const sql = deallocates === null ? null : statements.onDeallocate(server, chunk, run, at, deallocates);
		if (sql === null) {
			noteRun(server, facts);
			server.session.note(facts);
		}
		if (sql !== null) statements.noteDeallocation(server, deallocates!);
		server.books.query();
		if (sql === null) return Said.AsIs;
		server.stream.out.addAll(query(sql));
		return Said.Otherwise;
	}

	/** What the client hears when its server says this, a line each. */
	hear(...messages: Uint8Array[]): string[] {
		this.server.onData(Buffer.from(concat(...messages)));
		return cut(this.rig.toClient.take()).messages.map(describeMessage);
	}

	/** The server says to the client whatever ends its request: the answers that are owed are these. */
	done(...messages: Uint8Array[]): string[] {
		const heard = this.hear(...messages, backend.readyForQuery());
		expect(this.server.books.owed).toBe(0);
		expect(this.server.status).toBe(TxStatus.Idle);
		return heard;
	}
}

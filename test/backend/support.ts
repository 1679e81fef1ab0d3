// A Server between two sockets that only remember: what it wrote to PostgreSQL, what it wrote to its client, what it
// told its client and its pool. Chunks are given to `onData` as they are, so that a test decides where they are cut.

import type { Socket } from "bun";
import { type Books, Reply } from "../../src/backend/books.ts";
import type { Moment } from "../../src/backend/copy.ts";
import { ParameterSets } from "../../src/backend/parameters.ts";
import { Server, type ServerClient, type ServerHome } from "../../src/backend/server.ts";
import { ServerState } from "../../src/backend/server-state.ts";
import { Stream } from "../../src/net/stream.ts";
import { Stat } from "../../src/stats/counters.ts";

class Recorder {
	private parts: Buffer[] = [];
	ended = false;

	readonly stream: Stream;

	constructor() {
		const socket = {
			write: (bytes: Uint8Array, start = 0, length = bytes.length - start) => {
				this.parts.push(Buffer.from(bytes.subarray(start, start + length)));
				return length;
			},
			pause() {},
			resume() {},
			end: () => {
				this.ended = true;
			},
			terminate: () => {
				this.ended = true;
			},
		};
		this.stream = new Stream(socket as unknown as Socket<Stream>);
	}

	/** How many writes (system calls, in life) there were. */
	get writes(): number {
		return this.parts.length;
	}

	get bytes(): Buffer {
		return Buffer.concat(this.parts);
	}

	/** What was written since the last call. */
	take(): Buffer {
		const all = this.bytes;
		this.parts = [];
		return all;
	}
}

/** Says to `books` the message that `mark` stands for. */
export function say(books: Books, mark: Reply): void {
	if (mark === Reply.Query) books.query();
	else if (mark === Reply.Sync) books.sync();
	else if (mark === Reply.CopyEnd) books.copyEnd();
	else books.said(mark);
}

/** When a statement is prepared, where that does not matter. */
export const MOMENT: Moment = { catalogue: 0, dueAt: Number.POSITIVE_INFINITY };

export interface Rig {
	readonly server: Server;
	readonly toServer: Recorder;
	readonly toClient: Recorder;
	/** What was told, in order: `ready I`, `idle`, `gone`, `undone s1` … */
	readonly events: string[];
	readonly client: ServerClient;
	readonly sets: ParameterSets;
}

/** A Server lent to a client that knows `__pgdog_1` as `mine`. */
export function rig(): Rig {
	const toServer = new Recorder();
	const toClient = new Recorder();
	const events: string[] = [];
	const sets = new ParameterSets();
	const home: ServerHome = {
		sets,
		counters: new Float64Array(Stat.length),
		onIdle: () => events.push("idle"),
		onGone: () => events.push("gone"),
		onAltered: () => events.push("altered"),
		cancel: async () => {
			events.push("cancel");
		},
		rollbackTimeout: () => 1000,
	};
	const client: ServerClient = {
		pid: 1,
		stream: toClient.stream,
		onReady: (server) => events.push(`ready ${String.fromCharCode(server.status)}`),
		onAnswers: () => {},
		onServerDrain: () => events.push("drain"),
		startup: sets.empty,
		onReportsHeld: () => events.push("held"),
		statements: {
			onParseUndone: (name) => events.push(`parse undone ${name}`),
			onUnnamedUndone: (parses, failed, followed) =>
				events.push(`unnamed undone ${parses}${failed ? " failed" : ""}${followed ? " followed" : ""}`),
			onDescribed: (names, _, { key }) => events.push(`described ${[...names].join(" ")} ${key}`),
			onUnnamedDescribed: (serial, { key }) => events.push(`unnamed ${serial} described ${key}`),
			onCloseUndone: (name) => events.push(`close undone ${name}`),
			onStatementsGone: () => events.push("statements gone"),
			clientName: (name) => (name === "__pgdog_1" ? "mine" : null),
		},
		onServerGone: (error) => events.push(`server gone${error === null ? "" : ` ${error.sqlstate}`}`),
	};
	const server = new Server(home);
	server.stream = toServer.stream;
	server.stream.owner = server;
	server.state = ServerState.Idle;
	server.lend(client, Date.now(), false);
	return { server, toServer, toClient, events, client, sets };
}

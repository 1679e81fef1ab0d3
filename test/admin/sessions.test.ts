// The sessions of one worker: their questions go to the main thread and the answers back to whoever asked.

import { expect, test } from "bun:test";
import type { Socket } from "bun";
import type { CommandAnswer } from "../../src/admin/commands.ts";
import { AdminSessions } from "../../src/admin/sessions.ts";
import { PgError } from "../../src/errors.ts";
import { Stream, socketHandlers } from "../../src/net/stream.ts";
import { errorFields } from "../support/message.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend } from "../support/wire-frames.ts";
import { VERSION } from "./support.ts";

const SHUTDOWN = new PgError("FATAL", "57P01", "terminating connection due to administrator command");
const done = (tag: string): CommandAnswer => ({ columns: [], rows: [], tag });

/** A worker with sessions on every connection that comes in, and a main thread that answers when it is told to. */
function stage() {
	const asked: { id: number; sql: string; shape: string }[] = [];
	const sessions = new AdminSessions(VERSION, (question) => asked.push(question));
	const handlers = socketHandlers((error) => {
		throw error;
	});
	const open = (socket: Socket<Stream>) => {
		socket.data = new Stream(socket);
		sessions.open(socket.data, "test", new Map(), "pgdog");
	};
	const server = Bun.listen<Stream>({ hostname: "127.0.0.1", port: 0, socket: { ...handlers, open } });
	const connect = async () => {
		const client = await RawClient.open({ port: server.port });
		await client.until("Z");
		return client;
	};
	return { asked, sessions, connect, [Symbol.dispose]: () => server.stop(true) };
}

test("a question goes out with the shape that its session has, and its answer to whoever has asked it", async () => {
	using worker = stage();
	await using first = await worker.connect();
	await using second = await worker.connect();
	first.send(frontend.query("RELOAD"));
	await until(() => worker.asked.length === 1, "the first question");
	second.send(frontend.query("PAUSE"));
	await until(() => worker.asked.length === 2, "the second question");
	expect(worker.asked.map(({ sql, shape }) => [sql, shape])).toEqual([
		["RELOAD", "pgdog"],
		["PAUSE", "pgdog"],
	]);
	const [one, other] = worker.asked.map(({ id }) => id) as [number, number];
	expect(one).not.toBe(other);
	// The main thread may be done with the later one earlier.
	worker.sessions.answered(other, done("PAUSE"));
	expect((await second.result()).tags).toEqual(["PAUSE"]);
	expect(first.pending()).toEqual([]);
	worker.sessions.answered(one, done("RELOAD"));
	expect((await first.result()).tags).toEqual(["RELOAD"]);
	// Said once more, or never asked: nobody hears of it.
	worker.sessions.answered(one, done("SHUTDOWN"));
	worker.sessions.answered(77, done("SHUTDOWN"));
	first.send(frontend.query(";"));
	expect((await first.result()).messages.map(({ code }) => code).join("")).toBe("IZ");
});

test("an answer to a session that has left meanwhile is nobody's", async () => {
	using worker = stage();
	await using stays = await worker.connect();
	const leaves = await worker.connect();
	leaves.send(frontend.query("RELOAD"));
	await until(() => worker.asked.length === 1, "the question");
	leaves.close();
	await leaves.closed;
	worker.sessions.answered(worker.asked[0]!.id, done("RELOAD"));
	stays.send(frontend.query(";"));
	expect((await stays.result()).messages.map(({ code }) => code).join("")).toBe("IZ");
	expect(leaves.pending()).toEqual([]);
});

test("all sessions are closed with the error that the worker gives them", async () => {
	using worker = stage();
	const clients = await Promise.all([worker.connect(), worker.connect()]);
	worker.sessions.close(SHUTDOWN);
	for (const client of clients) {
		const messages = await client.closed;
		expect(messages.map(({ body }) => errorFields(body).C)).toEqual(["57P01"]);
	}
	// Nobody is left to be told.
	worker.sessions.close(SHUTDOWN);
});

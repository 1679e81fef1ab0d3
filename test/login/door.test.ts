// Where connections come in: how many may log in at once, for how long, and what is left when there is no descriptor.

import { afterAll, expect, test } from "bun:test";
import type { Socket } from "bun";
import { Seats } from "../../src/client/seats.ts";
import { now } from "../../src/clock.ts";
import type { General } from "../../src/config/settings.ts";
import { TOO_MANY_CONNECTIONS } from "../../src/errors.ts";
import { Door } from "../../src/login/door.ts";
import { Descriptors, Room } from "../../src/net/descriptors.ts";
import { type Stream, socketHandlers } from "../../src/net/stream.ts";
import { ScriptedServer, testPool } from "../pool/support.ts";
import { errorFields } from "../support/message.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend } from "../support/wire-frames.ts";
import { listen } from "./support.ts";

const postgres = new ScriptedServer();
afterAll(() => postgres[Symbol.dispose]());

/** A door with a listener of its own. @param limit of descriptors */
function stage(settings: Partial<General> = {}, limit = { most: 1_000_000 }) {
	const inner = testPool(postgres.port);
	const users = [{ name: "u", database: "d", passwords: ["secret"] }];
	const inside = listen(inner, users, { auth_type: "plain", ...settings });
	const descriptors = new Descriptors(undefined, () => limit.most);
	// A seat gives back the descriptor that the door has counted.
	inside.context.seats = new Seats({ ...inside.context, ledger: inner.ledger }, descriptors);
	const full: Room[] = [];
	const door = new Door(inside.context, descriptors, (room) => full.push(room));
	const handlers = socketHandlers((error) => {
		throw error;
	});
	const server = Bun.listen<Stream>({
		hostname: "127.0.0.1",
		port: 0,
		socket: { ...handlers, open: (socket: Socket<Stream>) => door.enter(socket, "10.0.0.1:5000") },
	});
	return {
		door,
		descriptors,
		full,
		lines: inside.lines,
		open: () => RawClient.open({ port: server.port }),
		[Symbol.dispose]() {
			server.stop(true);
			inside.stop();
			inner.pool.shutDown();
		},
	};
}

const STARTUP = frontend.startupMessage({ user: "u", database: "d" });

async function told(client: RawClient): Promise<string> {
	const last = (await client.closed).at(-1);
	return last === undefined ? "nothing" : `${errorFields(last.body).C} ${errorFields(last.body).M}`;
}

test("who has logged in does so no more, and gives his descriptor back when he leaves", async () => {
	using at = stage();
	expect(at.door.isEmpty).toBe(true);
	const client = await at.open();
	await until(() => !at.door.isEmpty, "the connection");
	expect(at.descriptors.connections).toBe(1);
	await client.login({ user: "u", database: "d", password: "secret" });
	expect([at.door.isEmpty, at.descriptors.connections]).toEqual([true, 1]);
	client.close();
	await until(() => at.descriptors.connections === 0, "its end");
	expect(at.full).toEqual([]);
});

test("beyond max_client_logins one is told so, and the next has the place of who is through", async () => {
	using at = stage({ max_client_logins: 1 });
	const first = await at.open();
	await until(() => at.descriptors.connections === 1, "the first");
	const second = await at.open();
	second.send(STARTUP);
	expect(await told(second)).toBe(`${TOO_MANY_CONNECTIONS} sorry, too many clients already`);
	expect(at.lines.filter((line) => line.includes("1 of 1 (max_client_logins)"))).toHaveLength(1);
	await first.login({ user: "u", database: "d", password: "secret" });
	const third = await at.open();
	await third.login({ user: "u", database: "d", password: "secret" });
	expect(third.backendPid).not.toBe(first.backendPid);
	for (const client of [first, third]) client.close();
});

test("a log-in has client_login_timeout, and who is only told that there is no room has less", async () => {
	using at = stage({ max_client_logins: 1 });
	const patient = await at.open();
	await until(() => at.descriptors.connections === 1, "the first");
	const refused = await at.open();
	await until(() => at.descriptors.connections === 2, "the second");
	at.door.tick(now() + 1_000, 60_000);
	expect(at.descriptors.connections).toBe(2);
	at.door.tick(now() + 3_000, 60_000);
	expect(await told(refused)).toBe("nothing");
	await until(() => at.descriptors.connections === 1, "the end of the second");
	at.door.tick(now() + 61_000, 60_000);
	expect(await told(patient)).toBe("nothing");
	expect(at.door.isEmpty).toBe(true);
});

test("at the end whoever logs in is told so", async () => {
	using at = stage();
	const client = await at.open();
	client.send(STARTUP);
	await client.until("R");
	at.door.shutDown();
	expect(await told(client)).toBe("57P03 the database system is shutting down");
	expect(at.door.isEmpty).toBe(true);
});

test("a client for whom there is no descriptor is turned away at once, and counts no more", async () => {
	// Every number of a descriptor is beyond it.
	using at = stage({}, { most: 0 });
	const client = await at.open();
	// What he is told may be lost: nobody waits until he has read it.
	await client.closed;
	expect([at.full, at.door.isEmpty, at.descriptors.connections]).toEqual([[Room.None], true, 0]);
});

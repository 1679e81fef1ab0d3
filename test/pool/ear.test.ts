// The connection that listens, before a server that answers as it is told to. With PostgreSQL: test/integration/listen.test.ts.

import { afterEach, expect, test } from "bun:test";
import { now } from "../../src/clock.ts";
import type { General } from "../../src/config/settings.ts";
import type { PgError } from "../../src/errors.ts";
import { Cluster } from "../../src/pool/cluster.ts";
import { type ChannelListener, type Ear, Ears, type HeardChannel } from "../../src/pool/ear.ts";
import { Shard } from "../../src/pool/shard.ts";
import { until } from "../support/until.ts";
import { cstring, int32, message } from "../support/wire-frames.ts";
import { ScriptedServer, testPool } from "./support.ts";

const open: Disposable[] = [];
afterEach(() => {
	for (const each of open.splice(0)) each[Symbol.dispose]();
});

interface Scene {
	readonly server: ScriptedServer;
	readonly ears: Ears;
	readonly ear: Ear;
	readonly lines: readonly string[];
	/** Where the primary is; none: nowhere. */
	primaries: Cluster[];
}

function scene(settings: Partial<General> = {}): Scene {
	const server = new ScriptedServer();
	const { pool, bans, context, lines } = testPool(server.port, {}, settings);
	const found: Scene["primaries"] = [new Cluster([new Shard([pool], bans.vitals, context.general, false)])];
	const ears = new Ears({ ...context, find: () => (found[0] === undefined ? null : { cluster: found[0] }) });
	open.push(server, { [Symbol.dispose]: () => ears.shutDown() });
	return { server, ears, ear: ears.of("u", "d", 0), lines, primaries: found };
}

class Hearer implements ChannelListener {
	readonly heard: string[] = [];

	hear({ name }: HeardChannel, pid: number, bytes: Buffer): void {
		this.heard.push(`${name} ${pid} ${bytes.toString("latin1", 5 + 4 + name.length + 1, bytes.length - 1)}`);
	}
}

/** The janitor's tick, some ms from now. */
function ticked(ears: Ears, later = 0): true {
	ears.tick(now() + later);
	return true;
}

/** What comes of waiting for these channels. */
function waited(ear: Ear, ...channels: string[]): Promise<string> {
	const { promise, resolve } = Promise.withResolvers<PgError | null>();
	ear.wait(channels, resolve);
	return promise.then((error) => error?.sqlstate ?? "heard");
}

const notification = (pid: number, channel: string, payload: string) =>
	message("A", int32(pid), cstring(channel), cstring(payload));

test("all hear of their channels, by one connection, which goes when nobody does", async () => {
	const { server, ears, ear } = scene();
	const [one, two] = [new Hearer(), new Hearer()];
	expect([ear.add("a", one), ear.add("b", two), ear.add("a", two)]).toEqual([false, false, false]);
	expect(await Promise.all([waited(ear, "a"), waited(ear, "b", "a")])).toEqual(["heard", "heard"]);
	expect(server.queries).toEqual(['LISTEN "a"; LISTEN "b"']);
	expect(ear.add("a", one)).toBe(true);
	server.say(notification(7, "a", "x"));
	server.say(notification(8, "b", "y"));
	server.say(notification(9, "nobody's", ""));
	await until(() => two.heard.length === 2, "both");
	expect([one.heard, two.heard]).toEqual([["a 7 x"], ["a 7 x", "b 8 y"]]);
	expect(ears.rows).toEqual([
		{ user: "u", database: "d", shard: 0, channel: "a", listeners: 2, received: 1, dropped: 0 },
		{ user: "u", database: "d", shard: 0, channel: "b", listeners: 1, received: 1, dropped: 0 },
	]);
	ear.remove("a", one);
	ear.remove("c", one);
	expect(server.queries.length).toBe(1);
	ear.remove("a", two);
	await until(() => server.queries.length === 2, "UNLISTEN");
	expect(server.queries[1]).toBe('UNLISTEN "a"');
	ear.remove("b", two);
	await until(() => server.queries.length === 3, "UNLISTEN");
	ears.tick(now());
	expect(server.connections).toBe(1);
	await until(() => ticked(ears, 60_000) && server.connections === 0, "the end of the connection");
	ears.tick(now());
	expect(ears.of("u", "d", 0)).not.toBe(ear);
});

test("a channel that is given up and wanted again at once is listened on", async () => {
	const { server, ear } = scene();
	const one = new Hearer();
	ear.add("a", one);
	await waited(ear, "a");
	server.hold = true;
	ear.remove("a", one);
	await until(() => server.queries.length === 2, "UNLISTEN");
	// It does no longer, though UNLISTEN is not answered.
	expect(ear.add("a", one)).toBe(false);
	server.hold = false;
	server.answer();
	expect(await waited(ear, "a")).toBe("heard");
	expect(server.queries.slice(1)).toEqual(['UNLISTEN "a"', 'LISTEN "a"']);
});

test("a client that goes while nothing can be opened leaves nobody who waits", async () => {
	const { server, ears, ear, lines } = scene();
	const one = new Hearer();
	ear.add("a", one);
	await waited(ear, "a");
	server.drop();
	await until(() => lines.length > 0, "the line");
	const gone = waited(ear, "b");
	ear.add("b", one);
	ear.remove("b", one);
	ear.remove("a", one);
	await until(() => ticked(ears) && ears.of("u", "d", 0) !== ear, "the end of the Ear");
	expect(await gone).toBe("heard");
	expect(lines.length).toBe(1);
});

test("nor one that goes while the connection does not answer", async () => {
	const { server, ears, ear, lines } = scene({ connect_timeout: 50 });
	const one = new Hearer();
	ear.add("a", one);
	await waited(ear, "a");
	server.hold = true;
	ear.add("b", one);
	const gone = waited(ear, "b");
	await until(() => server.queries.length === 2, "LISTEN");
	for (const name of ["a", "b"]) ear.remove(name, one);
	await until(() => ticked(ears) && ears.of("u", "d", 0) !== ear, "the end of the Ear");
	expect([await gone, lines]).toEqual(["heard", []]);
});

test("a connection that is lost is opened again, and told", async () => {
	const { server, ears, ear, lines } = scene();
	const one = new Hearer();
	for (let i = 0; i < 501; i++) ear.add(`c${i}`, one);
	await waited(ear, "c500");
	expect(server.queries.map((sql) => sql.split(";").length)).toEqual([500, 1]);
	server.drop();
	await until(() => lines.length > 0, "the line");
	expect(lines[0]).toMatch(
		/the connection that listens is lost: .*; its 501 channels hear nothing until there is another \[user: u, database: d, worker: 0\]/,
	);
	await until(() => ticked(ears) && server.queries.length === 4, "LISTEN");
	server.say(notification(7, "c3", "x"));
	await until(() => one.heard.length === 1, "a notification");
});

test("who waits is told why nothing listens, and who comes later is served", async () => {
	const { server, ears, ear, lines, primaries } = scene();
	const one = new Hearer();
	const wait = () => {
		ear.add("a", one);
		const waiting = waited(ear, "a");
		const timer = setInterval(() => ears.tick(now()), 20);
		return waiting.finally(() => clearInterval(timer));
	};
	server.refuse = "28P01";
	expect(await wait()).toBe("28P01");
	server.refuse = "";
	server.fails = "25006";
	expect(await wait()).toBe("25006");
	server.fails = "";
	expect(await wait()).toBe("heard");
	expect(lines[0]).toMatch(/cannot listen: 28P01 refused/);
	// Of clients that have gone nobody waits.
	server.hold = true;
	ear.add("b", one);
	const gone = waited(ear, "b");
	await until(() => server.queries.at(-1) === 'LISTEN "b"', "LISTEN");
	ear.remove("b", one);
	server.hold = false;
	server.answer();
	expect(await gone).toBe("heard");
	// The primary is nowhere.
	const [cluster] = primaries.splice(0);
	server.drop();
	await until(() => server.connections === 0, "the loss");
	expect(await wait()).toBe("58000");
	primaries.push(cluster!);
	expect(await wait()).toBe("heard");
	ears.shutDown();
	expect(await waited(ear, "a")).toBe("57P01");
});

test("it goes where the primary is, and a connection that does not answer is given up", async () => {
	const { ears, server, ear, primaries } = scene({ connect_timeout: 100, healthcheck_interval: 50 });
	const one = new Hearer();
	ear.add("a", one);
	await waited(ear, "a");
	const other = new ScriptedServer();
	open.push(other);
	const { pool, bans, context } = testPool(other.port);
	primaries[0] = new Cluster([new Shard([pool], bans.vitals, context.general, false)]);
	await until(() => ticked(ears) && other.queries.length > 0, "LISTEN");
	expect(other.queries[0]).toBe('LISTEN "a"');
	await until(() => server.connections === 0, "the end of the first");
	await until(() => ticked(ears) && other.queries.includes(";"), "the question whether it is well");
	other.hold = true;
	const { logins } = other;
	await until(() => ticked(ears) && other.logins > logins, "another connection");
});

test("each shard's is where its primary is, says which it is, and has nowhere to listen when a reload took the shard away", async () => {
	const { server, ears, ear, lines, primaries } = scene();
	const other = new ScriptedServer();
	open.push(other);
	const { pool, bans, context } = testPool(other.port, { shard: 1 });
	const second = new Shard([pool], bans.vitals, context.general, false);
	primaries[0] = new Cluster([...primaries[0]!.shards, second]);
	const hearer = new Hearer();
	const there = ears.of("u", "d", 1);
	for (const each of [ear, there]) each.add("a", hearer);
	expect(await Promise.all([waited(ear, "a"), waited(there, "a")])).toEqual(["heard", "heard"]);
	server.say(notification(7, "a", "x"));
	await until(() => hearer.heard.length === 1, "the first shard's");
	other.say(notification(8, "a", "y"));
	await until(() => hearer.heard.length === 2, "the other's");
	expect(hearer.heard).toEqual(["a 7 x", "a 8 y"]);
	expect(ears.rows.map(({ shard, received }) => [shard, received])).toEqual([
		[0, 1],
		[1, 1],
	]);
	primaries[0] = new Cluster(primaries[0].shards.slice(0, 1));
	other.drop();
	await until(() => lines.length === 1, "the line");
	there.add("b", hearer);
	expect(
		await new Promise<string>((resolve) => {
			there.wait(["b"], (error) => resolve(error?.sqlstate ?? "heard"));
			const timer = setInterval(() => ears.tick(now() + 10_000), 20);
			open.push({ [Symbol.dispose]: () => clearInterval(timer) });
		}),
	).toBe("58000");
});

test("what is dropped is counted, and told once", () => {
	const { ears, ear, lines } = scene();
	let channel: HeardChannel | undefined;
	ear.add("a", { hear() {} });
	for (const each of (ear as unknown as { channels: Map<string, HeardChannel> }).channels.values()) channel = each;
	ear.drop(channel!);
	ear.drop(channel!);
	expect(ears.rows).toMatchObject([{ channel: "a", dropped: 2 }]);
	expect(lines.length).toBe(1);
	expect(lines[0]).toMatch(
		/the oldest that waits is dropped \(pub_sub_channel_size\) \[user: u, database: d, worker: 0, channel: a\]/,
	);
});

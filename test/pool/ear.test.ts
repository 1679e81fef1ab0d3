// The connection that listens, before a server that answers as it is told to. With PostgreSQL: test/integration/listen.test.ts.

import { afterEach, expect, test } from "bun:test";
import { now } from "../../src/clock.ts";
import type { General } from "../../src/config/settings.ts";
import type { PgError } from "../../src/errors.ts";
import { Cluster } from "../../src/pool/cluster.ts";
import { type ChannelListener, type Ear, Ears, type HeardChannel } from "../../src/pool/ear.ts";
import { MARKS } from "../../src/pool/renewal.ts";
import { Shard } from "../../src/pool/shard.ts";
import { until } from "../support/until.ts";
import { backend, concat, cstring, int32, message } from "../support/wire-frames.ts";
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
	/** As RECONNECT counts it up. */
	readonly generation: { now: number };
}

function scene(settings: Partial<General> = {}): Scene {
	const server = new ScriptedServer();
	const { pool, bans, context, lines } = testPool(server.port, {}, settings);
	const generation = { now: 0 };
	Object.defineProperty(context, "generation", { get: () => generation.now });
	const found: Scene["primaries"] = [new Cluster([new Shard([pool], bans.vitals, context.general, false)])];
	const ears = new Ears({ ...context, find: () => (found[0] === undefined ? null : { cluster: found[0] }) });
	open.push(server, { [Symbol.dispose]: () => ears.shutDown() });
	return { server, ears, ear: ears.of("u", "d", 0), lines, primaries: found, generation };
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

/** A scene in which the pool's servers are about to be replaced, and a hearer of channels a and b. */
async function reconnecting(settings: Partial<General> = {}) {
	const it = scene(settings);
	const one = new Hearer();
	for (const name of ["a", "b"]) it.ear.add(name, one);
	await waited(it.ear, "a", "b");
	const reconnect = () => {
		it.generation.now++;
		it.primaries[0]!.first.reconnect();
		it.ears.tick(now());
	};
	/** The text of the mark, once the new connection has said it. */
	const mark = async () => {
		await until(() => it.server.queries.at(-1)!.startsWith("NOTIFY"), "the mark");
		return notification(0, MARKS, /'(.*)'/.exec(it.server.queries.at(-1)!)![1]!);
	};
	return { ...it, one, reconnect, mark };
}

test("RECONNECT: another connection takes its place; what comes before the mark is the old one's, what comes behind it the new one's", async () => {
	const { server, ear, ears, one, lines, reconnect, mark } = await reconnecting();
	server.holdsAt = "NOTIFY";
	for (const newIsFirst of [true, false]) {
		one.heard.length = 0;
		const { length } = server.queries;
		reconnect();
		const marked = await mark();
		expect(server.queries.slice(length, -1)).toEqual([
			`LISTEN "${MARKS}"`,
			'LISTEN "a"; LISTEN "b"',
			`LISTEN "${MARKS}"`,
		]);
		// Who wants another channel, or gives one up, waits for the new one.
		ear.add("c", one);
		const waiting = waited(ear, "c");
		ear.remove("b", one);
		const [old, young] = [0, 1];
		const tells = [
			() => {
				server.say(notification(7, "a", "1"), young);
				server.say(marked, young);
				server.say(notification(7, "a", "2"), young);
			},
			() => {
				server.say(notification(7, "a", "1"), old);
				server.say(notification(7, MARKS, "somebody's"), old);
				server.say(marked, old);
				server.say(notification(7, "a", "2"), old);
			},
		];
		// Nor is anything said to the new one before it has answered.
		for (const tell of newIsFirst ? tells : tells.reverse()) tell();
		await until(() => one.heard.length === 1, "the first");
		expect(server.connections).toBe(2);
		server.hold = false;
		server.answer();
		await until(() => server.connections === 1, "the end of the old one");
		expect(await waiting).toBe("heard");
		server.say(notification(7, "c", "3"));
		await until(() => one.heard.length >= 3, "the last");
		expect(one.heard).toEqual(["a 7 1", "a 7 2", "c 7 3"]);
		expect(server.queries.at(-1)).toBe('LISTEN "c"; UNLISTEN "b"');
		ear.remove("c", one);
		ear.add("b", one);
		await waited(ear, "b");
	}
	ears.tick(now());
	expect([server.connections, server.logins, lines]).toEqual([1, 3, []]);
});

test("RECONNECT where no second connection can be had: the first goes, which is told, and another is opened", async () => {
	const settings = { connect_timeout: 100 };
	const failures: Record<string, (it: Awaited<ReturnType<typeof reconnecting>>) => Promise<void>> = {
		"log-in refused": async ({ server, reconnect, lines }) => {
			server.refuse = "53300";
			reconnect();
			await until(() => lines.length > 0, "the line");
			server.refuse = "";
		},
		"LISTEN fails": async ({ server, reconnect, lines }) => {
			server.fails = "42501";
			reconnect();
			await until(() => lines.length > 0, "the line");
			server.fails = "";
		},
		"no answer": async ({ server, reconnect, ears, lines }) => {
			reconnect();
			await until(() => server.connections === 2, "the second");
			server.hold = true;
			await until(() => ticked(ears) && lines.length > 0, "the line");
			server.hold = false;
		},
		"the first is not told of the mark": async ({ server, reconnect, mark, lines }) => {
			reconnect();
			server.say(await mark(), 1);
			for (let i = 0; i < 140; i++) server.say(notification(7, "a", "x".repeat(7900)), 1);
			await until(() => lines.length > 0, "the line");
		},
		"the second is lost with the mark": async ({ server, ear, reconnect, mark, lines }) => {
			reconnect();
			const marked = await mark();
			server.say(marked, 0);
			const { renewal } = ear as unknown as { renewal: { isOldMarked: boolean; isSaid: boolean } };
			await until(() => renewal.isOldMarked && renewal.isSaid, "the first has heard it");
			// In one chunk with what nobody has asked it, so that it is gone before anything has come of that.
			server.say(concat(marked, backend.readyForQuery()), 1);
			await until(() => lines.length > 0, "the line");
		},
		"both are lost": async ({ server, reconnect, mark, lines }) => {
			reconnect();
			await mark();
			server.drop();
			await until(() => lines.length > 0, "the line");
		},
	};
	const happens = Object.entries(failures).map(async ([name, fail]) => {
		const it = await reconnecting(settings);
		await fail(it);
		const { server, ears, one, lines } = it;
		expect([name, lines[0]]).toEqual([
			name,
			expect.stringContaining("its 2 channels hear nothing until there is another"),
		]);
		const { length } = server.queries;
		await until(
			() => ticked(ears) && server.queries.slice(length).includes('LISTEN "a"; LISTEN "b"'),
			`another connection after ${name}`,
		);
		await until(() => server.connections === 1, "one connection");
		server.say(notification(7, "b", "again"));
		await until(() => one.heard.at(-1) === "b 7 again", "the notification");
	});
	await Promise.all(happens);
});

test("RECONNECT while it is opened, or nobody listens, or the process ends", async () => {
	const { server, ears, ear, one, reconnect, mark } = await reconnecting();
	reconnect();
	await mark();
	// Once more: the new one is old as well.
	reconnect();
	server.say(await mark());
	await until(() => server.logins === 3 || !ticked(ears), "the third");
	server.say(await mark());
	await until(() => server.connections === 1, "the third alone");
	for (const name of ["a", "b"]) ear.remove(name, one);
	await until(() => server.queries.at(-1)!.startsWith("UNLISTEN"), "UNLISTEN");
	await until(() => {
		reconnect();
		return server.connections === 0;
	}, "the end of what nobody needs");
	const another = ears.of("u", "d", 0);
	another.add("a", one);
	await waited(another, "a");
	reconnect();
	await mark();
	ears.shutDown();
	await until(() => server.connections === 0, "the end");
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

// Replicas that are killed, frozen, cut off, late, confused or liars: reads go to the others, nobody waits beyond the timeouts,
// no waiter and no server is lost, and writes never notice. With streaming replicas, and scripted ones for what no PostgreSQL does.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, freePort, type PostgresServer } from "../support/postgres.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { until, within } from "../support/until.ts";
import { asksForTls, backend, concat, liar, text } from "../support/wire-frames.ts";
import {
	asShards,
	type EndlessClient,
	entries,
	entry,
	expectWritten,
	Fleet,
	Link,
	READER,
	READER_OF_BOTH,
	READER_OF_EACH,
	SHORT,
	SOON,
	startServers,
	WRITER,
} from "./fleet.ts";

setDefaultTimeout(60_000);

/** A client waits no longer: for a server, once more for another one, and for the tick of the janitor and a busy machine. */
const PATIENCE = 2 * SHORT.checkout_timeout + 1_500;
/** Nor for the answer. */
const ANSWERED = SHORT.query_timeout + 1_500;

/** For tests in which nobody waits in vain: who waits outlasts what finds out about the server, a query under way and healthcheck_timeout. */
const OUTLASTING = { checkout_timeout: 2 * SHORT.query_timeout };

/** Why a server is banned that is killed or frozen: whatever comes first. */
const DOWN = /^(a health check failed|it cannot be reached)$/;

const PORT = "SELECT current_setting('port')";

let cluster: Cluster;
let one: PostgresServer;
let two: PostgresServer;
beforeAll(async () => {
	cluster = await startServers();
	[one, two] = cluster.replicas as [PostgresServer, PostgresServer];
});
afterAll(() => cluster?.stop());

function forget(clients: EndlessClient[]): void {
	for (const client of clients) client.forget();
}

/** Each gets so many more answers. */
function more(clients: EndlessClient[], count: number): Promise<unknown> {
	return Promise.all(clients.map((client) => client.more(count)));
}

/** Resolves when one of them has been answered by `place`. */
function untilRead(clients: EndlessClient[], place: { host: string; port: number }): Promise<void> {
	forget(clients);
	return until(() => clients.some((client) => client.from(place) > 0), "reads to reach the server again", SOON);
}

function errorsOf(clients: EndlessClient[]) {
	return clients.flatMap(({ errors }) => errors);
}

/** A replica that no PostgreSQL is: it answers the StartupMessage with `startup`, and a query with `query`. */
function scripted(startup: Uint8Array, query: Uint8Array = NOTHING): Bun.TCPSocketListener<{ begun: boolean }> {
	return Bun.listen<{ begun: boolean }>({
		hostname: "127.0.0.1",
		port: 0,
		socket: {
			open(socket) {
				socket.data = { begun: false };
			},
			// Requests of the proxy are one packet each, and short.
			data(socket, chunk) {
				if (chunk[0] === TERMINATE) return;
				if (asksForTls(chunk)) {
					socket.write("N");
					return;
				}
				socket.write(socket.data.begun ? query : startup);
				socket.data.begun = true;
			},
		},
	});
}

const TERMINATE = "X".charCodeAt(0);
const NOTHING = new Uint8Array(0);
const WELCOME = concat(
	backend.authenticationOk(),
	backend.parameterStatus("server_version", "17.0"),
	backend.backendKeyData(1, 2),
	backend.readyForQuery("I"),
);
const refusal = (code: string, words: string) => backend.errorResponse({ S: "FATAL", V: "FATAL", C: code, M: words });

/** A client with an open transaction on this replica. */
async function openOn(fleet: Fleet, place: { port: number }): Promise<RawClient> {
	const client = await fleet.client();
	const isThere = async () => {
		await client.query("BEGIN READ ONLY");
		if ((await client.query(PORT)).rows[0]?.[0] === String(place.port)) return true;
		await client.query("COMMIT");
		return false;
	};
	await until(isThere, "a transaction on the replica");
	return client;
}

/** SQLSTATE, message and hint. */
function errorOf({ errors: [error] }: QueryResult): (string | undefined)[] {
	return [error?.C, error?.M, error?.H];
}

describe("of two replicas", () => {
	let fleet: Fleet;
	let readers: EndlessClient[];
	let writers: EndlessClient[];
	beforeAll(async () => {
		fleet = await Fleet.start(entries(cluster), OUTLASTING);
	});
	afterAll(() => fleet?.[Symbol.asyncDispose]());

	/** Readers and writers under way, all of whom have been served by everybody. */
	async function load(): Promise<void> {
		readers = fleet.start(READER, 6);
		writers = fleet.start(WRITER, 2);
		const servers = [cluster.primary, one, two];
		const met = () => servers.every((server) => readers.some((reader) => reader.from(server) > 0));
		await until(met, "reads from everybody");
		await more(writers, 3);
	}

	/** Ends it; the writers have not noticed a thing. */
	async function expectUnnoticed(): Promise<void> {
		await fleet.settle();
		expect(errorsOf(writers)).toEqual([]);
		await expectWritten(cluster.primary, writers);
	}

	test("one that is killed costs its readers the query under way, is banned, and is back seconds after it runs again", async () => {
		await load();
		const inside = await openOn(fleet, one);
		await one.kill();
		const { errors: lost, rows } = await inside.query(PORT);
		expect([rows, lost.every(({ S }) => S === "FATAL"), inside.ended]).toEqual([[], true, true]);
		expect(await fleet.untilBanned(one)).toMatch(DOWN);
		await more(readers, 20);
		for (const { errors, longest } of readers) {
			expect(errors.length).toBeLessThanOrEqual(1);
			for (const { state, ended } of errors)
				expect([/^(closed|57P0[12]|08006)$/.test(state), ended]).toEqual([true, true]);
			expect(longest).toBeLessThan(PATIENCE);
		}
		forget(readers);
		await more(readers, 20);
		expect(errorsOf(readers)).toEqual([]);
		expect(readers.every((reader) => reader.from(one) === 0)).toBe(true);
		await one.start();
		await fleet.untilUnbanned(one);
		await untilRead(readers, one);
		expect(errorsOf(readers)).toEqual([]);
		await expectUnnoticed();
	});

	test("one that is frozen under load is out soon, hangs nobody beyond query_timeout, and is back when it thaws", async () => {
		await load();
		one.pause();
		try {
			expect(await fleet.untilBanned(one)).toMatch(DOWN);
			await more(readers, 20);
			for (const { errors, longest } of readers) {
				expect(errors.length).toBeLessThanOrEqual(1);
				for (const { message, ended } of errors) expect([message, ended]).toEqual(["query timeout", true]);
				expect(longest).toBeLessThan(ANSWERED);
			}
			forget(readers);
			await more(readers, 20);
			expect(errorsOf(readers)).toEqual([]);
			expect(readers.every((reader) => reader.from(one) === 0)).toBe(true);
		} finally {
			one.resume();
		}
		await fleet.untilUnbanned(one);
		await untilRead(readers, one);
		expect(errorsOf(readers)).toEqual([]);
		await expectUnnoticed();
	});

	test("one that freezes while nobody reads costs the first queries there their connection, in time, and then none", async () => {
		await fleet.untilQuiet();
		one.pause();
		try {
			const clients = await Promise.all(Array.from({ length: 32 }, () => fleet.client()));
			const results = await within(Promise.all(clients.map((client) => client.query(PORT))), "all answers", ANSWERED);
			const lost = results.filter(({ rows }) => rows.length === 0);
			for (const result of lost) expect(errorOf(result)[1]).toBe("query timeout");
			for (const client of clients) client.reset();
			await fleet.untilBanned(one);
			await using next = await fleet.client();
			for (let i = 0; i < 20; i++) expect((await next.query(PORT)).rows).not.toEqual([[String(one.port)]]);
		} finally {
			one.resume();
		}
		await fleet.untilUnbanned(one);
		await fleet.untilQuiet();
	});

	test("both down leave reads to the primary, and each is back when it runs again", async () => {
		await load();
		await Promise.all([one.kill(), two.kill()]);
		await fleet.untilBanned(one);
		await fleet.untilBanned(two);
		await more(readers, 5);
		forget(readers);
		await more(readers, 20);
		expect(errorsOf(readers)).toEqual([]);
		expect(new Set(readers.flatMap(({ ports }) => ports))).toEqual(new Set([cluster.primary.port]));
		await one.start();
		await fleet.untilUnbanned(one, 2 * SOON);
		await untilRead(readers, one);
		expect(await fleet.banOf(two)).toMatch(DOWN);
		await two.start();
		await fleet.untilUnbanned(two, 2 * SOON);
		await untilRead(readers, two);
		expect(errorsOf(readers)).toEqual([]);
		await expectUnnoticed();
	});
});

/** Pools of one server each: whoever comes second waits, and must not wait in vain. */
test("clients that wait for the only connection to a frozen replica are served by others", async () => {
	await using fleet = await Fleet.start(entries(cluster), { default_pool_size: 1, ...OUTLASTING });
	const readers = fleet.start(READER, 12);
	await more(readers, 5);
	forget(readers);
	one.pause();
	try {
		await fleet.untilBanned(one);
		await more(readers, 10);
		// Nobody but the one whose query is under way there.
		expect(errorsOf(readers).map(({ message }) => message)).toEqual(["query timeout"]);
		for (const { longest } of readers) expect(longest).toBeLessThan(ANSWERED);
	} finally {
		one.resume();
	}
	await fleet.untilUnbanned(one);
	await fleet.settle();
});

test("with all replicas down and the primary excluded reads are refused at once, and served when one is back", async () => {
	await using fleet = await Fleet.start(entries(cluster), { read_write_split: "exclude_primary" });
	const refusal = [
		"58000",
		"all replicas down",
		'read_write_split = "exclude_primary" keeps reads from the primary; SHOW BANS of the admin database says what is wrong.',
	];
	await using writer = await fleet.client();
	await Promise.all([one.kill(), two.kill()]);
	const refused = async () => {
		await using client = await fleet.client();
		return errorOf(await client.query(PORT))[1] === refusal[1];
	};
	await until(refused, "reads to be refused", SOON).catch((error) => fleet.fail(error));
	await using reader = await fleet.client();
	const times: number[] = [];
	for (let i = 0; i < 11; i++) {
		const startedAt = performance.now();
		expect(errorOf(await reader.query(PORT))).toEqual(refusal);
		times.push(performance.now() - startedAt);
	}
	// Most are refused without another look at the servers, whatever else the machine does.
	expect(times.sort((a, b) => a - b)[5]).toBeLessThan(200);
	// The last one is never banned: of two that are down one is.
	expect(await fleet.show("BANS")).toHaveLength(1);
	expect((await writer.query("INSERT INTO written VALUES (0) RETURNING current_setting('port')")).rows).toEqual([
		[String(cluster.primary.port)],
	]);
	await one.start();
	await until(
		async () => (await reader.query(PORT)).rows[0]?.[0] === String(one.port),
		"reads to be served",
		SOON,
	).catch((error) => fleet.fail(error));
	await two.start();
	await fleet.untilUnbanned(two);
	await fleet.untilQuiet();
});

test('with read_write_split = "include_primary_if_replica_banned" the primary is read from for as long as that', async () => {
	await using fleet = await Fleet.start(entries(cluster), { read_write_split: "include_primary_if_replica_banned" });
	/** On a machine that has no time for a replica it is banned though nothing ails it. */
	const bans = () => fleet.proxy.lines.filter((line) => line.includes("read queries banned")).length;
	const readers = fleet.start(READER, 4);
	await until(() => readers.some((reader) => reader.from(one) > 0), "reads from the replica");
	await more(readers, 10);
	expect(bans() > 0 || readers.every((reader) => reader.from(cluster.primary) === 0)).toBe(true);
	await one.kill();
	await untilRead(readers, cluster.primary);
	await one.start();
	await fleet.untilUnbanned(one);
	await more(readers, 1);
	forget(readers);
	const before = bans();
	await more(readers, 10);
	expect(bans() > before || readers.every((reader) => reader.from(cluster.primary) === 0)).toBe(true);
	await fleet.settle();
});

describe("a network that is cut", () => {
	test("to half of the hosts leaves the others to read from, and all are back when it is mended", async () => {
		await using near = await Link.open(one);
		await using far = await Link.open(two);
		const databases = [
			entry(cluster.primary, "primary"),
			entry(one, "replica"),
			entry(near, "replica"),
			entry(far, "replica"),
		];
		await using fleet = await Fleet.start(databases, OUTLASTING);
		const readers = fleet.start(READER, 8);
		const writers = fleet.start(WRITER, 2);
		await until(() => readers.some((reader) => reader.from(two) > 0), "reads through the network");
		await more(readers, 5);
		near.cut();
		far.cut();
		await fleet.untilBanned(near);
		await fleet.untilBanned(far);
		await more(readers, 10);
		for (const { errors, longest } of readers) {
			for (const { message, ended } of errors) expect([message, ended]).toEqual(["query timeout", true]);
			expect(errors.length).toBeLessThanOrEqual(2);
			expect(longest).toBeLessThan(ANSWERED);
		}
		forget(readers);
		await more(readers, 20);
		expect(errorsOf(readers)).toEqual([]);
		expect(readers.every((reader) => reader.from(two) === 0)).toBe(true);
		near.mend();
		far.mend();
		await fleet.untilUnbanned(near);
		await fleet.untilUnbanned(far);
		await untilRead(readers, two);
		await fleet.settle();
		expect(errorsOf(writers)).toEqual([]);
		await expectWritten(cluster.primary, writers);
	});

	test("to the primary and a replica leaves reads, ends writes in time, and both go on when it is mended", async () => {
		await using first = await Link.open(cluster.primary);
		await using far = await Link.open(two);
		await using fleet = await Fleet.start([entry(first, "primary"), entry(one, "replica"), entry(far, "replica")]);
		const readers = fleet.start(READER, 6);
		const writers = fleet.start(WRITER, 3);
		await more([...readers, ...writers], 5);
		first.cut();
		far.cut();
		await until(() => writers.every(({ errors }) => errors.length > 1), "writes to be refused", 2 * SOON);
		for (const { longest } of writers) expect(longest).toBeLessThan(ANSWERED);
		await fleet.untilBanned(far);
		await more(readers, 10);
		forget(readers);
		await more(readers, 20);
		expect(errorsOf(readers)).toEqual([]);
		expect(new Set(readers.flatMap(({ ports }) => ports))).toEqual(new Set([one.port]));
		first.mend();
		far.mend();
		await more(writers, 10);
		await untilRead(readers, two);
		await fleet.settle();
		await expectWritten(cluster.primary, writers);
	});
});

describe("a replica that is none", () => {
	const peers: { port: number; stop(closing?: boolean): void }[] = [];
	let fleet: Fleet;

	/** By the name of the database that it is the second replica of. */
	const BAD: Record<string, { startup?: Uint8Array; query?: Uint8Array; place?: Record<string, unknown> }> = {
		"accepts and says nothing": { startup: NOTHING },
		"speaks HTTP": { startup: text("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n") },
		"is full": { startup: refusal("53300", "sorry, too many clients already") },
		"is starting up": { startup: refusal("57P03", "the database system is starting up") },
		"lets in and says nothing": { startup: WELCOME },
		"answers garbage": { startup: WELCOME, query: new Uint8Array(64).fill(255) },
		"hangs in the middle of a row": {
			startup: WELCOME,
			query: concat(backend.rowDescription("port", "n"), liar("D", 1_000, text("half"))),
		},
		"is not there": { place: { port: 0 } },
		"has no address": { place: { host: "replica.invalid" } },
		"does not know the password": { place: { password: "wrong" } },
		"does not have the database": { place: { database_name: "nowhere" } },
	};
	const names = Object.keys(BAD);
	const places = new Map<string, { host: string; port: number }>();
	/** It answers a login like a good one: only queries tell. */
	const letsIn = (name: string) => BAD[name]!.startup === WELCOME;

	beforeAll(async () => {
		const databases = names.flatMap((name) => {
			const { startup, query, place } = BAD[name]!;
			const bad = entry(two, "replica", name);
			if (startup !== undefined) {
				const peer = scripted(startup, query);
				peers.push(peer);
				bad.port = peer.port;
			} else Object.assign(bad, place);
			if (bad.port === 0) bad.port = freePort();
			places.set(name, bad);
			return [entry(cluster.primary, "primary", name), entry(one, "replica", name), bad];
		});
		fleet = await Fleet.start(databases, { default_pool_size: 2, min_pool_size: 0 });
	});
	afterAll(async () => {
		await fleet?.[Symbol.asyncDispose]();
		for (const peer of peers) peer.stop(true);
	});

	test.each(names)("one that %s is banned, and its reads go to others", async (name) => {
		const readers = fleet.start(READER, 3, name);
		await fleet.untilBanned(places.get(name)!, 2 * SOON, name);
		await more(readers, 10);
		for (const { errors, longest } of readers) {
			if (!letsIn(name)) expect(errors).toEqual([]);
			// The queries that were sent there.
			else expect(errors.every(({ ended }) => ended)).toBe(true);
			expect(longest).toBeLessThan(letsIn(name) ? ANSWERED : PATIENCE);
		}
		forget(readers);
		await more(readers, 20);
		expect(errorsOf(readers)).toEqual([]);
		for (const { longest } of readers) expect(longest).toBeLessThan(SHORT.checkout_timeout);
		await fleet.settle();
		await using writer = await fleet.client(name);
		const written = await writer.query("INSERT INTO written VALUES (0) RETURNING current_setting('port')");
		expect(written.rows).toEqual([[String(cluster.primary.port)]]);
	});
});

/** `recovery_min_apply_delay`: its commits are replayed so much later. */
async function delay(replica: PostgresServer, time: string): Promise<void> {
	await replica.sql(`ALTER SYSTEM SET recovery_min_apply_delay = '${time}'`);
	await replica.sql("SELECT pg_reload_conf()");
	const isSet = async () => (await replica.sql("SHOW recovery_min_apply_delay"))[0]?.recovery_min_apply_delay === time;
	await until(isSet, "the delay");
}

describe("a replica that is late", () => {
	afterAll(async () => {
		for (const replica of cluster?.replicas ?? []) await delay(replica, "0");
	});

	test("by more than ban_replica_lag is not read from until it has caught up", async () => {
		await using fleet = await Fleet.start(entries(cluster), { ban_replica_lag: 500 });
		const readers = fleet.start(READER, 4);
		const writers = fleet.start(WRITER, 1);
		await until(() => readers.some((reader) => reader.from(one) > 0), "reads from the replica");
		await delay(one, "1min");
		expect(await fleet.untilBanned(one)).toBe("replica lag");
		const lags = async () => (await fleet.show("REPLICATION")).find(({ port }) => port === String(one.port))!;
		expect(Number((await lags()).replica_lag)).toBeGreaterThanOrEqual(500);
		await more(readers, 1);
		forget(readers);
		await more(readers, 20);
		expect(readers.every((reader) => reader.from(one) === 0)).toBe(true);
		await delay(one, "0");
		await fleet.untilUnbanned(one);
		await untilRead(readers, one);
		await fleet.settle();
		expect(errorsOf([...readers, ...writers])).toEqual([]);
		await expectWritten(cluster.primary, writers);
	});

	test("by more than ban_replica_lag_bytes is not read from until it has caught up", async () => {
		await using fleet = await Fleet.start(entries(cluster), { ban_replica_lag_bytes: 100_000 });
		const readers = fleet.start(READER, 4);
		await until(() => readers.some((reader) => reader.from(one) > 0), "reads from the replica");
		await one.sql("SELECT pg_wal_replay_pause()");
		try {
			await cluster.primary.sql("CREATE TABLE bulk AS SELECT repeat('x', 100) FROM generate_series(1, 5000)");
			expect(await fleet.untilBanned(one)).toBe("replica lag");
			await fleet.untilUnbanned(two);
			await more(readers, 1);
			forget(readers);
			await more(readers, 20);
			expect(readers.every((reader) => reader.from(one) === 0)).toBe(true);
		} finally {
			await one.sql("SELECT pg_wal_replay_resume()");
		}
		await fleet.untilUnbanned(one);
		await untilRead(readers, one);
		await fleet.settle();
		expect(errorsOf(readers)).toEqual([]);
	});

	test('with read_after_write = "lsn" never keeps a client from seeing what it has written, and serves those who wrote nothing', async () => {
		await cluster.primary.sql("CREATE TABLE own (id int PRIMARY KEY, v int); INSERT INTO own VALUES (1, 0)", {
			user: "pgdog",
		});
		await delay(one, "0");
		await delay(two, "0");
		await cluster.replicated();
		await delay(one, "300ms");
		await using fleet = await Fleet.start(entries(cluster), { read_after_write: "lsn", lsn_check_interval: 50 });
		await using client = await fleet.client();
		const write: ((n: number) => Promise<QueryResult>)[] = [
			(n) => client.query(`UPDATE own SET v = ${n} WHERE id = 1`),
			(n) => client.extended("UPDATE own SET v = $1 WHERE id = 1", [String(n)]),
			(n) => client.query(`BEGIN; UPDATE own SET v = ${n} WHERE id = 1; COMMIT`),
			async (n) => {
				await client.query("BEGIN");
				await client.extended("UPDATE own SET v = $1 WHERE id = 1", [String(n)]);
				return client.query("COMMIT");
			},
			(n) => client.query(`WITH written AS (UPDATE own SET v = ${n} WHERE id = 1 RETURNING v) SELECT v FROM written`),
		];
		const SEEN = "SELECT v, current_setting('port') FROM own WHERE id = 1";
		const read: (() => Promise<QueryResult>)[] = [
			() => client.query(SEEN),
			() => client.extended(SEEN),
			async () => {
				await client.query("BEGIN READ ONLY");
				const seen = await client.query(SEEN);
				await client.query("COMMIT");
				return seen;
			},
		];
		const places = new Set<string | null | undefined>();
		for (let n = 1; n <= 60; n++) {
			const begun = performance.now();
			const written = await write[n % write.length]!(n);
			expect(written.errors).toEqual([]);
			for (let i = 0; i < 3; i++) {
				const { rows, errors } = await read[(n + i) % read.length]!();
				expect(errors).toEqual([]);
				expect([n, rows[0]?.[0]]).toEqual([n, String(n)]);
				// Later than that the first has replayed the write, on a machine that has no time for us.
				if (performance.now() - begun < 300) places.add(rows[0]?.[1]);
			}
		}
		expect(places.size).toBeGreaterThan(0);
		expect(places).not.toContain(String(one.port));
		await using other = await fleet.client();
		let last = 1000;
		const old = async () => {
			await client.query(`UPDATE own SET v = ${++last} WHERE id = 1`);
			const [row] = (await other.query(SEEN)).rows;
			return row?.[1] === String(one.port) && row[0] !== String(last);
		};
		await until(old, "a read of the past by one who wrote nothing", 2_000);
		// When it has replayed the write, it serves the writer too.
		const late = async () => {
			const [row] = (await client.query(SEEN)).rows;
			expect(row?.[0]).toBe(String(last));
			return row?.[1] === String(one.port);
		};
		await until(late, "a read from the replica that was late", SOON).catch((error) => fleet.fail(error));
		await delay(one, "0");
		await fleet.untilQuiet();
	});

	test('with read_after_write = "primary" is read from by a client that has written when the window is over', async () => {
		const window = 500;
		await using fleet = await Fleet.start(entries(cluster), {
			read_after_write: "primary",
			read_after_write_window: window,
			// Then only the window can bring a read to the primary.
			read_write_split: "exclude_primary",
		});
		await using client = await fleet.client();
		await using other = await fleet.client();
		const place = async (by: RawClient) => (await by.query(PORT)).rows[0]?.[0];
		const primary = String(cluster.primary.port);
		for (const write of ["INSERT INTO written VALUES (0)", "BEGIN; INSERT INTO written VALUES (0); COMMIT"]) {
			expect(await place(client)).not.toBe(primary);
			const writtenAt = performance.now();
			expect((await client.query(write)).errors).toEqual([]);
			expect(await place(client)).toBe(primary);
			expect(await place(other)).not.toBe(primary);
			await until(async () => (await place(client)) !== primary, "reads from a replica", window + 1_000);
			expect(performance.now() - writtenAt).toBeGreaterThan(window);
		}
	});
});

/** Replicas are killed, frozen, thawed and started by chance. Then both run. */
async function havoc(): Promise<void> {
	const end = performance.now() + 4_000;
	const wreck = async (replica: PostgresServer) => {
		const roll = Math.random();
		if (roll < 0.4) await replica.kill();
		else if (roll < 0.7) replica.pause();
		await Bun.sleep(100 + Math.random() * 500);
		replica.resume();
		if (Math.random() < 0.8) await replica.start();
	};
	await Promise.all(
		cluster.replicas.map(async (replica) => {
			while (performance.now() < end) await wreck(replica);
			await replica.start();
		}),
	);
}

describe("replicas that are killed, frozen and restarted at random", () => {
	async function survive(fleet: Fleet, readers: EndlessClient[], writers: EndlessClient[]): Promise<void> {
		await more([...readers, ...writers], 1);
		await havoc();
		const areWell = async () => (await fleet.show("BANS")).length === 0;
		await until(areWell, "the end of all bans", 3 * SOON).catch((error) => fleet.fail(error));
		await more(readers, 3);
		for (const { longest } of readers) expect(longest).toBeLessThan(ANSWERED + PATIENCE);
		for (const { state, message, ended } of errorsOf(readers)) {
			// A query that was under way ends with its connection; one that was not sent yet, at most with a timeout.
			if (ended) continue;
			expect(message).toBe("checkout timeout");
			// What connections there are may all be at work, or hang.
			expect(["58000", "53300"]).toContain(state);
		}
		await fleet.settle();
		expect(errorsOf(writers)).toEqual([]);
	}

	test("never mix up, lose or hang one of fifty clients", async () => {
		await using fleet = await Fleet.start(entries(cluster), { workers: 2 });
		const writers = fleet.start(WRITER, 3);
		await survive(fleet, fleet.start(READER, 50), writers);
		await expectWritten(cluster.primary, writers);
	});

	test("never mix up, lose or hang a client of two shards", async () => {
		await using fleet = await Fleet.start(asShards(entries(cluster)));
		await survive(fleet, [...fleet.start(READER_OF_BOTH, 10), ...fleet.start(READER_OF_EACH, 10)], []);
	});
});

/** The last test: its cluster has two primaries then. */
test("a replica that has become a primary of its own is no longer read from, and never written to", async () => {
	await using fleet = await Fleet.start(entries(cluster), { ban_replica_lag: 60_000 });
	const readers = fleet.start(READER, 4);
	const writers = fleet.start(WRITER, 2);
	await until(() => readers.some((reader) => reader.from(one) > 0), "reads from the replica");
	await one.promote();
	expect(await fleet.untilBanned(one)).toBe("it is no replica");
	await more(readers, 1);
	forget(readers);
	await more(readers, 30);
	expect(readers.every((reader) => reader.from(one) === 0 && reader.errors.length === 0)).toBe(true);
	await fleet.settle();
	expect(errorsOf(writers)).toEqual([]);
	await expectWritten(cluster.primary, writers);
});

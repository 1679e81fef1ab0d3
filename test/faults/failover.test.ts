// `role = "auto"`: the primary is found by asking, and found again when it is killed or frozen and a replica is promoted. Writes
// go on there without a restart of the proxy, and the old primary, back on its old timeline, gets none.

import { expect, setDefaultTimeout, test } from "bun:test";
import { byReceived, runFailover } from "../support/failover.ts";
import { errorFields } from "../support/message.ts";
import type { Cluster, PostgresServer } from "../support/postgres.ts";
import { RawClient } from "../support/raw-client.ts";
import { until, within } from "../support/until.ts";
import {
	asShards,
	type EndlessClient,
	type Entry,
	entry,
	expectWritten,
	Fleet,
	Link,
	type Place,
	READER,
	SHORT,
	SOON,
	startServers,
	WRITER,
	WRITER_OF_BOTH,
} from "./fleet.ts";

setDefaultTimeout(60_000);

/** A promotion is known by then, ms. */
const FOUND = SHORT.lsn_check_interval + 1_000;

const WRITE = "INSERT INTO written VALUES (0) RETURNING current_setting('port')";

/** Of a primary that is gone: the replica to promote, and the other, which can follow it. */
async function heirs({ replicas }: Cluster): Promise<[PostgresServer, PostgresServer]> {
	return (await byReceived(replicas)) as [PostgresServer, PostgresServer];
}

/** A cluster, its primary and its replicas. */
async function start(): Promise<[Cluster, PostgresServer, PostgresServer, PostgresServer]> {
	const cluster = await startServers();
	const [one, two] = cluster.replicas as [PostgresServer, PostgresServer];
	return [cluster, cluster.primary, one, two];
}

function auto(...places: Place[]): Entry[] {
	return places.map((place) => entry(place, "auto"));
}

/** Where a write by this client went. */
async function placeOf(client: RawClient): Promise<number> {
	const { rows, errors } = await client.query(WRITE);
	expect(errors).toEqual([]);
	return Number(rows[0]?.[0]);
}

/** On a machine where the promoted server does not answer in time what it is asked, nobody can know sooner. */
function expectFound(since: number, place: Place, ...fleets: Fleet[]): void {
	const time = performance.now() - since;
	const isLate = (line: string) =>
		line.includes(`:${place.port}`) && /no answer within lsn_check_timeout|connect timeout/.test(line);
	if (!fleets.some(({ proxy }) => proxy.lines.some(isLate))) expect(time).toBeLessThan(FOUND);
}

/** Resolves when each of them has written to `place`. */
async function untilWritten(fleet: Fleet, writers: EndlessClient[], place: Place): Promise<void> {
	const since = performance.now();
	const done = () => writers.every((writer) => writer.from(place) > 0);
	await until(done, `writes to ${place.port} by everybody`).catch((error) => fleet.fail(error));
	expectFound(since, place, fleet);
}

async function rowsOf(server: PostgresServer): Promise<number> {
	const [row] = await server.sql("SELECT count(*)::int AS rows FROM written");
	return Number(row?.rows);
}

test("the primary is found whichever place it has in the configuration, by the first client already", async () => {
	const [cluster, primary, one, two] = await start();
	await using _ = cluster;
	for (const places of [
		[primary, one, two],
		[one, primary, two],
		[two, one, primary],
	]) {
		await using fleet = await Fleet.start(auto(...places));
		await using client = await fleet.client();
		expect(await placeOf(client)).toBe(primary.port);
		const readers = fleet.start(READER, 3);
		const isReadFrom = (place: Place) => readers.some((reader) => reader.from(place) > 0);
		await until(() => places.every(isReadFrom), "reads from all of them");
		await fleet.settle();
		expect(readers.flatMap(({ errors }) => errors)).toEqual([]);
	}
});

test("servers none of which is a primary serve reads, writes wait, and are told so unless one is promoted in time", async () => {
	const [cluster, , one, two] = await start();
	await using _ = cluster;
	await using hasty = await Fleet.start(auto(one, two), { checkout_timeout: 500 });
	await using patient = await Fleet.start(auto(one, two), { checkout_timeout: 10_000 });
	await using reader = await hasty.client();
	expect((await reader.query("SELECT 1")).rows).toEqual([["1"]]);
	const startedAt = performance.now();
	const { errors, status } = await reader.query(WRITE);
	expect([errors[0]?.C, errors[0]?.M, status]).toEqual(["58000", "no primary", "I"]);
	expect(performance.now() - startedAt).toBeGreaterThan(400);
	const clients = await Promise.all(Array.from({ length: 12 }, () => patient.client()));
	const waiting = Promise.all(clients.map((client) => placeOf(client)));
	await reader.query("SELECT 1");
	await two.promote();
	const promotedAt = performance.now();
	expect(new Set(await within(waiting, "all that wait"))).toEqual(new Set([two.port]));
	expectFound(promotedAt, two, patient);
	const since = performance.now();
	await until(async () => (await reader.query(WRITE)).errors.length === 0, "the hasty ones to write");
	expectFound(since, two, hasty);
	for (const client of clients) client.reset();
	await Promise.all([hasty.untilQuiet(), patient.untilQuiet()]);
});

test("a primary that is killed is followed by the replica that is promoted, and by the next one, and gets no row when it is back", async () => {
	const [cluster, old, ...replicas] = await start();
	await using _ = cluster;
	await using patient = await Fleet.start(auto(old, ...replicas), { checkout_timeout: 10_000, workers: 2 });
	await using hasty = await Fleet.start(auto(...replicas, old), { checkout_timeout: 500 });
	const readers = patient.start(READER, 4);
	const writers = patient.start(WRITER, 4);
	await Promise.all([...readers, ...writers].map((client) => client.more(5)));
	await using inside = await patient.client();
	await inside.query("BEGIN");
	await inside.query(WRITE);
	await using waiting = await patient.client();
	await using refused = await hasty.client();
	await cluster.replicated();

	await old.kill();
	await inside.closed;
	const waited = placeOf(waiting);
	const refusal = within(refused.query(WRITE), "the refusal", 500 + 1_000);
	expect((await refusal).errors[0]?.C).toBe("58000");
	const [one, two] = await heirs(cluster);
	await one.promote();
	const promotedAt = performance.now();
	two.follow(one);
	await untilWritten(patient, writers, one);
	expect(await waited).toBe(one.port);
	expectFound(promotedAt, one, patient);
	const since = performance.now();
	await until(async () => (await refused.query(WRITE)).errors.length === 0, "the hasty one to write");
	expectFound(since, one, hasty);

	expect(patient.proxy.log).not.toContain("several servers say");
	await old.start();
	const left = await rowsOf(old);
	await patient.proxy.waitForLog(/several servers say that they are the primary.*writes go to/);
	forget(readers, writers);
	await Promise.all([...readers, ...writers].map((client) => client.more(30)));
	expect(ports(writers)).toEqual([one.port]);
	expect(ports(readers)).not.toContain(old.port);

	await until(async () => (await rowsOf(two)) > left, "the other replica to follow");
	await one.kill();
	await two.promote();
	forget(readers, writers);
	await untilWritten(patient, writers, two);
	expect(ports(writers)).toEqual([two.port]);
	await patient.settle();
	expect(await rowsOf(old)).toBe(left);
	await expectWritten(two, writers);
});

test("a primary that freezes loses its clients to the promoted replica, and gets no row when it thaws", async () => {
	const [cluster, old, ...replicas] = await start();
	await using _ = cluster;
	await using fleet = await Fleet.start(auto(old, ...replicas), { checkout_timeout: 10_000, query_timeout: 20_000 });
	await using busy = await Fleet.start(auto(old, ...replicas), { checkout_timeout: 10_000, default_pool_size: 1 });
	await using inside = await fleet.client();
	await inside.query("BEGIN");
	await inside.query(WRITE);
	await using holding = await busy.client();
	await holding.query("BEGIN");
	await holding.query(WRITE);
	const queue = await Promise.all(Array.from({ length: 5 }, () => busy.client()));
	await using idle = await fleet.client();
	expect(await placeOf(idle)).toBe(old.port);
	const waiting = Promise.all(queue.map((client) => placeOf(client)));
	await until(
		async () => (await busy.show("POOLS")).some(({ cl_waiting }) => cl_waiting === "5"),
		"clients that wait for the primary",
	);
	await cluster.replicated();

	const [one, two] = await heirs(cluster);
	old.pause();
	try {
		await one.promote();
		const promotedAt = performance.now();
		two.follow(one);
		expect(new Set(await within(waiting, "those who waited"))).toEqual(new Set([one.port]));
		for (const client of [inside, holding]) {
			const told = (await client.closed).filter(({ code }) => code === "E");
			expect(told.map(({ body }) => errorFields(body).C)).toEqual(["57P01"]);
		}
		expect(await placeOf(idle)).toBe(one.port);
		expectFound(promotedAt, one, fleet, busy);
	} finally {
		old.resume();
	}
	const left = await rowsOf(old);
	await fleet.proxy.waitForLog(/several servers say that they are the primary.*writes go to/);
	const writers = fleet.start(WRITER, 4);
	const readers = fleet.start(READER, 4);
	await Promise.all([...readers, ...writers].map((client) => client.more(30)));
	await fleet.settle();
	expect(ports(writers)).toEqual([one.port]);
	expect(ports(readers)).not.toContain(old.port);
	expect(await rowsOf(old)).toBe(left);
	await expectWritten(one, writers);
	for (const client of queue) client.reset();
	await busy.untilQuiet();
});

test("a primary that is stopped and comes back as a replica of the next one is read from, and no write meets a replica", async () => {
	const [cluster, old, one, two] = await start();
	await using _ = cluster;
	await using fleet = await Fleet.start(auto(old, one, two), { checkout_timeout: 10_000 });
	const readers = fleet.start(READER, 3);
	const writers = fleet.start(WRITER, 3);
	await Promise.all([...readers, ...writers].map((client) => client.more(5)));
	// A restart makes it a replica. It stops when its replicas have all that it has written.
	await old.sql(`ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=${one.port} user=postgres'`);
	await old.sql(`COPY (SELECT) TO '${old.dataDir}/standby.signal'`);
	await old.stop("fast");
	await one.promote();
	two.follow(one);
	await untilWritten(fleet, writers, one);
	await old.start();
	forget(readers);
	const isReadFrom = () => readers.some((reader) => reader.from(old) > 0);
	await until(isReadFrom, "reads from the old primary", 2 * SOON).catch((error) => fleet.fail(error));
	await fleet.settle();
	expect(writers.flatMap(({ errors }) => errors).filter(({ state }) => !/^(57P01|08006|closed)$/.test(state))).toEqual(
		[],
	);
	// What the old one had confirmed too.
	const numbers = writers.flatMap((writer) => writer.numbers);
	const [row] = await one.sql(`SELECT count(DISTINCT n)::int AS rows FROM written WHERE n = ANY ('{${numbers}}')`);
	expect(row?.rows).toBe(numbers.length);
	expect(fleet.proxy.log).not.toContain("several servers say");
});

// Whoever waits longer than `checkout_timeout` does not go from server to server, and PAUSE lets nobody's time run.
test("a write that waits through a long PAUSE, in which another becomes the primary, goes there and not to the old one", async () => {
	const [cluster, old, ...replicas] = await start();
	await using _ = cluster;
	await using fleet = await Fleet.start(auto(old, ...replicas), { checkout_timeout: 500 });
	await using console = await RawClient.connect({ ...fleet.door("admin"), user: "admin", password: "secret" });
	await using writer = await fleet.client();
	await using reader = await fleet.client();
	expect(await placeOf(writer)).toBe(old.port);
	await cluster.replicated();
	await console.query("PAUSE");
	const pausedAt = performance.now();
	const written = placeOf(writer);
	const read = reader.query("SELECT current_setting('port')");
	await until(
		async () => (await fleet.show("CLIENTS")).filter(({ state }) => state === "waiting").length === 2,
		"both to wait",
	);
	await until(() => performance.now() - pausedAt > 1_000, "a PAUSE longer than checkout_timeout");
	await old.kill();
	const [one, two] = await heirs(cluster);
	await one.promote();
	two.follow(one);
	await fleet.proxy.waitForLog(new RegExp(`new primary chosen: .*:${one.port}`));
	await old.start();
	const left = await rowsOf(old);
	await fleet.proxy.waitForLog(/several servers say that they are the primary.*writes go to/);
	const resumedAt = performance.now();
	await console.query("RESUME");
	expect(await within(written, "the write")).toBe(one.port);
	expect([one.port, two.port]).toContain(Number((await within(read, "the read")).rows[0]?.[0]));
	expectFound(resumedAt, one, fleet);
	expect(await rowsOf(old)).toBe(left);
	await fleet.untilQuiet();
});

test("both shards of a primary that is killed are written to on the promoted replica, by those who waited too", async () => {
	const [cluster, old, ...replicas] = await start();
	await using _ = cluster;
	await using fleet = await Fleet.start(asShards(auto(old, ...replicas)), { checkout_timeout: 10_000 });
	const writers = fleet.start(WRITER_OF_BOTH, 4);
	await Promise.all(writers.map((client) => client.more(5)));
	await using inside = await fleet.client();
	await inside.query("BEGIN");
	await inside.query(WRITE);
	await using waiting = await fleet.client();
	await old.kill();
	await inside.closed;
	const waited = waiting.query(WRITE);
	const [one, two] = await heirs(cluster);
	await one.promote();
	two.follow(one);
	await untilWritten(fleet, writers, one);
	const since = performance.now();
	const { rows, errors } = await within(waited, "the one who waited");
	expectFound(since, one, fleet);
	expect([rows.flat(), errors]).toEqual([[String(one.port), String(one.port)], []]);
	forget(writers);
	await Promise.all(writers.map((client) => client.more(10)));
	await fleet.settle();
	expect(ports(writers)).toEqual([one.port]);
	expect(writers.flatMap((writer) => writer.errors)).toEqual([]);
});

/** The old one answers first; whoever believes it at once writes what nobody will find again. */
test("a proxy that starts beside two primaries writes to the later one only, whoever answers first", async () => {
	const [cluster, old, one] = await start();
	await using _ = cluster;
	await one.promote();
	const left = await rowsOf(old);
	await using slow = await Link.open(one);
	slow.cut();
	// For as long as the test may take on a busy machine to see that the old one has answered.
	await using fleet = await Fleet.start(auto(old, slow), { checkout_timeout: 10_000, lsn_check_timeout: 10_000 });
	const logins = Array.from({ length: 4 }, () => fleet.client());
	const places = Promise.all(logins.map(async (login) => placeOf(await login)));
	const hasAnswered = async () => (await fleet.show("REPLICATION")).some(({ pg_lsn }) => pg_lsn !== null);
	await until(hasAnswered, "the old primary's answer");
	slow.mend();
	expect(new Set(await within(places, "the writes"))).toEqual(new Set([one.port]));
	expect(await rowsOf(old)).toBe(left);
	for (const login of logins) (await login).reset();
});

test("under load a failover costs a gap, and nothing that was confirmed by the new primary", async () => {
	const report = await runFailover({ clients: 6, readers: 4, lsnCheckInterval: 200, before: 500, outage: 300 });
	expect(report.failures).toEqual([]);
	const { writeGap, readGap, firstWrite, stall } = report;
	console.info(
		`failover under load: longest gap of a client's writes ${writeGap.failover.toFixed(0)} ms (300 of them without any ` +
			`primary), of its reads ${readGap.failover.toFixed(0)} ms; the first write came ${firstWrite?.toFixed(0)} ms ` +
			`after the promotion; the test itself stood still for up to ${stall.failover.toFixed(0)} ms`,
	);
});

function forget(...groups: EndlessClient[][]): void {
	for (const client of groups.flat()) client.forget();
}

/** Who has answered them. */
function ports(clients: EndlessClient[]): number[] {
	return [...new Set(clients.flatMap((client) => client.ports))];
}

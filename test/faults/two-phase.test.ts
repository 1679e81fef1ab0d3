// Two-phase commit, and who dies or is lost in the middle: the proxy, or a server, while the shards prepare, while it is decided, while
// they commit. Afterwards both shards are alike, as the client was told if it was, and nothing is in doubt.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { SHARDS, sane, shardedOptions } from "../integration/sharded.ts";
import { admin, connect, show } from "../integration/support.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import { type QueryResult, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";

setDefaultTimeout(120_000);

/** One for each shard. */
let servers: readonly [Cluster, Cluster];
let proxy: Proxy;

const start = async () => {
	proxy = await startProxy(
		shardedOptions(servers[0], { shards: 2, ports: { 1: servers[1].port }, general: { two_phase_commit: true } }),
	);
};
const at = (shard: number) => servers[shard]!.primary;
const sql = (shard: number, text: string) => at(shard).sql(text, { database: SHARDS[shard]! });
const prepared = async (shard: number) => (await sql(shard, "SELECT gid FROM pg_prepared_xacts")).length;
const rows = (shard: number) => sql(shard, "SELECT id FROM gated").then((all) => all.length);
const on = (shard: number, text: string) => `/* pgdog_shard: ${shard} */ ${text}`;
/** A session of PostgreSQL's, on a shard. */
const session = (shard: number) =>
	RawClient.connect({ port: at(shard).port, user: "postgres", password: "postgres", database: SHARDS[shard]! });

beforeAll(async () => {
	const settings = { max_prepared_transactions: 20 };
	servers = [
		await startPostgres({ databases: ["s0"], settings }),
		await startPostgres({ databases: ["s1"], settings }),
	];
	// What is written into it is not prepared before nobody holds the lock.
	for (const shard of [0, 1])
		await at(shard).sql(
			`CREATE TABLE gated (id int);
			CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				PERFORM pg_advisory_lock_shared(1); PERFORM pg_advisory_unlock_shared(1); RETURN NULL; END $$;
			CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON gated DEFERRABLE INITIALLY DEFERRED
				FOR EACH ROW EXECUTE FUNCTION gate()`,
			{ user: "pgdog", database: SHARDS[shard]! },
		);
	await start();
	await using client = await connect(proxy);
	await begin(client);
	expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
	await settled();
});

afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	await Promise.all((servers ?? []).map((server) => server.stop()));
});

async function begin(client: RawClient): Promise<void> {
	await client.query("BEGIN");
	for (const shard of [0, 1])
		expect((await client.query(on(shard, "INSERT INTO gated VALUES (1)"))).errors).toEqual([]);
}

/** Waits until nothing is in doubt, and both shards have the same. @returns how many rows, which are taken away */
async function settled(): Promise<number> {
	await until(
		async () => {
			for (const shard of [0, 1]) if ((await prepared(shard)) > 0) return false;
			return (await sql(0, "SELECT FROM pgdog.two_phase_commits WHERE decision = 'commit'")).length === 0;
		},
		"nothing to be in doubt",
		60_000,
	);
	const [first, second] = await Promise.all([rows(0), rows(1)]);
	expect(second).toBe(first);
	for (const shard of [0, 1]) await sql(shard, "TRUNCATE gated");
	sane(proxy);
	return first!;
}

type Stage = "preparing" | "deciding" | "committing";

/** Brings the client's COMMIT to that point. @returns lets it go on */
async function reach(stage: Stage, client: RawClient): Promise<() => Promise<void>> {
	const holder = await session(stage === "preparing" ? 1 : 0);
	if (stage === "preparing") await holder.query("SELECT pg_advisory_lock(1)");
	else await holder.query("BEGIN; LOCK TABLE pgdog.two_phase_commits IN SHARE MODE");
	client.send(f.query("COMMIT"));
	await until(async () => (await prepared(0)) === 1, "the first shard to prepare");
	const release = async () => holder.reset();
	if (stage === "preparing") return release;
	await until(async () => (await prepared(1)) === 1, "the second shard to prepare");
	if (stage === "deciding") return release;
	// It hears of the decision, and does not answer.
	at(1).pause();
	await release();
	await until(async () => (await rows(0)) === 1, "the first shard to commit");
	return async () => at(1).resume();
}

/** What a client was told. */
function told({ tags, errors }: QueryResult): string {
	return tags[0] ?? errors[0]?.C ?? "nothing";
}

const victims = {
	proxy: async () => {
		await proxy.stop("SIGKILL");
	},
	"the first shard": () => at(0).kill(),
	"the second shard": () => at(1).kill(),
};

/** What may be told, and how many rows there are then: of what is not known, either. */
const EXPECTED: Record<string, readonly number[]> = { COMMIT: [1], "40000": [0], "08007": [0, 1], nothing: [0, 1] };

for (const stage of ["preparing", "deciding", "committing"] as const)
	for (const [victim, kill] of Object.entries(victims))
		test(`${victim} is killed while it is ${stage}`, async () => {
			await using client = await connect(proxy, { timeout: 60_000 });
			await begin(client);
			const release = await reach(stage, client);
			const answer = client.result();
			if (stage === "committing" && victim === "the second shard") at(1).resume();
			await kill();
			await release().catch(() => {});
			if (victim === "proxy") await start();
			// A server that is down is not waited for.
			const said = told(await answer);
			for (const shard of [0, 1]) if (!at(shard).running) await at(shard).start();
			const count = await settled();
			expect(Object.keys(EXPECTED)).toContain(said);
			expect(EXPECTED[said]).toContain(count);
			if (stage === "preparing") expect(count).toBe(0);
			if (stage === "committing") expect(count).toBe(1);
		});

test("a shard that commits late is no error, and the client is told", async () => {
	await using client = await connect(proxy, { timeout: 60_000 });
	await begin(client);
	const release = await reach("deciding", client);
	const answer = client.result();
	await at(1).kill();
	await release();
	const { tags, notices, status } = await answer;
	expect([tags, status]).toEqual([["COMMIT"], "I"]);
	expect(notices.map(({ C, M }) => [C, M])).toEqual([
		["01000", "the transaction is committed, but some shards will show it later"],
	]);
	expect(notices[0]?.D).toMatch(/^shard 1: /);
	await using operator = await admin(proxy);
	const [row, ...more] = await show(operator, "SHOW TRANSACTIONS");
	expect([row?.transaction_state?.slice(0, 33), more]).toEqual(["unknown: shard 1 cannot be asked:", []]);
	await at(1).start();
	expect(await settled()).toBe(1);
	expect(await show(operator, "SHOW TRANSACTIONS")).toEqual([]);
});

describe("what was prepared by a process that nobody knows", () => {
	const prepare = async (shard: number, gid: string, user = "pgdog") => {
		const text = `INSERT INTO gated VALUES (1); PREPARE TRANSACTION '${gid}'`;
		await at(shard).sql(`BEGIN; ${text}`, { user, database: SHARDS[shard]! });
	};
	const name = (digit: string) => `__pgdog_2pc_0badcafe_${digit.repeat(16)}_0`;

	test("is committed where that is decided, and else rolled back; what is another's is left alone", async () => {
		for (const [digit, shards] of Object.entries({ 1: [0, 1], 2: [1], 3: [0, 1], 4: [1] }))
			for (const shard of shards) await prepare(shard, `${name(digit)}_${shard}`);
		// 2 was committed on the first shard before; 4 has nothing there any more.
		const insert = "INSERT INTO pgdog.two_phase_commits (name, decision, shards) VALUES";
		await sql(0, `${insert} ('${name("1")}', 'commit', '{0,1}'), ('${name("2")}', 'commit', '{0,1}')`);
		await sql(0, "INSERT INTO gated VALUES (1)");
		// By shards of other numbers, and by somebody else.
		await prepare(1, `${name("5")}_7`);
		await prepare(1, "theirs");
		await using operator = await admin(proxy);
		const doubts = await show(operator, "SHOW TRANSACTIONS");
		expect(
			doubts.map(({ transaction_name: n, transaction_state: s, shards, user }) => [n, s, shards, user]).sort(),
		).toEqual([
			[name("1"), "committing", "0,1", "pgdog"],
			[name("2"), "committing", "1", "pgdog"],
			[name("3"), "prepared", "0,1", "pgdog"],
			[name("4"), "prepared", "1", "pgdog"],
			[`${name("5")}_7`, "left alone: prepared where shards have other numbers", "1", "pgdog"],
		]);
		await until(async () => (await prepared(0)) === 0 && (await prepared(1)) === 2, "what is ours to end", 60_000);
		for (const gid of [`${name("5")}_7`, "theirs"]) await sql(1, `ROLLBACK PREPARED '${gid}'`);
		expect(await settled()).toBe(2);
		// Whoever comes with its COMMIT after that finds it decided.
		const kept = await sql(0, "SELECT decision FROM pgdog.two_phase_commits WHERE name LIKE '%badcafe%' ORDER BY name");
		expect(kept.map(({ decision }) => decision)).toEqual(["rollback", "rollback"]);
		await sql(0, "DELETE FROM pgdog.two_phase_commits");
	});

	test("is finished also by users of whom the first may do nothing, and after a reload has turned it off", async () => {
		for (const shard of [0, 1]) await at(shard).sql("CREATE ROLE poor LOGIN PASSWORD 'poor'");
		const { config, users } = shardedOptions(servers[0], {
			shards: 2,
			ports: { 1: servers[1].port },
			general: { two_phase_commit: true },
		});
		await proxy.stop("SIGKILL");
		for (const shard of [0, 1]) await prepare(shard, `${name("6")}_${shard}`);
		const poor = { name: "poor", database: "pgdog", password: "poor" };
		proxy = await startProxy({ config, users: [poor, ...(users as (typeof poor)[])] });
		const path = `${proxy.folder}/pgdog.toml`;
		const text = await Bun.file(path).text();
		await Bun.write(path, text.replace("two_phase_commit = true", "two_phase_commit = false"));
		await using operator = await admin(proxy);
		expect((await operator.query("RELOAD")).errors).toEqual([]);
		await until(async () => (await prepared(0)) + (await prepared(1)) === 0, "both to be rolled back", 40_000);
		expect(await show(operator, "SHOW TRANSACTIONS")).toEqual([]);
		await proxy.stop();
		await start();
		expect(await settled()).toBe(0);
	});

	test("is given up while its process is slow, which hears of it", async () => {
		await using client = await connect(proxy, { timeout: 60_000 });
		await begin(client);
		const release = await reach("preparing", client);
		await until(async () => (await prepared(0)) === 0, "the first shard to be rolled back", 30_000);
		await release();
		const [error] = (await client.result()).errors;
		expect([error?.C, error?.M]).toEqual([
			"40000",
			"the transaction was rolled back: another process had given it up, since its shards took long to prepare it",
		]);
		expect(await settled()).toBe(0);
	});
});

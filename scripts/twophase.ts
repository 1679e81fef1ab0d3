// `npm run twophase -- ROUNDS` (300): kills a process of the proxy, or a server, at any moment, so many times, under transactions over
// several shards that are committed in two phases all the while, by two processes of the proxy. Every shard must have the same of each
// transaction, as its client was told if it was, and nothing be in doubt a minute after all is up. Prints what came of how
// many; exits 1 when anything was wrong. `SEED=n` repeats the dice of a run (not its timing).

import { SHARDS, shardedOptions } from "../test/integration/sharded.ts";
import { connect } from "../test/integration/support.ts";
import { type Cluster, startPostgres } from "../test/support/postgres.ts";
import { type Proxy, startProxy } from "../test/support/proxy.ts";
import type { RawClient } from "../test/support/raw-client.ts";
import { until } from "../test/support/until.ts";
import { random } from "./soak/member.ts";

const rounds = Number(process.argv[2] ?? 300);
if (!(rounds > 0)) throw new Error(`usage: npm run twophase -- ROUNDS, and ${process.argv[2]} is none`);
const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
/** Clients at once. */
const CROWD = 6;
/** ms in which nothing may be in doubt any more once all is up. */
const MINUTE = 60_000;

const enum Told {
	/** COMMIT. */
	Committed = "committed",
	/** An error that says, or means, that it was rolled back. */
	RolledBack = "rolled back",
	/** Nothing, or that nobody knows. */
	Unknown = "unknown",
}

interface Transaction {
	readonly id: number;
	readonly shards: readonly number[];
	told: Told;
}

const dice = random(seed);
const settings = { max_prepared_transactions: 50 };
/** The first and the third shard, and the second. */
const servers: readonly Cluster[] = await Promise.all([
	startPostgres({ databases: ["s0", "s2"], settings }),
	startPostgres({ databases: ["s1"], settings }),
]);
const at = (shard: number) => servers[shard === 1 ? 1 : 0]!.primary;
const sql = (shard: number, text: string) => at(shard).sql(text, { user: "pgdog", database: SHARDS[shard]! });
for (const shard of [0, 1, 2]) await sql(shard, "CREATE TABLE things (id int)");

const options = () =>
	shardedOptions(servers[0]!, {
		ports: { 1: servers[1]!.port },
		general: { two_phase_commit: true, default_pool_size: CROWD, workers: 2, checkout_timeout: 2_000 },
	});
const proxies: Proxy[] = [await startProxy(options()), await startProxy(options())];

const transactions: Transaction[] = [];
let isOver = false;

/** What came of the transaction. */
async function commit(client: RawClient, { id, shards }: Transaction): Promise<Told> {
	const say = async (text: string) => {
		const { errors, status } = await client.query(text);
		return { error: errors[0]?.C ?? "", isOpen: status !== "" };
	};
	await say("BEGIN");
	for (const shard of shards) {
		const { error, isOpen } = await say(`/* pgdog_shard: ${shard} */ INSERT INTO things VALUES (${id})`);
		if (error === "" && isOpen) continue;
		if (isOpen) await say("ROLLBACK");
		return Told.RolledBack;
	}
	const { error, isOpen } = await say("COMMIT");
	if (error === "08007" || !isOpen) return Told.Unknown;
	return error === "" ? Told.Committed : Told.RolledBack;
}

/** One transaction after the other, until the end. */
async function live(): Promise<void> {
	while (!isOver) {
		let client: RawClient | null = null;
		let transaction: Transaction | null = null;
		try {
			client = await connect(proxies[dice(proxies.length)]!, { timeout: 90_000 });
			while (!isOver && !client.ended) {
				const shards = [0, 1, 2].filter(() => dice(4) > 0);
				if (shards.length < 2) continue;
				if (dice(2) === 0) shards.reverse();
				transaction = { id: transactions.length, shards, told: Told.Unknown };
				transactions.push(transaction);
				transaction.told = await commit(client, transaction);
			}
		} catch {
			// The proxy has gone; what it was asked last is not known.
			await Bun.sleep(20);
		} finally {
			client?.reset();
		}
	}
}

async function strike(): Promise<void> {
	const victim = dice(4);
	await Bun.sleep(dice(250));
	if (victim < 2) {
		await proxies[victim]!.stop("SIGKILL");
		await Bun.sleep(dice(100));
		proxies[victim] = await startProxy(options());
		return;
	}
	const server = servers[victim - 2]!.primary;
	await server.kill();
	await Bun.sleep(dice(100));
	await server.start();
}

async function inDoubt(): Promise<number> {
	let count = 0;
	for (const { primary } of servers) count += (await primary.sql("SELECT FROM pg_prepared_xacts")).length;
	for (const shard of [0, 1, 2]) {
		const [table] = await sql(shard, "SELECT to_regclass('pgdog.two_phase_commits') AS there");
		if (table?.there == null) continue;
		count += (await sql(shard, "SELECT FROM pgdog.two_phase_commits WHERE decision = 'commit'")).length;
	}
	return count;
}

console.log(`two-phase commit: ${rounds} kills, SEED=${seed}`);
const started = performance.now();
const crowd = Promise.all(Array.from({ length: CROWD }, live));
for (let round = 1; round <= rounds; round++) {
	await strike();
	if (round % 25 === 0) console.log(`${round} kills, ${transactions.length} transactions`);
}
isOver = true;
const up = performance.now();
await crowd;
const wrongs: string[] = [];
const doubts = await inDoubt();
await until(async () => (await inDoubt()) === 0, "nothing to be in doubt", MINUTE).catch((error: Error) =>
	wrongs.push(error.message),
);
const settled = performance.now();

const found = await Promise.all(
	[0, 1, 2].map(async (shard) => new Set((await sql(shard, "SELECT id FROM things")).map(({ id }) => Number(id)))),
);
const counts = new Map<string, number>();
for (const { id, shards, told } of transactions) {
	const there = shards.filter((shard) => found[shard]!.has(id)).length;
	if (there > 0 && there < shards.length) wrongs.push(`transaction ${id}: on ${there} of shards ${shards.join(", ")}`);
	const is = there > 0 ? Told.Committed : Told.RolledBack;
	if (told !== Told.Unknown && told !== is) wrongs.push(`transaction ${id}: told ${told}, and is ${is}`);
	const key = `told ${told}, is ${is}`;
	counts.set(key, (counts.get(key) ?? 0) + 1);
}
for (const [what, count] of [...counts].sort()) console.log(`${String(count).padStart(8)}  ${what}`);
const seconds = (from: number, to: number) => ((to - from) / 1000).toFixed(1);
console.log(
	`${doubts} in doubt at the end, none ${seconds(up, settled)} s after all was up; ${seconds(started, up)} s of kills`,
);
for (const wrong of wrongs.slice(0, 20)) console.log(`WRONG: ${wrong}`);
for (const proxy of proxies) await proxy[Symbol.asyncDispose]();
await Promise.all(servers.map((server) => server.stop()));
process.exit(wrongs.length > 0 ? 1 : 0);

// `npm run soak -- MINUTES` (25): the fault run. Clients of every kind, each of whose answers is checked, through every kind of
// door of the compiled proxy (transaction and session mode, two shards, with and without plugins), while servers die, freeze and
// come back, tables are altered, and the proxy is reloaded, reconnected and paused. Prints a line each minute and a table at the
// end; exits 1 when anything was wrong. `SEED=n` repeats the dice of a run (not its timing).

import { readFileSync } from "node:fs";
import { LoginError } from "../test/support/raw-client.ts";
import { until } from "../test/support/until.ts";
import { buildExamples, missingTool } from "./build-bridge.ts";
import { deedsOf, ENDS, inspect } from "./soak/deeds.ts";
import { migrate, strike } from "./soak/faults.ts";
import { type Acknowledged, Member, random } from "./soak/member.ts";
import { type Kind, Tally, WRONGS } from "./soak/tally.ts";
import { type Door, World } from "./soak/world.ts";

const minutes = Number(process.argv[2] ?? 25);
if (!(minutes > 0)) throw new Error(`usage: npm run soak -- MINUTES, and ${process.argv[2]} is none`);
const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
/** Clients at each door. */
const CROWD = 8;

/** The examples, built as they would be for any proxy; none where there is no cargo, which the report says. */
function buildPlugins(): string[] {
	if (missingTool() !== null) return [];
	return buildExamples(["tenant_guard", "primary_only_tables", "read_after_write", "shard_by_customer"]);
}

/** One client after another, until the end: each comes, is checked, does this and that, and leaves as it likes. */
async function live(world: World, door: Door, id: number, tally: Tally, acknowledged: Acknowledged): Promise<void> {
	const dice = random(seed + id * 7919);
	const deeds = deedsOf(door);
	for (let life = 0; performance.now() < end; life++) {
		const who = `${door.database}${id}.${life}`;
		// Half of them say who they are as they connect, half by SET.
		const early = dice(2) === 0;
		try {
			const client = await world.enter(door, early ? { "app.who": who } : {});
			try {
				tally.connections++;
				const member = new Member({ who, client, door, dice, tally, acknowledged, early });
				if (!early) await inspect(member);
				if (!early) await member.query(`SET app.who = '${who}'`);
				for (let left = 1 + dice(25); left > 0 && performance.now() < end; left--)
					await deeds[dice(deeds.length)]!(member);
				client.send(ENDS[dice(ENDS.length)]!(member));
				if (dice(2) === 0) await Bun.sleep(dice(4));
			} finally {
				if (dice(2) === 0) client.reset();
				else client.close();
			}
		} catch (error) {
			if (error instanceof LoginError && tally.isCost(error.fields.C)) tally.interrupt(`login ${error.fields.C}`);
			else tally.note(error, who);
			// Whoever is refused at once does not come back at once.
			await Bun.sleep(20 + dice(80));
		}
	}
}

/** Megabytes that the proxy process has now. */
const memory = (pid: number) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;

/** After the last fault: everybody is served again, and every acknowledged write is there, once, on its shard. */
async function audit(world: World, tally: Tally, acknowledged: Acknowledged): Promise<void> {
	for (const proxy of world.proxies) if (proxy.running) await world.command(proxy, "RESUME");
	for (const server of world.servers) await server.start();
	for (const door of world.doors) {
		const served = async () => {
			try {
				await using client = await world.enter(door);
				return (await client.query(`${door.shards > 1 ? "/* pgdog_shard: 1 */ " : ""}SELECT 1`)).rows.length === 1;
			} catch {
				return false;
			}
		};
		await until(served, `${door.name} to serve`, 30_000).catch((error) =>
			tally.wrong("hung", (error as Error).message),
		);
	}
	for (const [i, proxy] of world.proxies.entries()) {
		if (!proxy.running) tally.wrong("internal", `the proxy ended: ${proxy.log.slice(-2000)}`);
		for (const line of proxy.lines)
			if (/internal error|unhandled|TypeError|RangeError|panicked/i.test(line)) tally.wrong("internal", line);
		let rows = "";
		const isQuiet = async () => {
			const pools = await world.command(proxy, "SHOW CLIENTS");
			rows = JSON.stringify(pools).slice(0, 500);
			// Ours, that asks.
			return pools.length <= 1;
		};
		if (proxy.running)
			await until(isQuiet, `no client of proxy ${i}`, 30_000).catch(() =>
				tally.wrong("hung", `clients that are gone are still there: ${rows}`),
			);
	}
	const there = new Map<string, Set<number>>();
	for (const [server, database, shard] of world.databases) {
		const rows = await server.sql("SELECT who, n::int AS n, customer_id::int AS customer FROM kept", { database });
		for (const { who, n, customer } of rows as { who: string; n: number; customer: number }[]) {
			if (n < 0) tally.wrong("undead", `${who} has rolled ${n} back, and it is there`);
			if (shard !== null && customer % 2 !== shard)
				tally.wrong("misplaced", `${who} ${n} of customer ${customer} is on shard ${shard}`);
			const key = shard === null ? who : `${who}:${shard}`;
			if (!there.has(key)) there.set(key, new Set());
			there.get(key)!.add(n);
		}
	}
	for (const [who, { door, numbers }] of acknowledged) {
		const found = (n: number) => {
			if (door.shards === 1) return there.get(who)?.has(n) === true;
			// A COPY is for either shard, whatever its number.
			return there.get(`${who}:0`)?.has(n) === true || there.get(`${who}:1`)?.has(n) === true;
		};
		for (const n of numbers) if (!found(n)) tally.wrong("lost", `${who} was told that ${n} is written (${door.name})`);
	}
}

const plugins = buildPlugins();
await using world = await World.start(plugins);
const tally = new Tally();
const acknowledged: Acknowledged = new Map();
const started = performance.now();
const end = started + minutes * 60_000;
const isOver = () => performance.now() >= end;
const isLate = () => performance.now() >= started + (end - started) * 0.6;
console.log(
	`soak: ${minutes} minutes, seed ${seed}, ${world.doors.length} doors of ${CROWD} clients` +
		`${plugins.length === 0 ? ", WITHOUT PLUGINS: cargo is missing" : ""}`,
);

const sizes: number[][] = world.proxies.map(() => []);
const progress = (async () => {
	for (let tick = 1; !isOver(); tick++) {
		await Bun.sleep(Math.max(0, Math.min(started + tick * 5_000, end) - performance.now()));
		for (const [i, proxy] of world.proxies.entries()) if (proxy.running) sizes[i]!.push(memory(proxy.pid));
		if (tick % 12 === 0 || isOver()) {
			const interrupted = [...tally.interruptions.values()].reduce((sum, each) => sum + each, 0);
			console.log(
				`${((performance.now() - started) / 60_000).toFixed(1).padStart(5)} min: ${tally.statements} statements checked, ${tally.writes} writes, ` +
					`${tally.connections} clients, ${tally.faults} faults, ${interrupted} interrupted, ${tally.wrongCount} wrong, ` +
					`${sizes.map((each) => each.at(-1)?.toFixed(0)).join(" and ")} MB`,
			);
		}
	}
})();
let id = 0;
await Promise.all([
	...world.doors.flatMap((door) => Array.from({ length: CROWD }, () => live(world, door, ++id, tally, acknowledged))),
	strike(world, tally, random(seed), isLate, isOver),
	migrate(world, random(seed + 1), isOver),
	progress,
]);
await audit(world, tally, acknowledged);

// From a quarter of the way on, when everything has been warmed, memory does not climb.
const mean = (part: number[]) => part.reduce((sum, each) => sum + each, 0) / part.length;
const growth = sizes.map((each) => {
	const quarter = each.length >> 2;
	return { early: mean(each.slice(quarter, quarter * 2)), late: mean(each.slice(-quarter)) };
});
const grown = growth.some(({ early, late }) => late > early * 1.5 + 64);

const rows: [string, string | number][] = [
	["minutes", minutes],
	["faults", tally.faults],
	["clients", tally.connections],
	["statements checked", tally.statements],
	["acknowledged writes", tally.writes],
	[
		"memory, second quarter → last, MB",
		growth.map(({ early, late }) => `${early.toFixed(0)} → ${late.toFixed(0)}`).join(", "),
	],
	["interrupted by faults", [...tally.interruptions].map(([why, count]) => `${why} ${count}`).join(", ")],
	...(Object.keys(WRONGS) as Kind[]).map((kind): [string, number] => [
		WRONGS[kind],
		tally.wrongs.get(kind)?.count ?? 0,
	]),
];
console.log(`\n| ${new Date().toISOString().slice(0, 16)}, seed ${seed} | |\n|---|---:|`);
for (const [what, value] of rows) console.log(`| ${what} | ${value} |`);
if (grown) console.log("\nmemory has grown by more than half");
const failed = tally.wrongCount > 0 || grown;
console.log(failed ? "\nsoak: WRONG, see above" : "\nsoak: nothing was wrong");
if (failed && process.env.SOAK_LOG) {
	for (const [i, proxy] of world.proxies.entries()) await Bun.write(`${process.env.SOAK_LOG}.${i}`, proxy.log);
}
await world[Symbol.asyncDispose]();
process.exit(failed ? 1 : 0);

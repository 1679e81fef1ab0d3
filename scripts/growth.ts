// `npm run growth`: what many databases cost. A configuration names one real database many times: as many pools, of a PostgreSQL
// with its default `max_connections`. Measured are, with the default `min_pool_size`, how soon somebody new is served while
// connections are opened for its sake; and without, a RELOAD that changes nothing, and memory and processor time of a proxy that
// nobody uses. What statements cost that clients prepare and keep, each text another. And what a query costs that one of many clients
// asks, beside PgBouncer. Linux only (/proc).

import { parseArgs } from "node:util";
import { stringify } from "smol-toml";
import { startPostgres } from "../test/support/postgres.ts";
import { type Proxy, startProxy } from "../test/support/proxy.ts";
import { RawClient } from "../test/support/raw-client.ts";
import { frontend } from "../test/support/wire-frames.ts";
import { DATABASE, startContestants, USER } from "./bench/contestants.ts";
import { machine } from "./bench/machine.ts";
import { load, settled } from "./bench/process.ts";
import { median } from "./bench/report.ts";
import { costInCrowd } from "./growth/crowd.ts";

const { values } = parseArgs({
	options: {
		databases: { type: "string", default: "2000" },
		workers: { type: "string", default: "2" },
		connections: { type: "string", default: "100" },
		seconds: { type: "string", default: "20" },
		texts: { type: "string", default: "100000" },
		clients: { type: "string", default: "1000" },
		crowd: { type: "string", default: "4000" },
	},
});
const count = Number(values.databases);
const user = "pgdog_trust";
/** Of each kind of client, and of each kind of reload. */
const TIMES = 5;
/** Clients that a crowd is compared with. */
const FEW = 10;
/** How long somebody new is waited for, ms. */
const PATIENCE = 30_000;

const nameOf = (i: number) => `d${String(i).padStart(5, "0")}`;

/** Milliseconds until somebody new in database `i` has the answer to a first query; Infinity when that does not come. */
async function firstAnswer(proxy: Proxy, i: number): Promise<number> {
	const from = performance.now();
	try {
		await using client = await RawClient.connect({
			port: proxy.port,
			user,
			database: nameOf(i),
			timeout: PATIENCE,
		});
		const { rows } = await client.query("SELECT 1");
		return rows[0]?.[0] === "1" ? performance.now() - from : Number.POSITIVE_INFINITY;
	} catch {
		return Number.POSITIVE_INFINITY;
	}
}

/** A client that asks again and again, and the longest that it waited since it was last asked. */
class Asker implements AsyncDisposable {
	longest = 0;
	private readonly client: RawClient;
	private stopped = false;
	private readonly asking: Promise<void>;

	constructor(client: RawClient) {
		this.client = client;
		this.asking = this.ask();
	}

	private async ask(): Promise<void> {
		while (!this.stopped) {
			const from = performance.now();
			const { rows } = await this.client.query("SELECT 1");
			if (rows[0]?.[0] !== "1") throw new Error("a query was not answered");
			this.longest = Math.max(this.longest, performance.now() - from);
			await Bun.sleep(1);
		}
	}

	async [Symbol.asyncDispose](): Promise<void> {
		this.stopped = true;
		await this.asking;
		this.client.close();
	}
}

/** RELOADs that change nothing. @returns for each how long it took, and the longest answer that anybody waited for meanwhile, ms */
async function reloads(proxy: Proxy): Promise<{ took: number; longest: number }[]> {
	const port = proxy.port;
	await using admin = await RawClient.connect({
		port,
		user: "admin",
		password: "pgdog",
		database: "admin",
		timeout: 60_000,
	});
	await using askers = new AsyncDisposableStack();
	// Several, so that each worker has some.
	const all: Asker[] = [];
	for (let i = 0; i < 4; i++) {
		const client = await RawClient.connect({ port, user, database: nameOf(i), timeout: PATIENCE });
		all.push(askers.use(new Asker(client)));
	}
	const results: { took: number; longest: number }[] = [];
	for (let i = 0; i < TIMES; i++) {
		await Bun.sleep(500);
		for (const asker of all) asker.longest = 0;
		const from = performance.now();
		const { errors } = await admin.query("RELOAD");
		if (errors.length > 0) throw new Error(`RELOAD: ${errors[0]?.M}`);
		const took = performance.now() - from;
		// The workers may still be at it.
		await Bun.sleep(1_000);
		results.push({ took, longest: Math.max(...all.map(({ longest }) => longest)) });
	}
	return results;
}

await using cluster = await startPostgres({ settings: { max_connections: Number(values.connections) } });
const databases = Array.from({ length: count }, (_, i) => ({
	name: nameOf(i),
	host: cluster.primary.host,
	port: cluster.port,
	database_name: "pgdog",
}));

/** @param general more of `[general]` */
function start(general: Record<string, unknown>): Promise<Proxy> {
	const quiet = { auth_type: "trust", log_connections: false, log_disconnections: false };
	return startProxy({
		config: {
			general: { workers: Number(values.workers), ...quiet, ...general },
			admin: { name: "admin", user: "admin", password: "pgdog" },
			databases,
		},
		users: stringify({ users: [{ name: user, all_databases: true, password: "trusted" }] }),
		timeout: 60_000,
	});
}

/** With the default `min_pool_size`: what the server has after ten seconds, and how soon they are served who come in the first six. */
async function dialling(): Promise<{ open: number; firsts: number[] }> {
	await using proxy = await start({});
	const newcomers = Array.from({ length: TIMES }, async (_, i) => {
		await Bun.sleep(i * 1_500);
		return firstAnswer(proxy, count - 1 - i);
	});
	await Bun.sleep(10_000);
	const [row] = await cluster.primary.sql(
		`SELECT count(*)::int AS all FROM pg_stat_activity WHERE usename = '${user}'`,
	);
	return { open: Number(row?.all), firsts: await Promise.all(newcomers) };
}

/** Of a client by its number, as an ORM would write it; no two are the same. */
const textOf = (client: number, i: number) =>
	`SELECT t.id, t.name, t.amount FROM (VALUES (${client}, 'c${client}', ${i}.5)) t(id, name, amount) WHERE t.id = $1 AND ${i} = ${i}`;

/** Clients that prepare texts, each its own, and keep them. @returns kilobytes that came to be resident, and whether all can be run */
async function statements(clients: number, each: number): Promise<{ grown: number; run: number }> {
	await using proxy = await start({ min_pool_size: 0 });
	await using all = new AsyncDisposableStack();
	const crowd: RawClient[] = [];
	for (let i = 0; i < clients; i++) {
		const options = { port: proxy.port, user, database: nameOf(0), timeout: PATIENCE };
		crowd.push(all.use(await RawClient.connect(options)));
	}
	const before = await settled(proxy.pid);
	for (const [c, client] of crowd.entries()) {
		const parses = Array.from({ length: each }, (_, i) => frontend.parse(textOf(c, i), `s${i}`, [23]));
		client.send(...parses, frontend.sync());
		const { errors } = await client.result();
		if (errors.length > 0) throw new Error(`a Parse was refused: ${errors[0]?.M}`);
	}
	const grown = (await settled(proxy.pid)) - before;
	let run = 0;
	for (const [c, client] of crowd.entries()) {
		const statement = `s${c % each}`;
		client.send(frontend.bind({ statement, values: [`${c}`] }), frontend.execute(), frontend.sync());
		const { rows } = await client.result();
		if (rows[0]?.[1] === `c${c}`) run++;
	}
	return { grown, run };
}

/** µs of processor time for each query, with ten clients and with the crowd: medians of rounds by turns. */
async function crowded(): Promise<Map<string, number>> {
	await using field = await startContestants(["workers=1", "pgbouncer"], 1);
	const costs = new Map<string, number[]>();
	for (let round = 0; round < TIMES; round++) {
		for (const clients of [FEW, Number(values.crowd)]) {
			for (const { name, port, pid } of field.contestants) {
				const cost = await costInCrowd({ port, pid: pid!, user: USER, database: DATABASE }, clients, 3);
				const key = `${name} ${clients}`;
				costs.set(key, [...(costs.get(key) ?? []), cost]);
			}
		}
	}
	return new Map([...costs].map(([key, all]) => [key, median(all)]));
}

const ms = (time: number) =>
	time === Number.POSITIVE_INFINITY ? `more than ${PATIENCE / 1000} s` : `${time.toFixed(0)} ms`;

const { open, firsts } = await dialling();
const started = performance.now();
await using proxy = await start({ min_pool_size: 0 });
const listening = performance.now() - started;
const changes = await reloads(proxy);
// What the clients have left is closed, and garbage collected.
await Bun.sleep(5_000);
const resident = await settled(proxy.pid);
const idle = await load(proxy.pid, Number(values.seconds));

const clients = Number(values.clients);
const kept = await statements(clients, Math.ceil(Number(values.texts) / clients));

const costs = await crowded();
const cost = (name: string, clients: number | string) => `${costs.get(`${name} ${clients}`)?.toFixed(1)} µs`;

const [row] = await cluster.primary.sql("SHOW server_version");
const how = `${count} databases, workers = ${values.workers}, max_connections = ${values.connections}`;
console.log(machine({ PostgreSQL: String(row?.server_version) }, how));
console.log(`| | measured | target |
|---|---:|---:|
| resident, nobody there | ${(resident / 1024).toFixed(0)} MB | 120 MB |
| of a core, nobody there | ${idle.toFixed(1)} % | 1 % |
| a RELOAD that changes nothing, median of ${TIMES} | ${ms(median(changes.map(({ took }) => took)))} | 300 ms |
| longest answer meanwhile, median | ${ms(median(changes.map(({ longest }) => longest)))} | |
| start to listening | ${ms(listening)} | |
| log-in and first answer in the first 6 s, each in another database, worst of ${TIMES} | ${ms(Math.max(...firsts))} | |
| connections of the server after 10 s | ${open} | |
| ${values.texts} texts that ${clients} clients have prepared and keep | ${(kept.grown / 1024).toFixed(0)} MB | |
| of those clients, served by a statement that its server may not have | ${kept.run} | ${clients} |
| CPU of a query, ${FEW} clients | ${cost("workers=1", FEW)}, PgBouncer ${cost("pgbouncer", FEW)} | |
| CPU of a query, ${values.crowd} clients | ${cost("workers=1", values.crowd)}, PgBouncer ${cost("pgbouncer", values.crowd)} | 26 µs |`);

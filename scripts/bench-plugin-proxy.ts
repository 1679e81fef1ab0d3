// What plugins cost in the proxy: CPU of dist/pgdog for each query of pgbench, with none, with one that returns unknown at once and
// with one that walks the tree and decodes a parameter; interleaved over several rounds. Beside it the cost of splitting reads
// over two servers. Run: bun scripts/bench-plugin-proxy.ts [rounds] [seconds] [clients]   (builds the plugins with cargo)

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { bridge, buildFixture, folder, forge } from "../test/plugin/support.ts";
import { startPostgres } from "../test/support/postgres.ts";
import { startProxy } from "../test/support/proxy.ts";
import { requireTool, runTool } from "../test/support/tools.ts";
import { type Contestant, DATABASE, USER } from "./bench/contestants.ts";
import { type Mode, measure, type Sample } from "./bench/measure.ts";

const [rounds = 5, seconds = 3, clients = 10] = process.argv.slice(2).map(Number);
const MODES: Mode[] = ["prepared", "simple"];
const BASE = "no plugin";

const place = folder();
const { rustc, pgQuery } = bridge();
const unknown = forge(join(place, "libunknown.so"), { rustc, pgQuery });
const walk = buildFixture("witness");
// The witness walks the tree and decodes the parameter of a statement with this constant.
const script = join(place, "walk.sql");
writeFileSync(script, "\\set aid random(1, 100000)\nSELECT 'walk', abalance FROM pgbench_accounts WHERE aid = :aid;\n");

await using stack = new AsyncDisposableStack();
const cluster = stack.use(await startPostgres({ replicas: 1, settings: { shared_buffers: "128MB" } }));
await cluster.primary.sql(`GRANT ALL ON SCHEMA public TO ${USER}`);
const address = ["-h", "127.0.0.1", "-p", String(cluster.port), "-U", USER, DATABASE];
const filled = await runTool([requireTool("pgbench"), "-i", "-q", "-s", "1", ...address], {}, 300_000);
if (filled.code !== 0) throw new Error(`pgbench -i: ${filled.stderr}`);
await cluster.primary.sql("VACUUM ANALYZE");
await cluster.replicated();

const start = async (name: string, plugins: string[], servers = [cluster.primary]): Promise<Contestant> => {
	const databases = servers.map(({ host, port }, i) => ({
		name: DATABASE,
		host,
		port,
		role: i ? "replica" : "primary",
	}));
	const config = {
		general: { workers: 1, auth_type: "trust" },
		databases,
		plugins: plugins.map((plugin) => ({ name: plugin, required: true })),
	};
	const proxy = stack.use(
		await startProxy({ config, users: [{ name: USER, database: DATABASE, password: "trusted" }] }),
	);
	return { name, port: proxy.port, pid: proxy.pid, prepares: true };
};
const contestants = [
	await start(BASE, []),
	await start("unknown at once", [unknown]),
	await start("walk and a parameter", [walk]),
	await start("primary and replica, no plugin", [], [cluster.primary, ...cluster.replicas]),
	await start("primary and replica, unknown", [unknown], [cluster.primary, ...cluster.replicas]),
];
const run = (contestant: Contestant, mode: Mode, round: number, time: number) =>
	measure(contestant, { mode, clients }, round, time, script);

for (const contestant of contestants) for (const mode of MODES) await run(contestant, mode, 0, 1);
const samples: Sample[] = [];
for (let round = 1; round <= rounds; round++)
	for (const mode of MODES)
		for (const contestant of contestants) samples.push(await run(contestant, mode, round, seconds));

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
const of = (mode: Mode, name: string, take: (sample: Sample) => number) =>
	median(samples.filter((sample) => sample.mode === mode && sample.name === name).map(take));
console.log("| mode | proxy | CPU µs per query | more | ratio | tps |\n|---|---|---|---|---|---|");
for (const mode of MODES) {
	const base = of(mode, BASE, ({ cpu }) => cpu ?? 0);
	for (const { name } of contestants) {
		const cpu = of(mode, name, (sample) => sample.cpu ?? 0);
		const tps = of(mode, name, (sample) => sample.tps);
		const cells = [mode, name, cpu.toFixed(2), (cpu - base).toFixed(2), (cpu / base).toFixed(3), tps.toFixed(0)];
		console.log(`| ${cells.join(" | ")} |`);
	}
}

// `npm run upgrade`: replaces the running proxy again and again (`--takeover`) under pgbench's load, of clients that connect for each
// transaction, of some that stay for a while and of some that stay for all of it, busy or idle, and counts what fails and who has moved.
// Exits 1 when anything did fail. See --help.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { freePort, startPostgres } from "../test/support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../test/support/proxy.ts";
import { RawClient } from "../test/support/raw-client.ts";
import { requireTool, runTool } from "../test/support/tools.ts";
import { frontend } from "../test/support/wire-frames.ts";
import { machine } from "./bench/machine.ts";

const USAGE = `npm run upgrade -- [options]
  --times N      how often the proxy is replaced (20)
  --pause N      ms between two times (500)
  --workers N    threads of the proxy (2)
  --clients N    clients that connect for each transaction, and as many of each kind that stays (8)
  --idle N       clients that say nothing until all is over (100)`;

const { values } = parseArgs({
	options: {
		times: { type: "string", default: "20" },
		pause: { type: "string", default: "500" },
		workers: { type: "string", default: "2" },
		clients: { type: "string", default: "8" },
		idle: { type: "string", default: "100" },
		help: { type: "boolean", default: false },
	},
});

if (values.help) {
	console.log(USAGE);
	process.exit(0);
}

const pgbench = requireTool("pgbench");
const folder = mkdtempSync(join(tmpdir(), "pgdog-upgrade-"));
const script = join(folder, "script.sql");
writeFileSync(script, "BEGIN;\nSELECT 1;\nSELECT 2;\nCOMMIT;\n");
const port = freePort();
const failures: string[] = [];
const count = { stays: 0, comes: 0, lasts: 0 };

/** Runs pgbench to its end, and adds up what it did. */
async function load(kind: keyof typeof count, ...args: string[]): Promise<void> {
	const address = ["-h", "127.0.0.1", "-p", String(port), "-U", "pgdog", "pgdog"];
	const command = [pgbench, "-n", "-c", values.clients, "-f", script, ...args, ...address];
	const { code, stdout, stderr } = await runTool(command, { PGPASSWORD: "pgdog" }, 600_000);
	count[kind] += Number(/transactions actually processed: (\d+)/.exec(stdout)?.[1] ?? 0);
	const failed = Number(/failed transactions: (\d+)/.exec(stdout)?.[1] ?? 0);
	if (code !== 0 || failed > 0) failures.push(`pgbench ${kind}: ended with ${code}, ${failed} failed: ${stderr}`);
}

await using cluster = await startPostgres();
const general = {
	host: "127.0.0.1",
	port,
	workers: Number(values.workers),
	// pgbench connects and prepares for one client at a time, and waits, while others of its clients have transactions open: on a slow
	// machine they were all servers, until checkout_timeout.
	default_pool_size: 4 * Number(values.clients),
	takeover_socket: join(folder, "takeover"),
	// Those who stay do so until pgbench has had enough.
	shutdown_timeout: 600_000,
	log_connections: false,
	log_disconnections: false,
};
const options = simpleConfig(cluster.primary, general);
const proxies: Proxy[] = [await startProxy(options)];
const login = { port, user: "pgdog", password: "pgdog", database: "pgdog" };
const idle = await Promise.all(Array.from({ length: Number(values.idle) }, () => RawClient.connect(login)));
for (const [i, client] of idle.entries()) {
	await client.query(`SET application_name = 'idle ${i}'`);
	client.send(frontend.parse("SELECT $1::text || current_setting('application_name')", "mine"), frontend.sync());
	await client.result();
}
let over = false;
const all = Number(values.times) * (Number(values.pause) + 1_000);
const lasts = load("lasts", "-M", "prepared", "-T", String(Math.ceil(all / 1000) + 2));
const comes = (async () => {
	while (!over) await load("comes", "-C", "-t", "25");
})();
const took: number[] = [];
const stays: Promise<void>[] = [];
for (let i = 0; i < Number(values.times); i++) {
	// Some stay for the length of several takeovers.
	if (i % 5 === 0)
		stays.push(load("stays", "-M", "prepared", "-T", String(Math.ceil((5 * Number(values.pause)) / 1000) + 2)));
	await Bun.sleep(Number(values.pause));
	const start = performance.now();
	const next = await startProxy({ ...options, args: ["--takeover"] });
	await proxies.at(-1)!.waitForLog(/goes on as process/);
	took.push(performance.now() - start);
	proxies.push(next);
}
over = true;
await Promise.all([comes, lasts, ...stays]);
for (const [i, client] of idle.entries()) {
	client.send(frontend.bind({ statement: "mine", values: ["still "] }), frontend.execute(), frontend.sync());
	const { rows } = await client.result();
	if (rows[0]?.[0] !== `still idle ${i}`) failures.push(`idle client ${i} is not what it was: ${JSON.stringify(rows)}`);
	client.close();
}
const last = proxies.pop()!;
for (const proxy of proxies) {
	const code = await proxy.exited;
	if (code !== 0) failures.push(`a proxy ended with ${code}:\n${proxy.log}`);
}
const code = await last.stop("SIGTERM");
if (code !== 0) failures.push(`the last proxy ended with ${code}`);
let moved = 0;
for (const proxy of [...proxies, last]) {
	moved += Number(/takeover: (\d+) clients went to process/.exec(proxy.log)?.[1] ?? 0);
	const errors = proxy.lines.filter((line) => / (ERROR|FATAL) /.test(line));
	failures.push(...errors.slice(0, 3));
	await proxy.stop();
}
rmSync(folder, { recursive: true });

console.log(
	machine({}, `${values.times} takeovers, ${values.clients} clients of each kind, workers = ${values.workers}`),
);
const median = took.sort((a, b) => a - b)[took.length >> 1]!;
console.log(
	`transactions: ${count.comes} each with a connection of its own, ${count.stays} over connections that stayed, ` +
		`${count.lasts} over those that lasted`,
);
console.log(`clients that moved: ${moved}, ${idle.length} of them idle for all the time`);
console.log(
	`a takeover took ${median.toFixed(0)} ms from the start of the new process (median), ${took.at(-1)!.toFixed(0)} at most`,
);
console.log(`failures: ${failures.length}`);
for (const failure of failures) console.error(`failed: ${failure}`);
process.exitCode = failures.length === 0 ? 0 : 1;

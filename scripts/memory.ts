// `npm run memory`: what an idle proxy and an idle client cost, and how long it takes from starting the executable to the first
// answered query. Linux only (/proc).

import { parseArgs } from "node:util";
import { startPostgres } from "../test/support/postgres.ts";
import { startProxy } from "../test/support/proxy.ts";
import { RawClient } from "../test/support/raw-client.ts";
import { openClients } from "./bench/clients.ts";
import { machine } from "./bench/machine.ts";
import { settled } from "./bench/process.ts";
import { median } from "./bench/report.ts";

const { values } = parseArgs({
	options: {
		clients: { type: "string", default: "5000" },
		workers: { type: "string", default: "2" },
		starts: { type: "string", default: "7" },
	},
});
const count = Number(values.clients);
const login = { user: "pgdog_trust", database: "pgdog" };

await using cluster = await startPostgres();
const options = {
	config: {
		general: { workers: Number(values.workers), default_pool_size: 10, auth_type: "trust", log_connections: false },
		databases: [{ name: "pgdog", host: cluster.primary.host, port: cluster.port }],
	},
	users: [{ name: "pgdog_trust", database: "pgdog", password: "trusted" }],
};

const starts: number[] = [];
for (let i = 0; i < Number(values.starts); i++) {
	const from = performance.now();
	await using proxy = await startProxy(options);
	const client = await RawClient.connect({ port: proxy.port, ...login });
	const { rows } = await client.query("SELECT 1");
	if (rows[0]?.[0] !== "1") throw new Error("the first query was not answered");
	starts.push(performance.now() - from);
	client.close();
}

await using proxy = await startProxy(options);
const client = await RawClient.connect({ port: proxy.port, ...login });
await client.query("SELECT 1");
const idle = await settled(proxy.pid);
// Without the code that log-ins use: its pages come back once, whether for one client or for thousands.
const before = await settled(proxy.pid, "RssAnon");
const sockets = await openClients({ port: proxy.port, ...login }, count);
const crowded = await settled(proxy.pid, "RssAnon");
const still = await client.query("SELECT 1");
if (still.rows[0]?.[0] !== "1") throw new Error("the proxy no longer answers");
for (const socket of sockets) socket.terminate();

const [row] = await cluster.primary.sql("SHOW server_version");
console.log(machine({ PostgreSQL: String(row?.server_version) }, `workers = ${values.workers}, ${count} idle clients`));
console.log(`| | measured | target |
|---|---:|---:|
| resident, idle | ${(idle / 1024).toFixed(1)} MB | 60 MB |
| memory for each idle client | ${((crowded - before) / count).toFixed(2)} KB | 4 KB |
| start to first answered query, median of ${starts.length} | ${median(starts).toFixed(0)} ms | 100 ms |`);

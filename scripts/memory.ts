// `npm run memory`: what an idle proxy and an idle client cost, and how long it takes from starting the executable to the first
// answered query. Linux only (/proc).

import { parseArgs } from "node:util";
import { startPostgres } from "../test/support/postgres.ts";
import { startProxy } from "../test/support/proxy.ts";
import { RawClient } from "../test/support/raw-client.ts";
import { frontend } from "../test/support/wire-frames.ts";
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

/** Opens and logs in `howMany` clients that keep nothing but their sockets, so that this process stays small too. */
async function openClients(port: number, howMany: number): Promise<Bun.Socket<undefined>[]> {
	const startup = frontend.startupMessage(login);
	const sockets: Bun.Socket<undefined>[] = [];
	const one = () =>
		new Promise<void>((resolve, reject) => {
			let tail = Buffer.alloc(0);
			Bun.connect({
				hostname: "127.0.0.1",
				port,
				socket: {
					open(socket) {
						sockets.push(socket as Bun.Socket<undefined>);
						socket.write(startup);
					},
					data(_, chunk) {
						// ReadyForQuery, idle: the last six bytes of a login.
						tail = Buffer.concat([tail, chunk]).subarray(-6);
						if (tail.toString("latin1") === "Z\0\0\0\x05I") resolve();
					},
					close: () => reject(new Error(`the proxy closed a client, ${sockets.length} were open`)),
					connectError: (_, error) => reject(error),
				},
			}).catch(reject);
		});
	for (let left = howMany; left > 0; left -= 100) {
		await Promise.all(Array.from({ length: Math.min(left, 100) }, one));
	}
	return sockets;
}

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
const sockets = await openClients(proxy.port, count);
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

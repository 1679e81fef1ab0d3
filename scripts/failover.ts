// `npm run failover`: kills a primary under load, promotes a replica, brings the old primary back as a second one, and prints the
// longest gap that a client saw. Exits 1 when a write went to the old primary, a client did not recover, or the promotion was
// found out too late. See --help.

import { parseArgs } from "node:util";
import { runFailover } from "../test/support/failover.ts";
import { failoverTable } from "./bench/failover-table.ts";
import { machine } from "./bench/machine.ts";

const USAGE = `npm run failover -- [options]   (times in ms)
  --clients N              clients that write and read (10)
  --readers N              clients that only read (5)
  --workers N              threads of the proxy (1)
  --lsn-check-interval N   how often servers are asked for their role (1000)
  --before N               load before the primary is killed (2000)
  --outage N               from the kill to the promotion (1000)
  --after N                load beside the old primary that is back (5000)
  --limit N                a client that has done nothing by then is stuck (10000)
  --log                    also print the proxy's log
  --json FILE              also write the report there`;

const { values } = parseArgs({
	options: {
		clients: { type: "string", default: "10" },
		readers: { type: "string", default: "5" },
		workers: { type: "string", default: "1" },
		"lsn-check-interval": { type: "string", default: "1000" },
		before: { type: "string", default: "2000" },
		outage: { type: "string", default: "1000" },
		after: { type: "string", default: "5000" },
		limit: { type: "string", default: "10000" },
		log: { type: "boolean", default: false },
		json: { type: "string" },
		help: { type: "boolean", default: false },
	},
});

if (values.help) {
	console.log(USAGE);
	process.exit(0);
}

const began = performance.now();
const report = await runFailover({
	clients: Number(values.clients),
	readers: Number(values.readers),
	workers: Number(values.workers),
	lsnCheckInterval: Number(values["lsn-check-interval"]),
	before: Number(values.before),
	outage: Number(values.outage),
	after: Number(values.after),
	limit: Number(values.limit),
	tell: (step) => console.error(`${((performance.now() - began) / 1000).toFixed(1)} s: ${step}`),
});

console.log(machine({}, `SIGKILL of the primary, promotion after ${values.outage} ms, workers = ${values.workers}`));
console.log(failoverTable(report));
if (values.log) console.log(`\n${report.log}`);
if (values.json) await Bun.write(values.json, JSON.stringify(report, null, "\t"));
for (const failure of report.failures) console.error(`failed: ${failure}`);
process.exitCode = report.failures.length > 0 ? 1 : 0;

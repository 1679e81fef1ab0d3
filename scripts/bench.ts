// `npm run bench`: pgbench -S straight to PostgreSQL, through the newest PgBouncer that is to be had (bench/pgbouncer.ts), through
// dist/pgdog with one and two workers, through one that spreads reads over a primary and two replicas, through one with a plugin
// that walks the tree of each statement, and through PgDog where PGDOG_BIN names it; interleaved over several rounds in one go,
// since figures of two runs on a shared machine cannot be compared. In `simple` each text has another number in it, and is new to
// whoever reads it. Prints a Markdown table of medians, the ratios to PgBouncer, and whether the goals are met. See --help.

import { parseArgs } from "node:util";
import { requireTool } from "../test/support/tools.ts";
import { startContestants } from "./bench/contestants.ts";
import { machine } from "./bench/machine.ts";
import { type Cell, type Mode, measure, type Sample } from "./bench/measure.ts";
import { plan } from "./bench/plan.ts";
import { report } from "./bench/report.ts";
import { missingTool } from "./build-bridge.ts";

const USAGE = `npm run bench -- [options]
  --rounds N       rounds (5)
  --seconds N      seconds of each pgbench run (3)
  --scale N        pgbench scale (2)
  --modes LIST     of simple,extended,prepared (all)
  --clients LIST   numbers of clients (1,10,50)
  --only LIST      of direct,pgbouncer,pgbouncer-tls,pgdog,workers=N,replicas=N,plugin=N,shards=N,sockets=N,tls=N
                   (direct,pgbouncer,workers=1,workers=2,replicas=1,shards=1,pgbouncer-tls,tls=1, plugin=1 where cargo can
                   build it, and pgdog where PGDOG_BIN names PgDog's executable);
                   replicas=N: N workers before the primary and two replicas;
                   plugin=N: N workers with a plugin that walks the tree of each statement;
                   shards=N: N workers before two shards that are both asked;
                   sockets=N: N workers that reach the primary by its Unix socket;
                   tls=N: N workers with clients that speak TLS, as with pgbouncer-tls
  --json FILE      also write every sample there`;

const { values } = parseArgs({
	options: {
		rounds: { type: "string", default: "5" },
		seconds: { type: "string", default: "3" },
		scale: { type: "string", default: "2" },
		modes: { type: "string", default: "simple,extended,prepared" },
		clients: { type: "string", default: "1,10,50" },
		only: {
			type: "string",
			default: [
				...["direct", "pgbouncer", "workers=1", "workers=2", "replicas=1", "shards=1", "pgbouncer-tls", "tls=1"],
				...(missingTool() === null ? ["plugin=1"] : []),
				...(process.env.PGDOG_BIN ? ["pgdog"] : []),
			].join(),
		},
		json: { type: "string" },
		help: { type: "boolean", default: false },
	},
});

if (values.help) {
	console.log(USAGE);
	process.exit(0);
}

const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
const cells: Cell[] = values.modes
	.split(",")
	.flatMap((mode) => values.clients.split(",").map((clients) => ({ mode: mode as Mode, clients: Number(clients) })));

requireTool("pgbench");
await using field = await startContestants(values.only.split(","), Number(values.scale));
const { contestants } = field;
const runs = rounds * plan(cells, contestants, 0).length;
console.error(`about ${Math.ceil((runs * (seconds + 0.3)) / 60)} minutes`);

// Not counted: PostgreSQL's cache fills, and the hot path is compiled by the JIT, as it is in any proxy that serves. Twice, since
// what was compiled for one protocol is compiled anew when the next one comes.
for (let lap = 0; lap < 2; lap++) {
	for (const contestant of contestants) {
		for (const mode of ["simple", "extended", "prepared"] as const) {
			if (mode !== "prepared" || contestant.prepares) await measure(contestant, { mode, clients: 10 }, 0, 2);
		}
	}
}

const samples: Sample[] = [];
for (let round = 1; round <= rounds; round++) {
	for (const { cell, contestant } of plan(cells, contestants, round)) {
		const sample = await measure(contestant, cell, round, seconds);
		samples.push(sample);
		console.error(
			`round ${round} ${cell.mode} ${cell.clients} ${contestant.name}: ${sample.tps.toFixed(0)} tps, p50 ${sample.p50.toFixed(0)} µs, ` +
				`${sample.cpu === undefined ? "" : `CPU ${sample.cpu.toFixed(1)} µs`}`,
		);
	}
}

console.log(
	machine(
		field.versions,
		`${rounds} rounds of ${seconds} s, pgbench -S, scale ${values.scale}, pool of 10 for each server`,
	),
);
console.log(report(samples, cells));
if (values.json) await Bun.write(values.json, JSON.stringify(samples, null, "\t"));

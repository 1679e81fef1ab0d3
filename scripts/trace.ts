// `npm run trace`: the way of one warm `SELECT 1`, and of a Bind of a named statement, through the house: calls of functions in
// src, and how many of them go to another file, or another room. `--calls` prints the calls themselves, as they nest.

import { parseArgs } from "node:util";
import { ceilingOf } from "./trace/ceilings.ts";
import { traceAll } from "./trace/measure.ts";

const { values } = parseArgs({ options: { calls: { type: "boolean", default: false } } });

const traces = await traceAll();
if (values.calls) for (const { request, scene, text } of traces) console.log(`${request}, ${scene}\n\n${text}\n`);
console.log("| | calls | between files | between rooms |\n|---|---:|---:|---:|");
for (const trace of traces) {
	const ceilings = ceilingOf(trace);
	const cell = (of: "calls" | "files" | "rooms") =>
		`${trace[of]}${trace[of] === ceilings[of] ? "" : ` (was ${ceilings[of]})`}`;
	console.log(`| ${trace.request}, ${trace.scene} | ${cell("calls")} | ${cell("files")} | ${cell("rooms")} |`);
}

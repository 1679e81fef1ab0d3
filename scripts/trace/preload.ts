// Runs in the proxy's process before src/main.ts: Bun then loads src as instrument.ts has made it, and whoever started the process
// says by messages what is to be recorded.

import { readFileSync } from "node:fs";
import { type Call, type FromProxy, INSTRUMENTED, type ToProxy } from "./recording.ts";

const files = new Map<string, string>(JSON.parse(readFileSync(process.env[INSTRUMENTED]!, "utf8")));

Bun.plugin({
	name: "trace",
	setup(build) {
		build.onLoad({ filter: /\.ts$/ }, ({ path }) => {
			const contents = files.get(path);
			return contents === undefined ? undefined : { contents, loader: "ts" };
		});
	},
});

let recording = false;
let calls: Call[] = [];
/** Of the calls that are under way, innermost last. Kept also while nothing is recorded: a recording begins within a call or not. */
const stack: number[] = [];

Object.assign(globalThis, {
	__enter(place: number) {
		if (recording) calls.push({ place, caller: stack.at(-1) ?? null, depth: stack.length });
		stack.push(place);
	},
	__leave() {
		stack.pop();
	},
	__met(place: number) {
		if (recording) calls.push({ place, caller: stack.at(-1) ?? null, depth: stack.length });
	},
});

const say = (message: FromProxy) => process.send!(message);

process.on("message", (message: ToProxy) => {
	if (message === "start") {
		calls = [];
		recording = true;
		say({ type: "recording" });
		return;
	}
	recording = false;
	say({ type: "recorded", calls: calls.map(({ place, caller, depth }) => ({ place, caller, depth })) });
});

// `npm run trace`: that every call is counted, and that the way of a query through the house has not become longer.

import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ceilingOf } from "../../scripts/trace/ceilings.ts";
import { instrument } from "../../scripts/trace/instrument.ts";
import { REQUESTS, SCENES, traceAll } from "../../scripts/trace/measure.ts";
import { type Call, callsText, figures, longestWay } from "../../scripts/trace/recording.ts";
import { runTool } from "../support/tools.ts";

test("a SELECT 1 and a Bind take no more calls, and moves between files and rooms, than they did", async () => {
	const traces = await traceAll();
	expect(traces.length).toBe(SCENES.length * REQUESTS.length);
	for (const { scene, request, calls, files, rooms, text } of traces) {
		const label = `${request}, ${scene}`;
		for (const way of ["Walk.read", "Relay.read"]) expect(text, label).toContain(way);
		expect(rooms, label).toBeGreaterThan(0);
		expect(files, label).toBeGreaterThanOrEqual(rooms);
		expect(calls, label).toBeGreaterThan(files);
		const ceilings = ceilingOf({ scene, request });
		expect(calls, `calls of ${label}`).toBeLessThanOrEqual(ceilings.calls);
		expect(files, `moves between files of ${label}`).toBeLessThanOrEqual(ceilings.files);
		expect(rooms, `moves between rooms of ${label}`).toBeLessThanOrEqual(ceilings.rooms);
	}
});

/** What every kind of body looks like, and one call of each. */
const BODIES = `
class Base { readonly one: number; constructor() { this.one = 1; } get half(): number { return this.one / 2; } set half(to: number) {} }
class Derived extends Base { constructor() { super(); } }
export const double = (of: number) => of * 2;
const object = () => ({ of: 1 });
function nothing(target = { write() {} }): void { target.write(); }
async function later(): Promise<number> { await null; return double(1); }
function* some(): Generator<number> { yield double(2); }
const base = new Derived();
base.half = double(base.half);
nothing();
object();
[1].map((one) => one + 1);
later();
[...some()];
`;

test("calls of methods, getters, constructors and callbacks are counted, and nest as they do", async () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-trace-test-"));
	try {
		writeFileSync(join(folder, "bodies.ts"), BODIES);
		const { sources, places } = await instrument(folder);
		const recorder = `const told: string[] = []; let depth = 0;
			const globals = {
				__enter(id: number) { told.push(depth++ + ":" + id); },
				__leave() { depth--; },
				__met(id: number) { told.push(depth + ":" + id); },
			};
			Object.assign(globalThis, globals, { told: () => told.join(" ") + " " + depth });`;
		writeFileSync(join(folder, "recorder.ts"), recorder);
		const run = `import "./recorder.ts"; await import("./instrumented.ts"); await Bun.sleep(0); console.log(globalThis.told());`;
		writeFileSync(join(folder, "run.ts"), run);
		writeFileSync(join(folder, "instrumented.ts"), sources.get("bodies.ts")!);
		const { stdout, stderr } = await runTool([process.execPath, join(folder, "run.ts")]);
		expect(stderr).toBe("");
		const told = stdout.trim().split(" ");
		expect(told.pop()).toBe("0");
		const names = told.map((one) => one.split(":").map(Number)).map(([depth, id]) => `${depth} ${places[id!]!.name}`);
		expect(names).toEqual([
			"0 new Derived",
			"0 new Base",
			"0 Base.half",
			"0 double",
			"0 Base.half",
			"0 nothing",
			"1 nothing.write",
			"0 object",
			"0 /callback",
			"0 later",
			"0 some",
			"0 double",
			"0 double",
		]);
	} finally {
		rmSync(folder, { recursive: true });
	}
});

test("a move is a call from another file or room; an event of the runtime is none", () => {
	const places = ["a/one.ts", "a/two.ts", "b/three.ts", "top.ts"].map((file, name) => ({ file, name: `f${name}` }));
	const ways: [place: number, caller: number | null, depth: number][] = [
		[0, null, 0],
		[0, 0, 1],
		[1, 0, 1],
		[2, 1, 2],
		[3, 2, 3],
		[2, null, 0],
	];
	const calls = ways.map(([place, caller, depth]): Call => ({ place, caller, depth }));
	expect(figures(calls, places)).toEqual({ calls: 6, files: 3, rooms: 2 });
	expect(callsText(calls.slice(0, 3), places)).toBe("f0  · a/one.ts\n  f0\n  f1  · a/two.ts");
});

test("of several recordings the longest counts that is no accident", () => {
	const of = (length: number): Call[] => Array.from({ length }, () => ({ place: 0, caller: null, depth: 0 }));
	expect(longestWay([9, 7, 8, 7, 8, 7, 8, 30].map(of))).toHaveLength(8);
});

// The rules of the house can say no: a small house that breaks each of them.

import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { beyond, floating, sizes, tooLong, uncontained, writtenByOthers } from "../../scripts/check/house.ts";
import { treesOf, withProject } from "../../scripts/syntax.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-house-"));
const source = join(folder, "src");

const FILES = {
	"backend/server.ts": `export class Server { at = 0; lend(): void { this.at = 1; } }
		export function born(server: Server): void { server.at = 2; }`,
	"client/client.ts": `import { Server } from "../backend/server.ts";
		class Own { at = 0; }
		export class Client {
			private readonly server: Server | null = new Server();
			one(own: Own): void { own.at = 1; this.server!.at = 1; this.server!.lend(); }
			two({ at }: Server, server: Server): number { server.at++; return at; }
		}`,
	"session/names.ts": `import { Server } from "../backend/server.ts";
		export class Names { size = 0; }
		export function grow(names: Names, server: Server): void { names.size++; server.at++; }`,
	"shards/exchange.ts": `import type { Names } from "../session/names.ts";
		export function empty(names: Names): void { names.size = 0; }`,
	"contain.ts": "export function later(work: () => void): void { setTimeout(work, 1); queueMicrotask(work); }",
	"net/timer.ts": `export async function wait(): Promise<void> {}
		function unawaited(): void {
			wait();
			void wait();
			wait().catch(() => {});
			wait().then(() => {}, () => {});
			setInterval(unawaited, 1000);
		}
		export const wide = (a: number, b: number,
			c: number) => {
			return a + b + c;
		};`,
};

for (const [file, text] of Object.entries(FILES)) {
	mkdirSync(dirname(join(source, file)), { recursive: true });
	writeFileSync(join(source, file), text);
}
const compilerOptions = {
	target: "ESNext",
	lib: ["ESNext", "DOM"],
	types: [],
	allowImportingTsExtensions: true,
	noEmit: true,
};
writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["src"] }));
afterAll(() => rmSync(folder, { recursive: true }));

test("a Server and a session are written by their own rooms, timers run in contain.ts, and promises are waited for", async () => {
	await withProject(join(folder, "tsconfig.json"), async (project) => {
		const trees = await treesOf(project, source);
		expect(await writtenByOthers(trees, project.checker)).toEqual([
			"src/client/client.ts:5: fields of backend/ are written there only",
			"src/client/client.ts:6: fields of backend/ are written there only",
			"src/session/names.ts:3: fields of backend/ are written there only",
			"src/shards/exchange.ts:2: fields of session/ are written there only",
		]);
		expect(await floating(trees, project.checker)).toEqual(["src/net/timer.ts:3: nobody waits for this promise"]);
		expect(tooLong(trees, 8)).toEqual(["src/net/timer.ts: 11 lines, more than 8"]);
		expect(uncontained(trees, {})).toEqual([
			"a timer, a microtask or a then goes through contain.ts, but for 0 in net/timer.ts: src/net/timer.ts:6, src/net/timer.ts:7",
		]);
		expect(uncontained(trees, { "net/timer.ts": { places: 2, why: "" } })).toEqual([]);
		expect(uncontained(trees, { "net/timer.ts": { places: 3, why: "" } })).toEqual([
			"src/net/timer.ts needs fewer exceptions of contain.ts than ratchets.ts gives it",
		]);
		const { lines, parameters } = sizes(trees);
		expect(parameters.get("net/timer.ts wide")).toBe(3);
		expect(lines.get("net/timer.ts wide")).toBe(4);
		expect(lines.get("net/timer.ts unawaited")).toBe(7);
		expect(parameters.get("client/client.ts Client.two")).toBe(2);
	});
});

test("a function may not grow beyond its limit, nor beyond what it came to; its entry follows when it shrinks", () => {
	const of = (value: number) => new Map([["a.ts f", value]]);
	expect(beyond("lines", of(10), 10, {})).toEqual([]);
	expect(beyond("lines", of(11), 10, {})).toEqual(["src/a.ts f: lines 11, more than 10"]);
	expect(beyond("lines", of(30), 10, { "a.ts f": 30 })).toEqual([]);
	expect(beyond("lines", of(31), 10, { "a.ts f": 30 })).toEqual(["src/a.ts f: lines 31, more than 30"]);
	expect(beyond("lines", of(28), 10, { "a.ts f": 30 })).toEqual([]);
	expect(beyond("lines", of(20), 10, { "a.ts f": 30 })).toEqual(["src/a.ts f: lines 20: write that into ratchets.ts"]);
	expect(beyond("lines", of(10), 10, { "a.ts f": 30 })).toEqual([
		"src/a.ts f: lines are no more than 10: take it out of ratchets.ts",
	]);
	expect(beyond("lines", new Map(), 10, { "gone.ts f": 30 })).toHaveLength(1);
});

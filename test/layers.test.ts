// Reads the import lines of src and fails on an arrow that the map of rooms does not have, so that drawing a new one is a
// decision and not an accident. Arrows point down, may skip levels, and hold for `import type` too.

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join, normalize } from "node:path";

/** What each room may import directly; what those may import is allowed as well. */
const ARROWS: Record<string, string[]> = {
	admin: ["frontend", "pool", "plugin", "config", "stats"],
	frontend: ["router", "parser", "pool", "backend", "auth", "net", "wire", "config", "stats"],
	router: ["plugin", "parser", "config", "stats"],
	plugin: ["parser", "config", "stats"],
	pool: ["backend", "config", "stats"],
	backend: ["parser", "auth", "net", "wire", "config", "stats"],
	net: ["wire", "config", "stats"],
	stats: ["config"],
	config: [],
	wire: [],
	parser: [],
	auth: [],
};

/** Imported by all, import nothing of ours. */
const LEAVES = ["log.ts", "clock.ts", "contain.ts", "lru.ts", "errors.ts", "once-a-minute.ts"];

/** Files beside the rooms: the rooms they may import ("*": all) and the files of that kind. */
const TOP: Record<string, { rooms: string[]; files: string[] }> = {
	"main.ts": { rooms: ["*"], files: ["cli.ts", "proxy.ts", "version.ts"] },
	"proxy.ts": { rooms: ["*"], files: ["messages.ts", "version.ts", "worker.ts"] },
	"worker.ts": { rooms: ["*"], files: ["messages.ts"] },
	"worker-thread.ts": { rooms: ["*"], files: ["messages.ts", "worker.ts"] },
	// What threads say to each other: types only.
	"messages.ts": { rooms: ["admin", "backend", "config", "plugin", "pool"], files: [] },
	"version.ts": { rooms: ["config", "plugin"], files: [] },
	"cli.ts": { rooms: ["config", "auth"], files: [] },
};

const SOURCE = join(import.meta.dir, "..", "src");

function reachable(room: string, seen = new Set<string>()): Set<string> {
	for (const next of ARROWS[room] ?? []) {
		if (seen.has(next)) continue;
		seen.add(next);
		reachable(next, seen);
	}
	return seen;
}

/** The specifiers of a file's static and dynamic imports and re-exports. */
function imports(source: string): string[] {
	const pattern = /\bfrom\s+"([^"]+)"|\bimport\s*\(?\s*"([^"]+)"/g;
	return [...source.matchAll(pattern)].map((match) => match[1] ?? match[2] ?? "");
}

/** Why `file` (a path below src) may not import `specifier`; undefined when it may. */
function fault(file: string, specifier: string): string | undefined {
	if (!specifier.startsWith(".")) return undefined;
	const target = normalize(join(file, "..", specifier));
	const say = (why: string) => `src/${file} imports ${specifier}: ${why}`;
	// Outside of src only what the executable embeds.
	if (target.startsWith("..")) return target.endsWith(".ts") ? say("code outside of src") : undefined;
	const inRoom = target.includes("/");
	const room = inRoom ? (target.split("/")[0] as string) : "";
	if (inRoom && !(room in ARROWS)) return say(`${room} is not a room`);
	if (file.includes("/")) {
		const own = file.split("/")[0] as string;
		if (!(own in ARROWS)) return say(`${own} is not a room`);
		if (!inRoom) return LEAVES.includes(target) ? undefined : say("rooms import leaves and rooms only");
		return own === room || reachable(own).has(room) ? undefined : say(`there is no arrow from ${own} to ${room}`);
	}
	if (LEAVES.includes(file)) return say("a loose leaf imports nothing");
	const top = TOP[file];
	if (!top) return say(`${file} has no place beside the rooms`);
	if (inRoom) return top.rooms.includes("*") || top.rooms.includes(room) ? undefined : say(`not a room for ${file}`);
	return LEAVES.includes(target) || top.files.includes(target) ? undefined : say(`not a file for ${file}`);
}

function sources(): { file: string; text: string }[] {
	const files = [...new Bun.Glob("**/*.ts").scanSync({ cwd: SOURCE })].sort();
	return files.map((file) => ({ file, text: readFileSync(join(SOURCE, file), "utf8") }));
}

test("every import of src follows an arrow of the map", () => {
	const faults = sources().flatMap(({ file, text }) => imports(text).map((specifier) => fault(file, specifier)));
	expect(faults.filter((why) => why !== undefined)).toEqual([]);
});

test("every file of src is in a room, a loose leaf or a top file", () => {
	const strays = sources()
		.map(({ file }) => file)
		.filter((file) => {
			const [room, rest] = file.split("/");
			return rest === undefined ? !LEAVES.includes(file) && !(file in TOP) : !((room as string) in ARROWS);
		});
	expect(strays).toEqual([]);
});

test("bun:ffi is imported by plugin/ and by one file of net/ only", () => {
	const users = sources()
		.filter(({ text }) => imports(text).includes("bun:ffi"))
		.map(({ file }) => file)
		.filter((file) => !file.startsWith("plugin/"));
	expect(users.filter((file) => !file.startsWith("net/"))).toEqual([]);
	expect(users.length).toBeLessThanOrEqual(1);
});

// The map itself must be able to say no.
test.each([
	["wire/frame.ts", "../net/stream.ts"],
	["wire/frame.ts", "../config/snapshot.ts"],
	["pool/pool.ts", "../frontend/client.ts"],
	["router/route.ts", "../wire/codes.ts"],
	["router/route.ts", "../backend/server.ts"],
	["frontend/client.ts", "../admin/console.ts"],
	["frontend/client.ts", "../main.ts"],
	["lru.ts", "./log.ts"],
	["cli.ts", "./pool/pool.ts"],
	["worker.ts", "./main.ts"],
	["worker.ts", "./proxy.ts"],
	["parser/session.ts", "../backend/clean.ts"],
	["net/stream.ts", "../utils/bytes.ts"],
	["net/stream.ts", "../../test/support/until.ts"],
])("%s may not import %s", (file, specifier) => {
	expect(fault(file, specifier)).toBeString();
});

test.each([
	["frontend/client.ts", "../wire/codes.ts"],
	["admin/console.ts", "../wire/writer.ts"],
	["pool/pool.ts", "../net/stream.ts"],
	["net/stream.ts", "../log.ts"],
	["main.ts", "./admin/console.ts"],
	["main.ts", "./proxy.ts"],
	["proxy.ts", "./worker.ts"],
	["backend/clean.ts", "../parser/session.ts"],
	["cli.ts", "./config/load.ts"],
	["parser/parse.ts", "../../node_modules/a/b.wasm"],
])("%s may import %s", (file, specifier) => {
	expect(fault(file, specifier)).toBeUndefined();
});

test("imports are found on one line, over several, for types, re-exported and dynamic", () => {
	const text =
		'import type { A } from "./a.ts";\nimport {\n\tB,\n} from "./b.ts";\nimport "./c.ts";\nexport { D } from "./d.ts";\nawait import("./e.ts");\n';
	expect(imports(text)).toEqual(["./a.ts", "./b.ts", "./c.ts", "./d.ts", "./e.ts"]);
});

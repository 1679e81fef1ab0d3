// The map of rooms, kept true by reading src: each arrow between rooms is one that ARROWS has, each arrow there is used, no file
// imports itself in a circle, and what comments and the tour name exists. Drawing a new arrow is a decision and not an accident.
// Arrows hold for `import type` too.

import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

/** What each room imports: exactly these, and nothing by way of another. */
const ARROWS: Record<string, string[]> = {
	admin: ["config", "net", "stats", "status", "two-phase", "wire"],
	status: ["backend", "client", "stats", "wire"],
	login: ["auth", "client", "config", "net", "parser", "pool", "session", "shards", "stats", "wire"],
	shards: ["client", "config", "net", "parser", "pool", "router", "session", "two-phase", "wire"],
	"two-phase": ["auth", "backend", "config", "pool", "wire"],
	client: ["auth", "backend", "config", "net", "parser", "plugin", "pool", "router", "session", "stats", "wire"],
	session: ["backend", "config", "net", "parser", "pool", "router", "wire"],
	router: ["config", "parser", "plugin", "wire"],
	plugin: ["config"],
	pool: ["auth", "backend", "config", "net", "stats", "wire"],
	backend: ["auth", "net", "parser", "stats", "wire"],
	net: [],
	stats: [],
	config: ["net"],
	wire: [],
	parser: [],
	auth: [],
};

/** Imported by all, import nothing of ours. */
const LEAVES = ["log.ts", "clock.ts", "contain.ts", "errors.ts", "once-a-minute.ts", "tally.ts"];

/** Files beside the rooms: the rooms they may import ("*": all) and the files of that kind. */
const TOP: Record<string, { rooms: string[]; files: string[] }> = {
	"main.ts": { rooms: ["*"], files: ["cli.ts", "proxy.ts", "route-file.ts", "upgrade.ts", "version.ts"] },
	"route-file.ts": { rooms: ["config", "parser", "router", "session"], files: [] },
	"known-pools.ts": { rooms: ["config", "pool", "stats", "status"], files: ["pool-orders.ts"] },
	"pool-orders.ts": { rooms: ["config"], files: [] },
	"introductions.ts": { rooms: ["auth", "config", "pool"], files: [] },
	"pool-slots.ts": { rooms: ["config"], files: [] },
	"configuration.ts": {
		rooms: ["admin", "client", "config", "pool", "two-phase"],
		files: ["introductions.ts", "known-pools.ts", "messages.ts", "pool-orders.ts", "pool-slots.ts"],
	},
	"upgrade.ts": { rooms: ["net"], files: [] },
	"passage.ts": { rooms: ["client", "net"], files: ["introductions.ts", "pool-orders.ts"] },
	"proxy.ts": {
		rooms: ["*"],
		files: [
			"configuration.ts",
			"known-pools.ts",
			"messages.ts",
			"passage.ts",
			"pool-orders.ts",
			"pool-slots.ts",
			"version.ts",
			"worker.ts",
		],
	},
	"logins.ts": { rooms: ["config", "parser", "plugin", "pool", "router"], files: [] },
	"worker.ts": { rooms: ["*"], files: ["logins.ts", "messages.ts"] },
	"worker-thread.ts": { rooms: ["*"], files: ["messages.ts", "worker.ts"] },
	// What threads say to each other: types only.
	"messages.ts": { rooms: ["admin", "auth", "backend", "client", "config", "plugin", "pool", "status"], files: [] },
	"version.ts": { rooms: ["config", "plugin"], files: [] },
	"cli.ts": { rooms: ["config", "auth"], files: [] },
};

const SOURCE = join(import.meta.dir, "..", "src");

/** The specifiers of a file's static and dynamic imports and re-exports. */
function imports(source: string): string[] {
	const pattern = /\bfrom\s+"([^"]+)"|\bimport\s*\(?\s*"([^"]+)"/g;
	return [...source.matchAll(pattern)].map((match) => match[1] ?? match[2] ?? "");
}

/** The room of a path below src, "" when it is beside the rooms. */
function roomOf(path: string): string {
	return path.includes("/") ? (path.split("/")[0] as string) : "";
}

/** Why `file` (a path below src) may not import `specifier`; undefined when it may. */
function fault(file: string, specifier: string): string | undefined {
	if (!specifier.startsWith(".")) return undefined;
	const target = normalize(join(file, "..", specifier));
	const say = (why: string) => `src/${file} imports ${specifier}: ${why}`;
	// Outside of src only what the executable embeds.
	if (target.startsWith("..")) return target.endsWith(".ts") ? say("code outside of src") : undefined;
	const room = roomOf(target);
	if (room !== "" && !(room in ARROWS)) return say(`${room} is not a room`);
	const own = roomOf(file);
	if (own !== "") {
		const arrows = ARROWS[own];
		if (arrows === undefined) return say(`${own} is not a room`);
		if (room === "") return LEAVES.includes(target) ? undefined : say("rooms import leaves and rooms only");
		return own === room || arrows.includes(room) ? undefined : say(`there is no arrow from ${own} to ${room}`);
	}
	if (LEAVES.includes(file)) return say("a loose leaf imports nothing");
	const top = TOP[file];
	if (!top) return say(`${file} has no place beside the rooms`);
	if (room !== "")
		return top.rooms.includes("*") || top.rooms.includes(room) ? undefined : say(`not a room for ${file}`);
	return LEAVES.includes(target) || top.files.includes(target) ? undefined : say(`not a file for ${file}`);
}

interface Source {
	readonly file: string;
	readonly text: string;
	/** Paths below src that it imports. */
	readonly targets: readonly string[];
}

const SOURCES: readonly Source[] = [...new Bun.Glob("**/*.ts").scanSync({ cwd: SOURCE })].sort().map((file) => {
	const text = readFileSync(join(SOURCE, file), "utf8");
	const targets = imports(text).filter((specifier) => specifier.startsWith("."));
	return { file, text, targets: targets.map((specifier) => normalize(join(file, "..", specifier))) };
});

test("every import of src follows an arrow of the map", () => {
	const faults = SOURCES.flatMap(({ file, text }) => imports(text).map((specifier) => fault(file, specifier)));
	expect(faults.filter((why) => why !== undefined)).toEqual([]);
});

test("every arrow of the map is used", () => {
	const used = new Set(SOURCES.flatMap(({ file, targets }) => targets.map((to) => `${roomOf(file)} ${roomOf(to)}`)));
	const drawn = Object.entries(ARROWS).flatMap(([from, rooms]) => rooms.map((to) => `${from} ${to}`));
	expect(drawn.filter((arrow) => !used.has(arrow))).toEqual([]);
});

/** A way along `arrows` from one of the names back to itself, if there is any. */
function circle(arrows: ReadonlyMap<string, readonly string[]>): string[] | null {
	const done = new Set<string>();
	const way: string[] = [];
	const visit = (name: string): string[] | null => {
		if (way.includes(name)) return [...way.slice(way.indexOf(name)), name];
		if (done.has(name)) return null;
		way.push(name);
		for (const next of arrows.get(name) ?? []) {
			const found = visit(next);
			if (found !== null) return found;
		}
		way.pop();
		done.add(name);
		return null;
	};
	for (const name of arrows.keys()) {
		const found = visit(name);
		if (found !== null) return found;
	}
	return null;
}

test("no files import each other in a circle, nor do rooms; types neither", () => {
	expect(circle(new Map(SOURCES.map(({ file, targets }) => [file, targets])))).toBeNull();
	expect(circle(new Map(Object.entries(ARROWS)))).toBeNull();
	expect(circle(new Map(Object.entries({ a: ["b", "d"], b: ["c"], c: ["b"], d: [] })))).toEqual(["b", "c", "b"]);
});

test("every file of src is in a room, a loose leaf or a top file", () => {
	const strays = SOURCES.map(({ file }) => file).filter((file) => {
		const room = roomOf(file);
		return room === "" ? !LEAVES.includes(file) && !(file in TOP) : !(room in ARROWS);
	});
	expect(strays).toEqual([]);
});

test("bun:ffi is imported by plugin/ and by one file of net/ only", () => {
	const users = SOURCES.filter(({ text }) => imports(text).includes("bun:ffi"))
		.map(({ file }) => file)
		.filter((file) => !file.startsWith("plugin/"));
	expect(users.filter((file) => !file.startsWith("net/"))).toEqual([]);
	expect(users.length).toBeLessThanOrEqual(1);
});

/** Files that a comment names and that are neither beside it, nor in src by that path, nor in the project. */
function missing(file: string, comment: string): string[] {
	const named = [...comment.matchAll(/(?<![\w./-])(?:[a-z-]+\/)*[a-z-]+\.ts\b/g)].map(([name]) => name);
	const places = [join(SOURCE, dirname(file)), SOURCE, join(SOURCE, "..")];
	return named.filter((name) => !places.some((place) => existsSync(join(place, name))));
}

test("files that comments name are where the comment says: beside it, or below src", () => {
	const faults = SOURCES.flatMap(({ file, text }) => {
		const comments = text.split("\n").filter((line) => /^\s*(\/\/|\*|\/\*\*)/.test(line));
		return comments.flatMap((line) => missing(file, line).map((name) => `src/${file}: ${name}`));
	});
	expect(faults).toEqual([]);
	expect(missing("wire/frame.ts", "// See client.ts and codes.ts")).toEqual(["client.ts"]);
});

/** A name that is exported by two files means two things, or is written twice. */
test("no two files of src export the same name", () => {
	const exported =
		/^export (?:declare |abstract |async )*(?:const enum|enum|class|interface|type|function\*?|const|let) (\w+)/gm;
	const files = new Map<string, string[]>();
	for (const { file, text } of SOURCES)
		for (const [, name] of text.matchAll(exported)) files.set(name!, [...new Set([...(files.get(name!) ?? []), file])]);
	expect([...files].filter(([, places]) => places.length > 1)).toEqual([]);
});

describe("the tour", () => {
	const tour = readFileSync(join(SOURCE, "README.md"), "utf8");
	const code = SOURCES.map(({ text }) => text).join("\n");

	test("has every room and every file beside the rooms", () => {
		const rooms = [...new Set(SOURCES.map(({ file }) => roomOf(file)).filter((room) => room !== ""))];
		const files = SOURCES.map(({ file }) => file).filter((file) => roomOf(file) === "");
		expect([...rooms.map((room) => `**${room}/**`), ...files].filter((name) => !tour.includes(name))).toEqual([]);
	});

	test("names rooms and files that exist", () => {
		const rooms = [...tour.matchAll(/\*\*(\w+)\/\*\*/g)].map(([, room]) => room!);
		expect(rooms.filter((room) => !(room in ARROWS))).toEqual([]);
		const files = [...tour.matchAll(/(?<![\w./-])(?:[a-z-]+\/)*[a-z-]+\.ts\b/g)].map(([name]) => name);
		const exists = (name: string) => SOURCES.some(({ file }) => file === name || file.endsWith(`/${name}`));
		expect(files.filter((name) => !exists(name) && !existsSync(join(SOURCE, "..", name)))).toEqual([]);
	});

	test("names words that the code has", () => {
		const names = [...tour.matchAll(/`([A-Za-z_][\w.]*)`/g)].flatMap(([, name]) => name!.split("."));
		const unknown = names.filter((name) => !new RegExp(`\\b${name}\\b`).test(code) && !existsSync(join(SOURCE, name)));
		expect([...new Set(unknown)]).toEqual([]);
	});
});

// The map itself must be able to say no.
test.each([
	["wire/frame.ts", "../net/stream.ts"],
	["wire/frame.ts", "../config/snapshot.ts"],
	["pool/pool.ts", "../client/client.ts"],
	["client/client.ts", "../shards/sharded-client.ts"],
	["session/settings.ts", "../client/context.ts"],
	["router/route.ts", "../session/hints.ts"],
	["router/route.ts", "../backend/server.ts"],
	["client/client.ts", "../admin/console.ts"],
	["client/client.ts", "../main.ts"],
	["clock.ts", "./log.ts"],
	["cli.ts", "./pool/pool.ts"],
	["worker.ts", "./main.ts"],
	["worker.ts", "./proxy.ts"],
	["parser/session.ts", "../backend/clean.ts"],
	["net/stream.ts", "../utils/bytes.ts"],
	["net/stream.ts", "../../test/support/until.ts"],
	// Not by way of another room.
	["admin/console.ts", "../parser/session.ts"],
])("%s may not import %s", (file, specifier) => {
	expect(fault(file, specifier)).toBeString();
});

test.each([
	["client/client.ts", "../wire/codes.ts"],
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

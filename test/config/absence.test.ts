// What is missing, empty or half written is not taken for a default: files that a flag names, and those of a reload.

import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Loaded, type LoadInput, load } from "../../src/config/load.ts";
import { losses } from "../../src/config/loss.ts";
import { problemText } from "../../src/config/problem.ts";
import type { Snapshot } from "../../src/config/snapshot.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-absence-"));
afterAll(() => rmSync(folder, { recursive: true }));
const configPath = join(folder, "pgdog.toml");
const usersPath = join(folder, "users.toml");
const CONFIG = `[general]
default_pool_size = 4

[[databases]]
name = "app"
host = "10.0.0.5"

[[databases]]
name = "log"
host = "10.0.0.6"

[admin]
name = "pgbouncer"
password = "adm"
`;
const USERS = `[[users]]
name = "alice"
database = "app"
password = "secret"

[[users]]
name = "bob"
databases = ["app", "log"]
password = "hidden"
`;

/** Puts the two files as they ought to be. */
function restore(): void {
	for (const path of [configPath, usersPath]) rmSync(path, { recursive: true, force: true });
	writeFileSync(configPath, CONFIG);
	writeFileSync(usersPath, USERS);
}

const read = (more: Partial<LoadInput> = {}): Loaded =>
	load({ configPath, databaseUrls: [], overrides: {}, env: {}, ...more });

function start(more: Partial<LoadInput> = {}): Snapshot {
	restore();
	const loaded = read(more);
	if (!loaded.ok) throw new Error(loaded.problems.map(problemText).join("\n"));
	return loaded.snapshot;
}

const said = (loaded: Loaded): string[] => (loaded.ok ? [] : loaded.problems.map(problemText));

/** Why a reload is refused; empty when it is taken. */
function refusal(before: Snapshot): string[] {
	const loaded = read({ before });
	return loaded.ok ? losses(before, loaded.snapshot) : said(loaded);
}

test("a file that a flag names has to be there", () => {
	const gone = join(folder, "gone.toml");
	expect(said(load({ configPath: gone, configNamed: true, databaseUrls: [], overrides: {}, env: {} }))).toEqual([
		`${gone}: cannot be read: there is no such file, and --config names it`,
	]);
	restore();
	expect(said(read({ usersPath: gone }))).toEqual([
		`${gone}: cannot be read: there is no such file, and --users names it`,
	]);
	// Also where URLs take its place.
	expect(said(read({ usersPath: gone, databaseUrls: ["postgres://a:b@h/d"] }))).toEqual([
		`${gone}: cannot be read: there is no such file, and --users names it`,
	]);
	expect(said(read({ configPath: "typo/pgdog.toml", configNamed: true }))[0]).toContain(`in ${process.cwd()},`);
	symlinkSync(join(folder, "nowhere"), join(folder, "dangling.toml"));
	expect(said(read({ usersPath: join(folder, "dangling.toml") }))[0]).toContain("there is no such file");
});

test("a working directory that is gone is no more than a file that is not there", () => {
	const here = process.cwd();
	const gone = mkdtempSync(join(tmpdir(), "pgdog-gone-"));
	process.chdir(gone);
	try {
		rmSync(gone, { recursive: true });
		const loaded = load({ configPath: "a.toml", configNamed: true, databaseUrls: [], overrides: {}, env: {} });
		expect(said(loaded)[0]).toContain("a.toml: cannot be read: there is no such file in");
	} finally {
		process.chdir(here);
	}
});

test("a folder in the place of a file is told as one", () => {
	expect(said(read({ configPath: folder, usersPath }))).toEqual([`${folder}: cannot be read: it is a folder`]);
});

test.each<[string, (path: string) => void, string]>([
	["is gone", (path) => rmSync(path), "it was loaded before"],
	[
		"is a folder",
		(path) => {
			rmSync(path);
			mkdirSync(path);
		},
		"it is a folder",
	],
	["is empty", (path) => writeFileSync(path, ""), "would be left"],
	["holds nothing but a comment", (path) => writeFileSync(path, "# soon\n"), "would be left"],
	["is not TOML", (path) => writeFileSync(path, "[[users"), "not valid TOML"],
	["is not text", (path) => writeFileSync(path, Uint8Array.of(0xff, 0xfe)), "not valid TOML"],
])("a reload is refused when one of the files %s", (_, spoil, why) => {
	for (const path of [configPath, usersPath]) {
		const before = start();
		spoil(path);
		const refused = refusal(before);
		expect([path, refused.length > 0]).toEqual([path, true]);
		expect(refused.join("\n")).toContain(why);
		expect(refused.join("\n")).toContain(path);
		restore();
		expect(refusal(before)).toEqual([]);
	}
});

// A deploy that writes in place is met in the middle by a reload: it may be refused, or be taken with what is there; it never
// leaves nobody who can log in, nor an admin's password that nobody knows.
test("a reload that finds a file half written leaves users, databases and the admin's password", () => {
	const before = start();
	let taken = 0;
	for (const [path, text] of [
		[configPath, CONFIG],
		[usersPath, USERS],
	] as const) {
		for (let end = 0; end < text.length; end++) {
			restore();
			writeFileSync(path, text.slice(0, end));
			const loaded = read({ before });
			if (!loaded.ok || losses(before, loaded.snapshot).length > 0) continue;
			taken++;
			expect([end, loaded.snapshot.clusters.length > 0]).toEqual([end, true]);
			expect([end, loaded.snapshot.admin.password]).toEqual([end, "adm"]);
		}
	}
	// Whole tables are missing then, which a file may well have to do without.
	expect(taken).toBeGreaterThan(0);
});

test("an admin whose table or password is gone keeps what was in force", () => {
	const before = start();
	writeFileSync(configPath, CONFIG.slice(0, CONFIG.indexOf("[admin]")));
	const gone = read({ before });
	expect(gone.ok && gone.snapshot.admin).toEqual(before.admin);
	expect(gone.ok && gone.snapshot.warnings.join()).toContain("[admin] has no password any more");
	writeFileSync(configPath, CONFIG.replace('password = "adm"', "").replace("pgbouncer", "console"));
	const renamed = read({ before });
	expect(renamed.ok && renamed.snapshot.admin).toEqual({ ...before.admin, name: "console" });
	// Another reload does not forget it either.
	const again = renamed.ok ? read({ before: renamed.snapshot }) : renamed;
	expect(again.ok && again.snapshot.admin.password).toBe("adm");
});

test("a users.toml beside the config file that is gone is not replaced by the one of the working directory", () => {
	const before = start();
	expect(before.files).toEqual([configPath, usersPath]);
	rmSync(usersPath);
	expect(said(read({ before }))).toEqual([
		`${usersPath}: cannot be read: there is no such file, and it was loaded before`,
	]);
});

test("a file that was never there may stay away, and may come", () => {
	restore();
	const paths = { configPath: join(folder, "later.toml"), databaseUrls: ["postgres://a:b@h/d"] };
	const first = read(paths);
	const again = first.ok ? read({ ...paths, before: first.snapshot }) : first;
	expect(again.ok).toBe(true);
	writeFileSync(paths.configPath, "[general]\nworkers = 3\n");
	const later = first.ok ? read({ ...paths, before: first.snapshot }) : first;
	expect(later.ok && [later.snapshot.general.workers, later.snapshot.files]).toEqual([3, [paths.configPath]]);
});

test("a proxy that has nothing may be given nothing", () => {
	const before = start();
	const empty: Snapshot = { ...before, databases: [], users: [], clusters: [] };
	expect(losses(empty, empty)).toEqual([]);
	expect(losses(empty, before)).toEqual([]);
	// Users remain, but none of a database that there is.
	expect(losses(before, { ...before, users: [] })).toEqual([
		`no user would be left: ${configPath} and ${usersPath} has none with a password and a database of [[databases]]`,
	]);
});

test("a list of who may log in from where is not given up for none", () => {
	const without = start();
	const entry = '[[hba]]\ntype = "local"\ndatabase = "all"\nuser = "all"\nmethod = "md5"\n';
	writeFileSync(configPath, CONFIG + entry);
	const loaded = read({ before: without });
	if (!loaded.ok) throw new Error(said(loaded).join());
	expect(losses(without, loaded.snapshot)).toEqual([]);
	writeFileSync(configPath, CONFIG);
	expect(refusal(loaded.snapshot)).toEqual([
		"no [[hba]] would be left: clients could log in from everywhere, as auth_type says",
	]);
});

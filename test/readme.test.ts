// What the README and the pages of docs/ say is run here: commands exist, configuration loads, settings and figures are real.

import { expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import manifest from "../package.json" with { type: "json" };
import { meets } from "../src/config/hba.ts";
import { load } from "../src/config/load.ts";
import type { Problem } from "../src/config/problem.ts";
import { routeFile } from "../src/route-file.ts";

const ROOT = join(import.meta.dir, "..");
/** The README, and what it leads to, by path. */
const PAGES = new Map(
	["README.md", ...readdirSync(join(ROOT, "docs")).map((name) => `docs/${name}`)].map((path) => [
		path,
		readFileSync(join(ROOT, path), "utf8"),
	]),
);
const readme = PAGES.get("README.md")!;

const figuresDoc = PAGES.get("docs/figures.md")!;

/** The fenced block of `language` that follows `after`. */
function block(language: string, after = "", page = readme): string {
	const from = page.indexOf(`\`\`\`${language}\n`, page.indexOf(after));
	expect(from).toBeGreaterThanOrEqual(0);
	const start = from + language.length + 4;
	return page.slice(start, page.indexOf("```", start));
}

/** What the files come to that hold these texts. */
function loaded(config: string, users: string) {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-readme-"));
	try {
		writeFileSync(join(folder, "pgdog.toml"), config);
		writeFileSync(join(folder, "users.toml"), users);
		return load({ configPath: join(folder, "pgdog.toml"), databaseUrls: [], overrides: {}, env: {} });
	} finally {
		rmSync(folder, { recursive: true });
	}
}

/** What these files have in force. */
function inForce(config: string, users: string) {
	const result = loaded(config, users);
	if (!result.ok) throw new Error(JSON.stringify(result.problems));
	return result.snapshot;
}

test("every npm command of the README and of docs/ exists", () => {
	const named = [...[...PAGES.values()].join("\n").matchAll(/npm (?:run ([\w-]+)|(start|test))\b/g)].map(
		([, script, short]) => script ?? short!,
	);
	expect(named.length).toBeGreaterThan(5);
	for (const name of named) expect(Object.keys(manifest.scripts)).toContain(name);
});

test("the README's pgdog.toml and users.toml load without a complaint and make the pool they promise", () => {
	const snapshot = inForce(block("toml", "`pgdog.toml`:"), block("toml", "`users.toml`:"));
	expect(snapshot.warnings).toEqual([]);
	expect(snapshot.clusters.map(({ user, database }) => [user.name, database])).toEqual([["alice", "app"]]);
});

test("so does the pgdog.toml for primary and replicas", () => {
	const config = block("toml", "# Reads to replicas", PAGES.get("docs/routing.md"));
	const snapshot = inForce(config, block("toml", "`users.toml`:"));
	expect(snapshot.warnings.filter((warning) => !warning.includes("admin"))).toEqual([]);
	expect(snapshot.clusters[0]!.pools.map(({ host, role }) => `${host} ${role}`)).toEqual([
		"10.0.0.5 auto",
		"10.0.0.6 auto",
	]);
	expect(snapshot.writeFunctions).toEqual(["billing.charge"]);
});

test("the list of who may log in is one that lets in whom it says", () => {
	const config = block("toml", "Who may log in from where", PAGES.get("docs/logging-in.md"));
	const { hba } = inForce(config, block("toml", "`users.toml`:"));
	const login = { user: "alice", database: "app", host: "10.0.0.7", isEncrypted: true };
	expect(meets(hba, login)?.method).toBe("scram-sha-256");
	expect(meets(hba, { ...login, isEncrypted: false })).toBeNull();
});

test("PgBouncer's file and ours say the same in docs/from-pgbouncer.md", () => {
	const page = PAGES.get("docs/from-pgbouncer.md")!;
	const snapshot = inForce(block("toml", "is this in", page), block("toml", "and each line of", page));
	expect(snapshot.warnings).toEqual([]);
	expect(snapshot.clusters.map(({ user, database }) => [user.name, database])).toContainEqual(["alice", "app"]);
	const { query, checkout } = /query_wait_timeout = (?<query>\d+)[\s\S]*checkout_timeout = (?<checkout>[\d_]+)/.exec(
		page,
	)!.groups!;
	expect(Number(checkout!.replace("_", ""))).toBe(Number(query) * 1000);
});

test("every key in a file of the documentation is one that is known", () => {
	let blocks = 0;
	for (const [path, page] of PAGES)
		for (const [, text] of page.matchAll(/```toml\n([\s\S]*?)```/g)) {
			// Of a plugin's folder.
			if (text!.startsWith("[package]")) continue;
			const isUsers = text!.startsWith("[[users]]");
			const result = isUsers ? loaded("", text!) : loaded(text!, "");
			const problems: readonly Problem[] = result.ok ? [] : result.problems;
			const unknown = problems.filter(({ wrong }) => wrong !== "value" && wrong !== "missing");
			expect([path, unknown]).toEqual([path, []]);
			blocks++;
		}
	expect(blocks).toBeGreaterThan(7);
});

test("the settings that docs/logging-in.md and docs/operating.md name are in docs/config.md", () => {
	for (const path of ["docs/logging-in.md", "docs/operating.md"]) {
		const named = [...PAGES.get(path)!.matchAll(/`([a-z]+(?:_[a-z]+)+)`/g)].map(([, name]) => name!);
		expect(named.length).toBeGreaterThan(4);
		// PgBouncer's own are there, too: in the list of its names.
		expect(named.filter((name) => !PAGES.get("docs/config.md")!.includes(`\`${name}\``))).toEqual([]);
	}
});

/** What GitHub makes of a heading, to be linked to. */
const anchorOf = (heading: string) =>
	heading
		.toLowerCase()
		.replace(/[^\w\- ]/g, "")
		.replaceAll(" ", "-");

test("every file and heading that the README and docs/ link to is there", () => {
	for (const [path, page] of PAGES)
		for (const [, link] of page.matchAll(/\]\((?!http)([^)]+)\)/g)) {
			const [file, anchor] = link!.split("#");
			const target = readFileSync(join(ROOT, path, "..", file!), "utf8");
			const headings = [...target.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => anchorOf(heading!));
			if (anchor !== undefined) expect(headings).toContain(anchor);
		}
});

test("each page of docs/ is one that the README leads to", () => {
	for (const path of PAGES.keys()) if (path !== "README.md") expect(readme).toContain(`](${path})`);
});

test("the figures say their date and machine", () => {
	const figures = figuresDoc.slice(figuresDoc.indexOf("<!-- bench -->"), figuresDoc.indexOf("<!-- /bench -->"));
	expect(figures).toMatch(/\d{4}-\d\d-\d\d, .*PgBouncer/);
	expect(figures).toMatch(/\| workers=1 +\|/);
});

test("the example of docs/sharding.md loads, and pgdog route prints of its statements what the page says", () => {
	const page = PAGES.get("docs/sharding.md");
	const users = '[[users]]\nname = "app"\ndatabase = "shop"\npassword = "pw"\n';
	const snapshot = inForce(block("toml", "# Sharding", page), users);
	expect(snapshot.warnings).toEqual([]);
	const { text, isRefused } = routeFile(snapshot, undefined, block("sql", "# Sharding", page));
	expect(block("text", "`pgdog route", page)).toBe(text);
	expect(isRefused).toBe(true);
});

// What the README says is run here: its commands exist, its configuration loads, its settings and figures are real.

import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import manifest from "../package.json" with { type: "json" };
import { meets } from "../src/config/hba.ts";
import { load } from "../src/config/load.ts";

const readme = await Bun.file(join(import.meta.dir, "..", "README.md")).text();

const figuresDoc = await Bun.file(join(import.meta.dir, "..", "docs", "figures.md")).text();

/** The fenced block of `language` that follows `after`. */
function block(language: string, after = ""): string {
	const from = readme.indexOf(`\`\`\`${language}\n`, readme.indexOf(after));
	expect(from).toBeGreaterThanOrEqual(0);
	const start = from + language.length + 4;
	return readme.slice(start, readme.indexOf("```", start));
}

test("every npm command of the README exists", () => {
	const named = [
		...(readme + figuresDoc).matchAll(
			/npm (?:run )?(start|test|build|check|bench|failover|memory|growth|first-start|soak|regress)\b/g,
		),
	].map((match) => match[1]!);
	expect(named.length).toBeGreaterThan(5);
	for (const name of named) expect(Object.keys(manifest.scripts)).toContain(name);
});

test("the README's pgdog.toml and users.toml load without a complaint and make the pool they promise", () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-readme-"));
	try {
		writeFileSync(join(folder, "pgdog.toml"), block("toml", "`pgdog.toml`:"));
		writeFileSync(join(folder, "users.toml"), block("toml", "`users.toml`:"));
		const input = { configPath: join(folder, "pgdog.toml"), databaseUrls: [], overrides: {}, env: {} };
		const loaded = load(input);
		if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
		expect(loaded.snapshot.warnings).toEqual([]);
		expect(loaded.snapshot.clusters.map(({ user, database }) => [user.name, database])).toEqual([["alice", "app"]]);
	} finally {
		rmSync(folder, { recursive: true });
	}
});

test("so does its pgdog.toml for primary and replicas", () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-readme-"));
	try {
		writeFileSync(join(folder, "pgdog.toml"), block("toml", "## Reads to replicas"));
		writeFileSync(join(folder, "users.toml"), block("toml", "`users.toml`:"));
		const loaded = load({ configPath: join(folder, "pgdog.toml"), databaseUrls: [], overrides: {}, env: {} });
		if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
		expect(loaded.snapshot.warnings.filter((warning) => !warning.includes("admin"))).toEqual([]);
		expect(loaded.snapshot.clusters[0]!.pools.map(({ host, role }) => `${host} ${role}`)).toEqual([
			"10.0.0.5 auto",
			"10.0.0.6 auto",
		]);
		expect(loaded.snapshot.writeFunctions).toEqual(["billing.charge"]);
	} finally {
		rmSync(folder, { recursive: true });
	}
});

test("its list of who may log in is one that lets in whom it says", () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-readme-"));
	try {
		writeFileSync(join(folder, "pgdog.toml"), block("toml", "Who may log in from where"));
		writeFileSync(join(folder, "users.toml"), block("toml", "`users.toml`:"));
		const loaded = load({ configPath: join(folder, "pgdog.toml"), databaseUrls: [], overrides: {}, env: {} });
		if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
		const login = { user: "alice", database: "app", host: "10.0.0.7", isEncrypted: true };
		expect(meets(loaded.snapshot.hba, login)?.method).toBe("scram-sha-256");
		expect(meets(loaded.snapshot.hba, { ...login, isEncrypted: false })).toBeNull();
	} finally {
		rmSync(folder, { recursive: true });
	}
});

test("every file that the README links to is there", async () => {
	for (const [, path] of readme.matchAll(/\]\((?!http)([^)]+)\)/g))
		expect(await Bun.file(join(import.meta.dir, "..", path!)).exists()).toBe(true);
});

test("the figures say their date and machine", () => {
	const figures = figuresDoc.slice(figuresDoc.indexOf("<!-- bench -->"), figuresDoc.indexOf("<!-- /bench -->"));
	expect(figures).toMatch(/\d{4}-\d\d-\d\d, .*PgBouncer/);
	expect(figures).toMatch(/\| workers=1 +\|/);
});

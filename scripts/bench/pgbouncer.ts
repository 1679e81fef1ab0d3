// The PgBouncer that the bench compares with: the newest that this machine can come by. `PGBOUNCER_BIN` names one; else the newest
// source package of Debian that its mirror gives out is built, once, into dist/bench; else the installed one has to do.

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findTool, requireTool, runTool } from "../../test/support/tools.ts";

const KEPT = join(import.meta.dir, "..", "..", "dist", "bench");
/** Of Debian, the newest first. */
const SUITES = ["unstable", "testing", "stable"];
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
/** What its configure needs. */
const NEEDS = ["build-essential", "pkg-config", "libevent-dev", "libssl-dev"];
const MINUTES = 60_000;

/** Path of an executable. Says on stderr where it has to do with an older one. */
export async function newestPgBouncer(): Promise<string> {
	const named = process.env.PGBOUNCER_BIN;
	if (named) return named;
	const kept = builtBefore();
	if (kept !== undefined) return kept;
	try {
		return await build();
	} catch (error) {
		console.error(`the installed PgBouncer, as no newer one can be built: ${(error as Error).message}`);
		return requireTool("pgbouncer");
	}
}

/** Its version, as it says itself. */
export async function versionOf(pgbouncer: string): Promise<string> {
	return /[\d.]+/.exec((await runTool([pgbouncer, "--version"])).stdout)?.[0] ?? "?";
}

function builtBefore(): string | undefined {
	if (!existsSync(KEPT)) return undefined;
	const names = readdirSync(KEPT).filter((name) => name.startsWith("pgbouncer-"));
	const newest = names.sort((a, b) => a.localeCompare(b, "en", { numeric: true })).at(-1);
	return newest === undefined ? undefined : join(KEPT, newest);
}

async function build(): Promise<string> {
	if (findTool("apt-get") === undefined) throw new Error("this is no Debian");
	console.error("building the newest PgBouncer, once");
	const folder = join(KEPT, `.build-${process.pid}`);
	mkdirSync(join(folder, "lists", "partial"), { recursive: true });
	try {
		await must(["apt-get", "install", "-y", "-qq", "--no-install-recommends", ...NEEDS]);
		await download(folder);
		const source = readdirSync(folder).find((name) => /^pgbouncer-[\d.]+$/.test(name));
		if (source === undefined) throw new Error("the package has no source of it");
		const at = join(folder, source);
		await must(["./configure", "--without-cares", "--without-pam", "--without-systemd"], at);
		await must(["make", "-j2"], at);
		const built = join(KEPT, source);
		renameSync(join(at, "pgbouncer"), built);
		return built;
	} finally {
		rmSync(folder, { recursive: true, force: true });
	}
}

/** The source package of the newest suite whose files the mirror has. */
async function download(folder: string): Promise<void> {
	const sources = join(folder, "sources");
	mkdirSync(sources);
	const apt = [
		"-o",
		"Dir::Etc::sourcelist=/dev/null",
		"-o",
		`Dir::Etc::sourceparts=${sources}`,
		"-o",
		`Dir::State::lists=${join(folder, "lists")}`,
		"-o",
		"APT::Sandbox::User=root",
	];
	const faults: string[] = [];
	for (const suite of SUITES) {
		const lines = [
			"Types: deb-src",
			`URIs: ${mirror()}`,
			`Suites: ${suite}`,
			"Components: main",
			`Signed-By: ${KEYRING}`,
		];
		writeFileSync(join(sources, "debian.sources"), `${lines.join("\n")}\n`);
		try {
			await must(["apt-get", ...apt, "update", "-qq"], folder);
			await must(["apt-get", ...apt, "source", "--download-only", "-qq", "pgbouncer"], folder);
			const original = readdirSync(folder).find((name) => name.endsWith(".orig.tar.gz"));
			if (original === undefined) throw new Error("no source in it");
			await must(["tar", "xf", original], folder);
			return;
		} catch (error) {
			faults.push(`${suite}: ${(error as Error).message}`);
		}
	}
	throw new Error(faults.join("; "));
}

/** Where this machine has its own packages from. */
function mirror(): string {
	const parts = "/etc/apt/sources.list.d";
	const files = existsSync(parts) ? readdirSync(parts).map((name) => join(parts, name)) : [];
	for (const file of ["/etc/apt/sources.list", ...files]) {
		if (!existsSync(file)) continue;
		const found = /^(?:URIs:|deb\s+(?:\[.*?\])?)\s*(\S+\/debian)\/?(?:\s|$)/m.exec(readFileSync(file, "utf8"));
		if (found !== null) return found[1]!;
	}
	throw new Error("no mirror of Debian is known here");
}

async function must(command: string[], cwd?: string): Promise<void> {
	const env = { DEBIAN_FRONTEND: "noninteractive" };
	const { code, stderr } = await runTool(command, env, 10 * MINUTES, cwd);
	if (code !== 0) throw new Error(`${command[0]}: ${stderr.trim().split("\n").at(-1)}`);
}

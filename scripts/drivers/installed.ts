// Drivers of other languages, in .cache/drivers: brought by the package client of each language, as this machine has it set up.
// Called by scripts/drivers.ts.

import { cpSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findTool, runTool } from "../../test/support/tools.ts";
import { LIBPQ, type Ways } from "./cases.ts";

const CACHE = join(import.meta.dir, "../../.cache/drivers");

export interface Driver {
	readonly name: string;
	/** Programs that have to be there. */
	readonly needs: readonly string[];
	/** As the driver has it, where that is not libpq's name. */
	readonly words: Readonly<Record<string, string>>;
	readonly ways: Ways;
	/** Keys in a file as the driver reads them. */
	readonly key: "pem" | "der";
	/** Fetches what is not there yet, in a folder of its own. @returns the command of its probe, and more of its environment */
	install(folder: string): Promise<{ readonly command: string[]; readonly env: Record<string, string> }>;
}

const file = (name: string) => join(import.meta.dir, name);

/** Runs a package client; what it needs of the environment is for it to know. */
async function fetch(command: string[], folder: string): Promise<void> {
	const env = Object.fromEntries(Object.entries(process.env).map(([name, value]) => [name, value ?? ""]));
	const { code, stdout, stderr } = await runTool(command, env, 300_000, folder);
	if (code !== 0)
		throw new Error(`${command.join(" ")} exited ${code}: ${(stderr || stdout).trim().split("\n").at(-1)}`);
}

/** Does it once for each `version`. */
async function once(folder: string, version: string, work: () => Promise<void>): Promise<void> {
	const stamp = join(folder, `fetched-${version}`);
	if (existsSync(stamp)) return;
	await work();
	writeFileSync(stamp, "");
}

const psycopg: Driver = {
	name: "psycopg",
	needs: ["python3"],
	words: {},
	ways: LIBPQ,
	key: "pem",
	async install(folder) {
		const version = "3.3.9";
		const install = ["python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder];
		await once(folder, version, () => fetch([...install, `psycopg[binary]==${version}`], folder));
		return { command: ["python3", file("probe.py")], env: { PYTHONPATH: folder } };
	},
};

const pgx: Driver = {
	name: "pgx",
	needs: ["go"],
	words: {},
	ways: { weakDirect: true, allow: "failed" },
	key: "pem",
	async install(folder) {
		const version = "v5.13.0";
		cpSync(file("probe.go"), join(folder, "probe.go"));
		await once(folder, version, async () => {
			if (!existsSync(join(folder, "go.mod"))) await fetch(["go", "mod", "init", "probe"], folder);
			await fetch(["go", "get", `github.com/jackc/pgx/v5@${version}`], folder);
		});
		await fetch(["go", "build", "-o", "probe", "probe.go"], folder);
		return { command: [join(folder, "probe")], env: {} };
	},
};

const jdbc: Driver = {
	name: "JDBC",
	needs: ["java", "mvn"],
	words: { channel_binding: "channelBinding", sslnegotiation: "sslNegotiation" },
	ways: { weakDirect: true, allow: "never" },
	key: "der",
	async install(folder) {
		const version = "42.7.14";
		const copy = ["mvn", "--batch-mode", "--quiet", "dependency:copy", `-DoutputDirectory=${folder}`];
		await once(folder, version, () => fetch([...copy, `-Dartifact=org.postgresql:postgresql:${version}`], folder));
		return { command: ["java", "-cp", join(folder, `postgresql-${version}.jar`), file("Probe.java")], env: {} };
	},
};

export const DRIVERS: readonly Driver[] = [psycopg, pgx, jdbc];

/** The driver's probe, or why it cannot be run. */
export async function installed(driver: Driver): Promise<Awaited<ReturnType<Driver["install"]>> | string> {
	const missing = driver.needs.filter((name) => findTool(name) === undefined);
	if (missing.length > 0) return `${missing.join(" and ")} is not installed`;
	const folder = join(CACHE, driver.name);
	mkdirSync(folder, { recursive: true });
	try {
		return await driver.install(folder);
	} catch (error) {
		return (error as Error).message;
	}
}

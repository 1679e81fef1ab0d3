// Programs of Debian that some tests and the bench use: psql, pgbench, pgbouncer. A laptop without them skips those tests and
// says so; under CI=true that is a failure.

import { test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** The path of a tool, or undefined. Looks where Debian keeps those of PostgreSQL, which are not all in PATH. */
export function findTool(name: string): string | undefined {
	const inPath = Bun.which(name);
	if (inPath) return inPath;
	const folders = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"];
	const debian = "/usr/lib/postgresql";
	if (existsSync(debian)) {
		const versions = readdirSync(debian).sort((a, b) => Number(b) - Number(a));
		folders.push(...versions.map((version) => join(debian, version, "bin")));
	}
	return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

/** `test`, or a stand-in that skips with a message and, under CI=true, fails. The body is given the tool's path. */
export function testWithTool(
	tool: string,
	name: string,
	body: (path: string) => Promise<void>,
	timeout?: number,
): void {
	const path = findTool(tool);
	if (path) test(name, () => body(path), timeout);
	else if (process.env.CI === "true") {
		test(name, () => {
			throw new Error(`${tool} is not installed, and CI=true lets no test be skipped`);
		});
	} else test.skip(`${name} (skipped: ${tool} is not installed)`, () => undefined);
}

/** The path of a tool. Throws when it is missing: for scripts, which cannot skip. */
export function requireTool(name: string): string {
	const path = findTool(name);
	if (!path) throw new Error(`${name} is not installed (Debian: apt-get install postgresql pgbouncer)`);
	return path;
}

export interface ToolResult {
	code: number;
	stdout: string;
	stderr: string;
}

/** Runs a program to its end with the given libpq environment and no standard input. */
export async function runTool(
	command: string[],
	env: Record<string, string> = {},
	timeout = 60_000,
	cwd?: string,
): Promise<ToolResult> {
	const child = Bun.spawn(command, {
		stdin: "ignore",
		stdout: "pipe",
		stderr: "pipe",
		env: { PATH: process.env.PATH ?? "/usr/bin:/bin", LC_ALL: "C", PGCONNECT_TIMEOUT: "10", ...env },
		timeout,
		...(cwd === undefined ? {} : { cwd }),
		killSignal: "SIGKILL",
	});
	const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
	return { code, stdout, stderr };
}

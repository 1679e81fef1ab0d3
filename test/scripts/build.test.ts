// The executable that `npm run build` writes: what it says it is, and that the folder it is started in has no say.

import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import manifest from "../../package.json" with { type: "json" };
import { gitHash } from "../../scripts/build.ts";
import { proxyCommand } from "../support/proxy.ts";
import { runTool } from "../support/tools.ts";

function folder(): Disposable & { path: string } {
	const path = mkdtempSync(join(tmpdir(), "pgdog-build-"));
	return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

test("--version tells version, git hash and Bun's version", async () => {
	const { code, stdout } = await runTool([...proxyCommand(), "--version"]);
	expect(code).toBe(0);
	expect(stdout).toContain(manifest.version);
	expect(stdout).toContain(Bun.version);
	expect(stdout).toMatch(/\b([0-9a-f]{8}(-dirty)?|unknown)\b/);
});

// A default build of Bun runs the `preload` of a bunfig.toml it finds where it is started.
test("the executable reads no bunfig.toml and no .env of the folder it is started in", async () => {
	using place = folder();
	writeFileSync(join(place.path, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
	writeFileSync(join(place.path, "preload.ts"), 'console.log("preloaded"); process.exit(7);\n');
	writeFileSync(join(place.path, ".env"), "PGDOG_PORT=none-of-your-business\n");
	writeFileSync(join(place.path, "package.json"), "{ broken");
	writeFileSync(join(place.path, "tsconfig.json"), "{ broken");
	const child = Bun.spawn([...proxyCommand(), "--version"], { cwd: place.path, stdout: "pipe", stderr: "pipe" });
	const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
	expect(await child.exited).toBe(0);
	expect(stdout + stderr).not.toContain("preloaded");
	expect(stdout).toContain(manifest.version);
});

test("the git hash says when the tree differs from the commit, and when there is no commit to name", async () => {
	using place = folder();
	expect(gitHash(place.path)).toBe("unknown");
	const git = (...args: string[]) =>
		runTool(["git", "-C", place.path, "-c", "user.name=a", "-c", "user.email=a@b", ...args], {}, 10_000);
	await git("init", "-q");
	expect(gitHash(place.path)).toBe("unknown");
	writeFileSync(join(place.path, "a"), "1");
	await git("add", "a");
	await git("commit", "-q", "-m", "a");
	expect(gitHash(place.path)).toMatch(/^[0-9a-f]{8}$/);
	writeFileSync(join(place.path, "a"), "2");
	expect(gitHash(place.path)).toMatch(/^[0-9a-f]{8}-dirty$/);
});

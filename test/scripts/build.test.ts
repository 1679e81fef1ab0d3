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

test("--version tells git hash, rustc, version, pg_query and Bun's version, as far as there is a bridge", async () => {
	const { code, stdout } = await runTool([...proxyCommand(), "--version"]);
	expect(code).toBe(0);
	const rest = `version ${manifest.version}, (?<query>pg_query [0-9.]+, )?Bun ${Bun.version}\n$`.replaceAll(".", "\\.");
	const line = new RegExp(`^PgDog v([0-9a-f]{8}(-dirty)?|unknown) \\((?<rustc>.*)\\), ${rest}`).exec(stdout);
	expect(line).not.toBeNull();
	const { rustc, query } = line!.groups!;
	if (query === undefined) expect(rustc).toBe("no rustc: built without Rust plugins");
	else expect(rustc).toMatch(/^rustc \d+\.\d+\.\d+ \(/);
});

test("without cargo, or where cargo fails, the build does without the bridge and says so; under CI=true it fails", async () => {
	using place = folder();
	const script = `import { bringBridge } from ${JSON.stringify(join(import.meta.dir, "../../scripts/build.ts"))};
		console.log(bringBridge() === null ? "without" : "with");`;
	const bring = (CI: string) => runTool([process.execPath, "-e", script], { PATH: place.path, CI });
	const none = await bring("");
	expect([none.code, none.stdout]).toEqual([0, "without\n"]);
	expect(none.stderr).toContain("warning: cargo is not installed: this build will refuse Rust plugins");
	const strict = await bring("true");
	expect(strict.code).not.toBe(0);
	expect(strict.stderr).toContain("cargo is not installed");

	writeFileSync(join(place.path, "cargo"), "#!/bin/sh\necho 'Unable to find libclang' >&2\nexit 101\n", {
		mode: 0o755,
	});
	const failing = await bring("");
	expect([failing.code, failing.stdout]).toEqual([0, "without\n"]);
	expect(failing.stderr).toContain("Unable to find libclang");
	expect(failing.stderr).toContain("warning: the plugin bridge does not build");
	expect((await bring("true")).code).not.toBe(0);
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

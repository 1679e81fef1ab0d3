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

test("without cargo, a C compiler or luck the build does without the bridge, and says why and what to do; under CI=true it fails", async () => {
	using place = folder();
	const script = `import { BridgeBuildError } from ${JSON.stringify(join(import.meta.dir, "../../scripts/build-bridge.ts"))};
		import { bringBridge, lackText } from ${JSON.stringify(join(import.meta.dir, "../../scripts/build.ts"))};
		const brought = await bringBridge();
		console.log(brought instanceof BridgeBuildError ? lackText(brought) : "with");`;
	const bring = (CI: string) => runTool([process.execPath, "-e", script], { PATH: place.path, CI, CC: "" });
	const none = await bring("");
	expect(none.code).toBe(0);
	expect(none.stdout).toContain("WITHOUT RUST PLUGINS: this dist/pgdog refuses every plugin");
	expect(none.stdout).toContain("cargo is not installed");
	expect(none.stdout).toMatch(/To have them: {2}curl .* \| sh .* && npm run build\n/);
	const strict = await bring("true");
	expect(strict.code).not.toBe(0);
	expect(strict.stderr).toContain("cargo is not installed");

	const tool = (name: string, text: string) =>
		writeFileSync(join(place.path, name), `#!/bin/sh\n${text}`, { mode: 0o755 });
	tool("cargo", "echo 'error: no network' >&2\nexit 101\n");
	expect((await bring("")).stdout).toMatch(
		/there is no C compiler \(cc\)[\s\S]*To have them: {2}.+ && npm run build\n/,
	);
	tool("cc", "exit 0\n");
	const failing = await bring("");
	expect(failing.code).toBe(0);
	// As it came, and again at the end.
	expect(failing.stderr).toContain("error: no network");
	expect(failing.stdout).toMatch(
		/cargo could not build the plugin bridge:\s+error: no network\s+Once that is mended: {2}npm run build\n/,
	);
	expect((await bring("true")).code).not.toBe(0);

	tool("cargo", "echo 'feature `edition2024` is required' >&2\nexit 101\n");
	expect((await bring("")).stdout).toMatch(/To have them: {2}curl .* && npm run build\n/);
	tool("rustup", "exit 0\n");
	expect((await bring("")).stdout).toContain("To have them:  rustup update && npm run build\n");
});

test("while cargo builds, its words pass as they come, and its silences are filled", async () => {
	using place = folder();
	const cargo = "#!/bin/sh\necho '   Compiling pg_query' >&2\nsleep 1.5\necho 'error: over' >&2\nexit 101\n";
	writeFileSync(join(place.path, "cargo"), cargo, { mode: 0o755 });
	writeFileSync(join(place.path, "cc"), "", { mode: 0o755 });
	const script = `import { buildBridgeAloud } from ${JSON.stringify(join(import.meta.dir, "../../scripts/build-bridge.ts"))};
		await buildBridgeAloud(300).catch((error) => console.log(error.message));`;
	const { stdout, stderr } = await runTool([process.execPath, "-e", script], {
		PATH: `${place.path}:${process.env.PATH}`,
	});
	expect(stderr).toMatch(/Compiling pg_query\n( {3}cargo is at work, \d s\n)+error: over\n/);
	expect(stdout).toBe("cargo could not build the plugin bridge:\nerror: over\n");
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

// The bridge inside a compiled executable, built as scripts/build.ts builds the proxy: with it, without it, and on machines
// where nothing can be written.

import { beforeAll, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { buildBridge } from "../../scripts/build-bridge.ts";
import { BUILD_TIMEOUT, buildFixture, describeWithCargo, FIXTURES, folder } from "./support.ts";

describeWithCargo("a compiled executable", () => {
	let place: string;
	let plugin: string;

	beforeAll(() => {
		place = folder();
		plugin = buildFixture("other_plugin");
		compile("with", [buildBridge() as string]);
		compile("without", []);
	}, BUILD_TIMEOUT);

	const compile = (name: string, embed: string[]) => {
		const flags = ["--compile", "--minify", "--sourcemap", "--bytecode", "--format=esm"];
		const command = [
			process.execPath,
			"build",
			...flags,
			join(FIXTURES, "process.ts"),
			...embed,
			"--outfile",
			join(place, name),
		];
		const { exitCode, stderr } = Bun.spawnSync(command, { cwd: place });
		if (exitCode !== 0) throw new Error(stderr.toString());
	};
	const start = (name: string, env: Record<string, string> = {}) => {
		const { exitCode, stdout, stderr } = Bun.spawnSync([join(place, name), plugin], { cwd: place, env });
		return { code: exitCode, out: stdout.toString(), log: stderr.toString() };
	};

	test("loads plugins with the bridge that it carries", () => {
		const { code, out } = start("with");
		expect(code).toBe(0);
		expect(JSON.parse(out)).toMatchObject({ shard: 42, plugin });
	});

	test("needs no folder to write to, and leaves nothing behind", () => {
		const temporary = join(place, "tmp");
		mkdirSync(temporary);
		for (const TMPDIR of [temporary, "/proc", "/nowhere"]) {
			expect(JSON.parse(start("with", { TMPDIR, BUN_TMPDIR: TMPDIR, XDG_RUNTIME_DIR: TMPDIR }).out)).toMatchObject({
				shard: 42,
			});
		}
		expect([...new Bun.Glob("**").scanSync({ cwd: temporary, onlyFiles: false, dot: true })]).toEqual([]);
	});

	test("built without cargo it says so", () => {
		const { code, log } = start("without");
		expect(code).toBe(1);
		expect(log).toContain(
			`plugin "${plugin}" failed to load: this build of PgDog has no support for Rust plugins (it was built without cargo); it is required, so PgDog does not start`,
		);
	});
});

// `npm run check`: the compiler in strict mode, the formatter and the linter, exports that nobody imports, the
// rules of the house (check/house.ts), and rustfmt and clippy over plugins/. All run, so that one run tells all, and side by side.

import { join } from "node:path";
import { hasCargo } from "./build-bridge.ts";

const root = join(import.meta.dir, "..");
const plugins = join(root, "plugins");

interface Check {
	name: string;
	command: string[];
	cwd?: string;
}

interface Outcome {
	name: string;
	said: string;
	code: number;
}

const bin = (name: string) => join(root, "node_modules", ".bin", name);

const CHECKS: Check[] = [
	{ name: "tsc", command: [bin("tsc"), "--noEmit"] },
	{ name: "biome check", command: [bin("biome"), "check", "--error-on-warnings"] },
	// It asks for Node in its first line, which need not be there.
	{ name: "knip", command: [process.execPath, bin("knip"), "--no-progress"] },
	{ name: "the rules of the house", command: [process.execPath, join(root, "scripts/check/house.ts")] },
];

/** In release, as the bridge is built: what it depends on need not be compiled again. */
const CLIPPY = ["cargo", "clippy", "--quiet", "--release", "--locked", "--workspace", "--all-targets"];

const RUST_CHECKS: Check[] = [
	{ name: "cargo fmt", command: ["cargo", "fmt", "--all", "--check"], cwd: plugins },
	{ name: "cargo clippy", command: [...CLIPPY, "--", "-D", "warnings"], cwd: plugins },
];

/** true when all are content. */
export async function check(): Promise<boolean> {
	const outcomes = [...CHECKS.map(run), ...rustChecks()];
	let clean = true;
	for (const outcome of outcomes) {
		const { name, said, code } = await outcome;
		if (code !== 0) process.stdout.write(said);
		console.log(`${name}: ${code === 0 ? "clean" : `exited ${code}`}`);
		clean &&= code === 0;
	}
	return clean;
}

async function run({ name, command, cwd = root }: Check): Promise<Outcome> {
	const child = Bun.spawn(command, {
		cwd,
		stdin: "ignore",
		stdout: "pipe",
		stderr: "pipe",
		env: process.stdout.isTTY ? { ...process.env, FORCE_COLOR: "1" } : process.env,
	});
	const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
	return { name, said: stdout + stderr, code };
}

/** Those for which there are tools here. Without cargo there are none, which CI=true does not allow. */
function rustChecks(): Promise<Outcome>[] {
	if (hasCargo()) return RUST_CHECKS.map(runWithComponent);
	const strict = process.env.CI === "true";
	const said = `cargo is not installed: plugins/ is not checked${strict ? ", which CI=true does not allow" : ""}\n`;
	if (!strict) process.stdout.write(said);
	return strict ? [Promise.resolve({ name: "cargo", said, code: 1 })] : [];
}

/** Clippy and rustfmt are parts of a toolchain that some do without. */
async function runWithComponent(check: Check): Promise<Outcome> {
	const [cargo, component] = check.command as [string, string];
	const probe = await run({ name: check.name, command: [cargo, component, "--version"], cwd: plugins });
	if (probe.code === 0) return run(check);
	console.log(`${check.name} is not installed, plugins/ is not checked by it: rustup component add clippy rustfmt`);
	return { ...check, said: "", code: 0 };
}

if (import.meta.main) process.exit((await check()) ? 0 : 1);

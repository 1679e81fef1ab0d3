// Builds what the tests of this folder load: the bridge, plugins as anybody would write them (fixtures/), forged libraries.
// Everything goes below plugins/target, which git ignores, and is built once.

import { describe, expect } from "bun:test";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildBridge, hasCargo } from "../../scripts/build-bridge.ts";
import type { HostDescription, PluginLog } from "../../src/plugin/abi.ts";
import { type Bridge, openBridge } from "../../src/plugin/bridge.ts";
import type { RouteInput } from "../../src/plugin/host.ts";
import { loadPlugins } from "../../src/plugin/loader.ts";
import { surroundings } from "../../src/plugin/resolve.ts";

/** A first build takes minutes on one core. */
export const BUILD_TIMEOUT = 900_000;
export const FIXTURES = join(import.meta.dir, "fixtures");
const PLUGINS = join(import.meta.dir, "../../plugins");
/** Not the bridge's: a plugin built elsewhere, with flags of its own, must load. */
const OUTSIDE = join(PLUGINS, "target/outside");

/** `describe` where cargo is; elsewhere says that it skips, and fails under CI=true. */
export function describeWithCargo(name: string, body: () => void): void {
	if (hasCargo()) {
		describe(name, body);
		return;
	}
	if (process.env.CI === "true") throw new Error(`${name}: cargo is needed and not installed`);
	console.warn(`skipped, cargo is not installed: ${name}`);
	describe.skip(name, body);
}

/** The guide's lines for a plugin outside of the workspace, on a machine without libclang. */
export function withoutLibclang(): string {
	const guide = readFileSync(join(PLUGINS, "README.md"), "utf8");
	const lines = /^```toml\n(\[patch\.crates-io\]\n[\s\S]*?)^```$/m.exec(guide)?.[1] ?? "";
	expect(lines).toContain("../pgdog/plugins/");
	return lines.replaceAll("../pgdog/plugins/", `${PLUGINS}/`);
}

/**
 * The versions that fixtures/ are built with, for a crate that has none of its own: what it depends on is compiled already, and is
 * not what a registry has since then.
 */
export function knownVersions(crate: string): void {
	copyFileSync(join(FIXTURES, "witness", "Cargo.lock"), join(crate, "Cargo.lock"));
}

export function run(command: string[], cwd: string, env: Record<string, string> = {}): string {
	const result = Bun.spawnSync(command, { cwd, env: { ...process.env, ...env }, stderr: "pipe", stdout: "pipe" });
	if (result.exitCode !== 0)
		throw new Error(`${command.join(" ")}: ${result.stderr.toString()}${result.stdout.toString()}`);
	return result.stdout.toString();
}

export function bridge(): Bridge {
	const file = buildBridge();
	if (file === null) throw new Error("no cargo");
	return openBridge({ file });
}

/** Kept as long as the process: cargo would say that nothing changed, but not before every other cargo of the folder is done. */
const built = new Set<string>();

function once(name: string, build: () => void): void {
	if (built.has(name)) return;
	build();
	built.add(name);
}

/** Runs `cargo build --release` in a crate of fixtures/; returns its library. */
export function buildFixture(name: string): string {
	const lock = readFileSync(join(PLUGINS, "Cargo.lock"), "utf8");
	const [, version = ""] = /name = "pg_query"\nversion = "([^"]+)"/.exec(lock) ?? [];
	// As the README says: else the plugin does not tell, and is warned of.
	const env = { CARGO_TARGET_DIR: OUTSIDE, PGDOG_PGQUERY_VERSION: version };
	once(name, () => run(["cargo", "build", "--release"], join(FIXTURES, name), env));
	return join(OUTSIDE, `release/lib${name}.so`);
}

/** Builds an example of plugins/. */
export function buildExample(name: string): string {
	// The whole workspace: a single package would build its dependencies anew, without the features that the bridge asks for.
	once("the workspace", () =>
		run(["cargo", "build", "--release", "--locked", "--workspace"], PLUGINS, {
			CARGO_TARGET_DIR: join(PLUGINS, "target"),
		}),
	);
	return join(PLUGINS, `target/release/lib${name}.so`);
}

/** Compiles fixtures/forged.rs: what its version symbols say, and symbols to leave out. */
export function forge(file: string, says: { rustc?: string; pgQuery?: string }, without: string[] = []): string {
	const env: Record<string, string> = {};
	if (says.rustc !== undefined) env.RUSTC_SAYS = says.rustc;
	if (says.pgQuery !== undefined) env.PG_QUERY_SAYS = says.pgQuery;
	const flags = without.flatMap((symbol) => ["--cfg", symbol]);
	run(
		[
			"rustc",
			"-O",
			"-Cpanic=abort",
			"--edition",
			"2024",
			"--crate-type",
			"cdylib",
			...flags,
			"-o",
			file,
			join(FIXTURES, "forged.rs"),
		],
		FIXTURES,
		env,
	);
	return file;
}

export function folder(): string {
	return mkdtempSync(join(tmpdir(), "pgdog-plugin-test-"));
}

/** A copy under another name: another file, so another library with state of its own. */
export function copy(file: string, to: string): string {
	mkdirSync(join(to, ".."), { recursive: true });
	copyFileSync(file, to);
	return to;
}

export class Lines implements PluginLog {
	readonly debugs: boolean;
	readonly lines: string[] = [];

	constructor(debugs = true) {
		this.debugs = debugs;
	}

	debug(message: string): void {
		if (this.debugs) this.lines.push(`DEBUG ${message}`);
	}
	info(message: string): void {
		this.lines.push(`INFO ${message}`);
	}
	warn(message: string): void {
		this.lines.push(`WARN ${message}`);
	}
	error(message: string): void {
		this.lines.push(`ERROR ${message}`);
	}
}

/** Loads by name or path, nothing required. */
export function load(library: Bridge | null, names: string[], log = new Lines()): HostDescription {
	const entries = names.map((name) => ({ name, required: false }));
	return loadPlugins(entries, library, { log, surroundings: { ...surroundings(), env: {} } });
}

/** A statement of the simple protocol on one shard with a primary. */
export function input(sql: string, more: Partial<RouteInput> = {}): RouteInput {
	return {
		sql,
		escapes: false,
		shards: 1,
		hasReplicas: false,
		hasPrimary: true,
		inTransaction: false,
		writeOverride: false,
		bind: null,
		bindStart: 0,
		bindEnd: 0,
		...more,
	};
}

/** The part of a Bind message that the host takes, written by other code than what reads it. */
export function bind(formats: number[], values: (string | Uint8Array | null)[], padding = 0): Partial<RouteInput> {
	const parts: Buffer[] = [Buffer.alloc(padding, 0xee)];
	const int16 = (value: number) => parts.push(Buffer.from([value >> 8, value & 255]));
	int16(formats.length);
	formats.forEach(int16);
	int16(values.length);
	for (const value of values) {
		const bytes = value === null ? null : Buffer.from(value as Uint8Array);
		const length = Buffer.alloc(4);
		length.writeInt32BE(bytes === null ? -1 : bytes.length);
		parts.push(length);
		if (bytes !== null) parts.push(bytes);
	}
	const end = Buffer.concat(parts).length;
	// Result format codes follow in a real message.
	int16(1);
	int16(1);
	return { bind: new Uint8Array(Buffer.concat(parts)), bindStart: padding, bindEnd: end };
}

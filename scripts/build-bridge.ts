// Builds plugins/bridge/ with cargo, for scripts/build.ts (which embeds the result in the executable) and for the tests.
// Without cargo there is no bridge, and the proxy refuses Rust plugins with a clear error. Run alone: bun scripts/build-bridge.ts

import { existsSync } from "node:fs";
import { join } from "node:path";

const PLUGINS = join(import.meta.dir, "../plugins");
const COMMAND = ["cargo", "build", "--release", "--locked", "--package", "pgdog-bridge"];

/** Of silence before a line says that cargo is still at work, ms: the parser's C files take it half a minute without a word. */
const SILENCE = 10_000;

/** Why there is no bridge, and what to do about it. */
export class BridgeBuildError extends Error {
	override readonly name = "BridgeBuildError";
	/** A command that helps, for a shell; undefined where `message` says it all. */
	readonly remedy: string | undefined;

	constructor(message: string, remedy?: string) {
		super(message);
		this.remedy = remedy;
	}
}

export function hasCargo(): boolean {
	return Bun.which("cargo") !== null;
}

/** Where cargo puts the bridge's library, built or not. */
export function bridgePath(): string {
	const suffix = process.platform === "darwin" ? "dylib" : "so";
	return join(PLUGINS, "target", "release", `libpgdog_bridge.${suffix}`);
}

function environment(): Record<string, string | undefined> {
	return { ...process.env, CARGO_TARGET_DIR: join(PLUGINS, "target") };
}

/** Rust as its makers install it; a distribution's may be too old. */
const RUSTUP = `curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . "$HOME/.cargo/env"`;

/** What has to be installed before cargo can do anything at all. */
export function missingTool(): BridgeBuildError | null {
	if (!hasCargo()) return new BridgeBuildError("cargo is not installed", RUSTUP);
	// Rust links with it, and PostgreSQL's parser is C.
	if (Bun.which("cc") === null && !process.env.CC) {
		const install =
			process.platform === "darwin" ? "xcode-select --install" : "sudo apt-get install -y build-essential";
		return new BridgeBuildError("there is no C compiler (cc)", install);
	}
	return null;
}

function failure(words: string): BridgeBuildError {
	// Debian's own package, say: it does not know the edition that the bridge is written in.
	const old = /edition.?20\d\d|requires rustc|lock file version/.test(words);
	const remedy = Bun.which("rustup") === null ? RUSTUP : "rustup update";
	const message = `cargo could not build the plugin bridge:\n${words.trimEnd()}`;
	return new BridgeBuildError(message, old ? remedy : undefined);
}

/** Libraries of the example plugins of these names, built as they would be for any proxy; cargo's words are shown. */
export function buildExamples(names: string[]): string[] {
	// The whole workspace: a single package would build its dependencies anew, without the features that the bridge asks for.
	const { success } = Bun.spawnSync(["cargo", "build", "--release", "--locked", "--workspace"], {
		cwd: PLUGINS,
		env: environment(),
		stdout: "inherit",
		stderr: "inherit",
	});
	if (!success) throw new Error("the example plugins do not build");
	const suffix = process.platform === "darwin" ? "dylib" : "so";
	return names.map((name) => join(PLUGINS, "target", "release", `lib${name}.${suffix}`));
}

/**
 * Path of the bridge's library, built anew when its sources, the compiler or the flags changed; null without cargo. Says nothing.
 * @throws BridgeBuildError with cargo's words when cargo is there and fails
 */
export function buildBridge(): string | null {
	if (!hasCargo()) return null;
	// The working directory matters: cargo reads plugins/.cargo/config.toml from there.
	const { exitCode, stderr } = Bun.spawnSync(COMMAND, {
		cwd: PLUGINS,
		env: environment(),
		stdout: "ignore",
		stderr: "pipe",
	});
	if (exitCode !== 0) throw failure(stderr.toString());
	return bridgePath();
}

/**
 * The same for somebody who waits: shows what cargo says as it comes.
 * @throws BridgeBuildError when something is missing or cargo fails; the end of its words is in the message too
 */
export async function buildBridgeAloud(silence = SILENCE): Promise<string> {
	const missing = missingTool();
	if (missing !== null) throw missing;
	if (!existsSync(bridgePath())) {
		console.error("building the plugin bridge: the first time cargo compiles PostgreSQL's parser, for a minute or two");
	}
	const terminal = {
		CARGO_TERM_COLOR: "always",
		CARGO_TERM_PROGRESS_WHEN: "always",
		CARGO_TERM_PROGRESS_WIDTH: String(process.stderr.columns || 80),
	};
	const cargo = Bun.spawn(COMMAND, {
		cwd: PLUGINS,
		env: process.stderr.isTTY ? { ...environment(), ...terminal } : environment(),
		stdin: "ignore",
		stdout: "ignore",
		stderr: "pipe",
	});
	const words = await passOn(cargo.stderr, process.stderr.isTTY ? Number.POSITIVE_INFINITY : silence);
	if ((await cargo.exited) !== 0) throw failure(words);
	return bridgePath();
}

/** Writes `output` to ours as it comes, and a line after each `silence` of ms. Returns the end of it. */
async function passOn(output: ReadableStream<Uint8Array<ArrayBuffer>>, silence: number): Promise<string> {
	const decoder = new TextDecoder();
	const started = performance.now();
	let last = started;
	let end = "";
	const heart = setInterval(() => {
		if (performance.now() - last < silence) return;
		last = performance.now();
		console.error(`   cargo is at work, ${((last - started) / 1000).toFixed(0)} s`);
	}, 200);
	try {
		for await (const chunk of output) {
			process.stderr.write(chunk);
			last = performance.now();
			end = (end + decoder.decode(chunk, { stream: true })).slice(-8_000);
		}
	} finally {
		clearInterval(heart);
	}
	// What it compiled is no news at the end; a bar that was drawn over is none either.
	const lines = Bun.stripANSI(end).split(/\r\n|\r|\n/);
	return lines
		.filter((line) => line.trim() !== "" && !/^\s*(Compiling|Building|Download|Updating)/.test(line))
		.join("\n");
}

if (import.meta.main) {
	try {
		console.log(await buildBridgeAloud());
	} catch (error) {
		if (!(error instanceof BridgeBuildError)) throw error;
		console.error(error.remedy === undefined ? error.message : `${error.message}: ${error.remedy}`);
		process.exit(1);
	}
}

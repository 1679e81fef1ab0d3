// Builds plugins/bridge/ with cargo, for scripts/build.ts (which embeds the result in the executable) and for the tests.
// Without cargo there is no bridge, and the proxy refuses Rust plugins with a clear error. Run alone: bun scripts/build-bridge.ts

import { join } from "node:path";

const PLUGINS = join(import.meta.dir, "../plugins");

/** Why there is no bridge. */
export class BridgeBuildError extends Error {
	override readonly name = "BridgeBuildError";
}

export function hasCargo(): boolean {
	return Bun.which("cargo") !== null;
}

/** Where cargo puts the bridge's library, built or not. */
export function bridgePath(): string {
	const suffix = process.platform === "darwin" ? "dylib" : "so";
	return join(PLUGINS, "target", "release", `libpgdog_bridge.${suffix}`);
}

/**
 * Path of the bridge's library, built anew when its sources, the compiler or the flags changed; null without cargo.
 * @throws BridgeBuildError with cargo's words when cargo is there and fails (libclang missing, no network)
 */
export function buildBridge(): string | null {
	if (!hasCargo()) return null;
	// The working directory matters: cargo reads plugins/.cargo/config.toml from there.
	const { exitCode, stderr } = Bun.spawnSync(["cargo", "build", "--release", "--locked", "--package", "pgdog-bridge"], {
		cwd: PLUGINS,
		env: { ...process.env, CARGO_TARGET_DIR: join(PLUGINS, "target") },
		stdout: "ignore",
		stderr: "pipe",
	});
	if (exitCode !== 0) throw new BridgeBuildError(`the plugin bridge does not build:\n${stderr.toString()}`);
	return bridgePath();
}

if (import.meta.main) {
	const library = buildBridge();
	console.log(library ?? "cargo is not installed: this build will refuse Rust plugins");
}

// Writes dist/pgdog, the one executable: `npm run build`. The worker's file is an entry of its own, embedded beside main, and
// so is the plugin bridge where cargo is there to build it. Without it the proxy refuses Rust plugins, and does all else;
// under CI=true that is not good enough, and the build fails.

import { existsSync, mkdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import manifest from "../package.json" with { type: "json" };
import { type Bridge, openBridge } from "../src/plugin/bridge.ts";
import { BridgeBuildError, bridgePath, buildBridge, hasCargo } from "./build-bridge.ts";

const root = join(import.meta.dir, "..");

/** The commit it is built from, `-dirty` when the tree differs from it, `unknown` outside of a git checkout. */
export function gitHash(folder: string): string {
	// The checkout may belong to another user (CI as root): git refuses that unless told.
	const git = (...args: string[]) => {
		const { success, stdout } = Bun.spawnSync(["git", "-c", "safe.directory=*", ...args], {
			cwd: folder,
			stderr: "ignore",
		});
		return success ? stdout.toString().trim() : undefined;
	};
	try {
		const hash = git("rev-parse", "--short=8", "HEAD");
		if (!hash) return "unknown";
		return git("status", "--porcelain") ? `${hash}-dirty` : hash;
	} catch {
		return "unknown";
	}
}

/** The bridge's library, and what it says of itself; null when this build has to do without. */
export function bringBridge(): { file: string; bridge: Bridge } | null {
	if (hasCargo() && !existsSync(bridgePath()))
		console.error("building the plugin bridge: the first time takes minutes");
	try {
		const file = buildBridge();
		if (file !== null) return { file, bridge: openBridge({ file }) };
		if (process.env.CI === "true") throw new BridgeBuildError("cargo is not installed, and CI=true builds no half");
		console.error("warning: cargo is not installed: this build will refuse Rust plugins");
	} catch (error) {
		if (process.env.CI === "true" || !(error instanceof Error)) throw error;
		console.error(error.message);
		console.error("warning: the plugin bridge does not build, see above: this build will refuse Rust plugins");
	}
	return null;
}

async function build(): Promise<void> {
	const started = performance.now();
	const embedded = bringBridge();
	const output = join(root, "dist", "pgdog");
	// Built aside and renamed: a running dist/pgdog cannot be written to, and a half-written one must not be found.
	const aside = join(root, "dist", `.build-${process.pid}`);
	mkdirSync(aside, { recursive: true });
	try {
		await Bun.build({
			entrypoints: [
				join(root, "src", "main.ts"),
				join(root, "src", "worker-thread.ts"),
				// Under a name with a hash: src/plugin/bridge.ts finds it.
				...(embedded === null ? [] : [embedded.file]),
			],
			root: join(root, "src"),
			target: "bun",
			format: "esm",
			minify: true,
			// Compressed into the executable, so that a stack names the line in src; the files beside it are dropped below.
			sourcemap: "linked",
			bytecode: true,
			define: {
				PGDOG_VERSION: JSON.stringify(manifest.version),
				PGDOG_GIT_HASH: JSON.stringify(gitHash(root)),
				PGDOG_RUSTC: JSON.stringify(embedded?.bridge.rustc ?? ""),
				PGDOG_PG_QUERY: JSON.stringify(embedded?.bridge.pgQuery ?? ""),
			},
			compile: {
				outfile: join(aside, "pgdog"),
				// The working directory is not ours: a bunfig.toml there could preload code, a .env could change settings.
				autoloadBunfig: false,
				autoloadDotenv: false,
				autoloadTsconfig: false,
				autoloadPackageJson: false,
			},
		});
		renameSync(join(aside, "pgdog"), output);
	} finally {
		rmSync(aside, { recursive: true, force: true });
	}
	const megabytes = (statSync(output).size / 1e6).toFixed(0);
	const plugins = embedded === null ? "without Rust plugins" : `with ${embedded.bridge.rustc}`;
	console.error(`built dist/pgdog (${megabytes} MB, ${plugins}) in ${(performance.now() - started).toFixed(0)} ms`);
}

if (import.meta.main) {
	try {
		await build();
	} catch (error) {
		const problems = error instanceof AggregateError ? error.errors : [error];
		for (const problem of problems) console.error(problem instanceof BridgeBuildError ? problem.message : problem);
		process.exit(1);
	}
}

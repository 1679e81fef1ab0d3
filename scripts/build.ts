// Writes dist/pgdog, the one executable: `npm run build`. The worker's file is an entry of its own, embedded beside main, and
// so is the plugin bridge where cargo is there to build it. Without it the proxy refuses Rust plugins, and does all else: the
// build's last words say so. Under CI=true that is not good enough, and the build fails.

import { mkdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import manifest from "../package.json" with { type: "json" };
import { type Bridge, openBridge } from "../src/plugin/bridge.ts";
import { BridgeBuildError, buildBridgeAloud } from "./build-bridge.ts";

const root = join(import.meta.dir, "..");

/** Beside the executable while it has no bridge. scripts/setup.mjs builds again once there is a cargo, scripts/start.ts shows it. */
export const LACK_FILE = "without-plugins.txt";

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

/** The bridge's library, and what it says of itself; or why this build has to do without. Under CI=true that is thrown. */
export async function bringBridge(): Promise<{ file: string; bridge: Bridge } | BridgeBuildError> {
	try {
		const file = await buildBridgeAloud();
		return { file, bridge: openBridge({ file }) };
	} catch (error) {
		if (process.env.CI === "true" || !(error instanceof Error)) throw error;
		return error instanceof BridgeBuildError ? error : new BridgeBuildError(error.message);
	}
}

/** What a build without the bridge lacks, why, and the command that makes it whole. */
export function lackText({ message, remedy }: BridgeBuildError): string {
	const commands = remedy === undefined ? "npm run build" : `${remedy} && npm run build`;
	const then = remedy === undefined ? "Once that is mended" : "To have them";
	return `WITHOUT RUST PLUGINS: this dist/pgdog refuses every plugin; all else is there.
  Why:  ${message.replaceAll("\n", "\n        ")}
  ${then}:  ${commands}
`;
}

async function build(): Promise<void> {
	const started = performance.now();
	const brought = await bringBridge();
	const embedded = brought instanceof BridgeBuildError ? null : brought;
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
	// The last thing that a build says. Kept for `npm start`, whose own lines come after it.
	const lack = join(root, "dist", LACK_FILE);
	if (brought instanceof BridgeBuildError) {
		writeFileSync(lack, lackText(brought));
		console.error(`\n${lackText(brought)}`);
	} else rmSync(lack, { force: true });
}

if (import.meta.main) {
	try {
		await build();
	} catch (error) {
		const problems = error instanceof AggregateError ? error.errors : [error];
		for (const problem of problems) {
			console.error(problem instanceof BridgeBuildError ? problem.message : problem);
			if (problem instanceof BridgeBuildError && problem.remedy) console.error(`To mend it: ${problem.remedy}`);
		}
		process.exit(1);
	}
}

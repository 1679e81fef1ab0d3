// Writes dist/pgdog, the one executable: `npm run build`. The worker's file is an entry of its own, embedded beside main.

import { mkdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import manifest from "../package.json" with { type: "json" };

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

async function build(): Promise<void> {
	const started = performance.now();
	const output = join(root, "dist", "pgdog");
	// Built aside and renamed: a running dist/pgdog cannot be written to, and a half-written one must not be found.
	const aside = join(root, "dist", `.build-${process.pid}`);
	mkdirSync(aside, { recursive: true });
	try {
		await Bun.build({
			entrypoints: [join(root, "src", "main.ts"), join(root, "src", "worker-thread.ts")],
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
	console.error(`built dist/pgdog (${megabytes} MB) in ${(performance.now() - started).toFixed(0)} ms`);
}

if (import.meta.main) {
	try {
		await build();
	} catch (error) {
		for (const problem of error instanceof AggregateError ? error.errors : [error]) console.error(problem);
		process.exit(1);
	}
}

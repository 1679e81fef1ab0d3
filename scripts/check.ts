// `npm run check`: the compiler in strict mode, the formatter and the linter. Both run, so that one run tells all.

import { join } from "node:path";

const root = join(import.meta.dir, "..");

/** true when both are content. */
export async function check(): Promise<boolean> {
	const commands = [
		["tsc", "--noEmit"],
		["biome", "check", "--error-on-warnings"],
	];
	let clean = true;
	for (const [name, ...args] of commands) {
		const child = Bun.spawn([join(root, "node_modules", ".bin", name as string), ...args], {
			cwd: root,
			stdin: "ignore",
			stdout: "inherit",
			stderr: "inherit",
		});
		const code = await child.exited;
		console.log(`${[name, ...args].join(" ")}: ${code === 0 ? "clean" : `exited ${code}`}`);
		clean &&= code === 0;
	}
	return clean;
}

if (import.meta.main) process.exit((await check()) ? 0 : 1);

// The line above a table of figures: when, on what, with which versions.

import { cpus, release, totalmem } from "node:os";

export function machine(versions: Record<string, string>, how: string): string {
	const all = cpus();
	const memory = (totalmem() / 2 ** 30).toFixed(0);
	const programs = Object.entries({ ...versions, Bun: Bun.version }).map(([name, version]) =>
		version.toLowerCase().startsWith(name.toLowerCase()) ? version : `${name} ${version}`,
	);
	const date = new Date().toISOString().slice(0, 10);
	return `${date}, ${all.length} × ${all[0]?.model ?? "?"}, ${memory} GiB, Linux ${release()}; ${programs.join(", ")}. ${how}.\n`;
}

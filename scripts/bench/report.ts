// The bench's tables: medians of each cell, ratios to PgBouncer taken round by round (a busy second then harms both), and
// whether the targets of the project are met.

import type { Cell, Mode, Sample } from "./measure.ts";

interface Target {
	figure: "CPU" | "tps";
	contestant: string;
	modes: readonly Mode[];
	/** Said in the table where the contestant's name would not be understood. */
	where: string;
	sign: "≤" | "≥";
	/** Times PgBouncer's. */
	limit: number;
}

const ALL: readonly Mode[] = ["simple", "extended", "prepared"];

/** What the project has set itself, for ten clients and more. */
const TARGETS: readonly Target[] = [
	{ figure: "CPU", contestant: "workers=1", modes: ALL, where: "", sign: "≤", limit: 1.1 },
	{ figure: "tps", contestant: "workers=2", modes: ALL, where: "", sign: "≥", limit: 1 },
	{ figure: "CPU", contestant: "replicas=1", modes: ["prepared"], where: ", replicas", sign: "≤", limit: 1.15 },
	{ figure: "CPU", contestant: "replicas=1", modes: ["simple"], where: ", replicas", sign: "≤", limit: 1.35 },
];

export function median(values: number[]): number {
	const sorted = values.toSorted((a, b) => a - b);
	const middle = sorted.length >> 1;
	const upper = sorted[middle] ?? Number.NaN;
	return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** The figure `of` set against PgBouncer's of the same round and cell; against `extended` where it has no `prepared`. */
export function ratio(samples: Sample[], cell: Cell, name: string, of: (sample: Sample) => number): number {
	const at = (who: string, mode: string, round: number) =>
		samples.find((s) => s.name === who && s.mode === mode && s.clients === cell.clients && s.round === round);
	const ratios: number[] = [];
	for (const sample of samples) {
		if (sample.name !== name || sample.mode !== cell.mode || sample.clients !== cell.clients) continue;
		const base =
			at("pgbouncer", cell.mode, sample.round) ??
			(cell.mode === "prepared" ? at("pgbouncer", "extended", sample.round) : undefined);
		if (base) ratios.push(of(sample) / of(base));
	}
	return median(ratios);
}

/** Markdown: one line for each cell and contestant, then the targets. */
export function report(samples: Sample[], cells: Cell[]): string {
	const names = [...new Set(samples.map((sample) => sample.name))].sort();
	const lines = [
		"| mode | clients | | tps | p50 µs | p99 µs | CPU µs/tx | tps ÷ PgBouncer | p50 ÷ | p99 ÷ | CPU ÷ |",
		"|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
	];
	const targets: string[] = [];
	for (const cell of measured(samples, cells)) {
		for (const name of names) {
			const own = samples.filter((s) => s.name === name && s.mode === cell.mode && s.clients === cell.clients);
			if (own.length === 0) continue;
			const middle = (of: (sample: Sample) => number) => median(own.map(of));
			const against = (of: (sample: Sample) => number) =>
				name === "pgbouncer" ? Number.NaN : ratio(samples, cell, name, of);
			const cpu = (sample: Sample) => sample.cpu ?? Number.NaN;
			const cpuRatio = against(cpu);
			const tpsRatio = against((s) => s.tps);
			lines.push(
				`| ${[
					cell.mode,
					cell.clients,
					name,
					number(
						middle((s) => s.tps),
						0,
					),
					number(
						middle((s) => s.p50),
						0,
					),
					number(
						middle((s) => s.p99),
						0,
					),
					number(middle(cpu), 1),
					number(tpsRatio, 2),
					number(
						against((s) => s.p50),
						2,
					),
					number(
						against((s) => s.p99),
						2,
					),
					number(cpuRatio, 2),
				].join(" | ")} |`,
			);
			const place = `${cell.mode}, ${cell.clients} clients`;
			for (const { figure, contestant, modes, where, sign, limit } of TARGETS) {
				if (contestant !== name || cell.clients < 10 || !modes.includes(cell.mode)) continue;
				const value = figure === "CPU" ? cpuRatio : tpsRatio;
				targets.push(verdict(`${figure}, ${place}${where}`, value, sign, limit));
			}
		}
	}
	if (names.some((name) => name.startsWith("replicas="))) {
		lines.push(
			"",
			"replicas=N: N workers that spread reads over the primary and two replicas; the others have the primary alone.",
		);
	}
	if (
		samples.some((s) => s.name === "pgbouncer") &&
		!samples.some((s) => s.name === "pgbouncer" && s.mode === "prepared")
	) {
		lines.push(
			"",
			"This PgBouncer has no prepared statements in transaction mode: ratios there are to its figure for `extended`.",
		);
	}
	const judged = targets.filter(Boolean);
	if (judged.length > 0) lines.push("", "| target | ratio | |", "|---|---:|---|", ...judged);
	return lines.join("\n");
}

/** `cells`, and those that were run beside them. */
function measured(samples: Sample[], cells: Cell[]): Cell[] {
	const all = [...cells];
	for (const { mode, clients } of samples) {
		if (!all.some((cell) => cell.mode === mode && cell.clients === clients)) all.push({ mode, clients });
	}
	return all;
}

function verdict(what: string, value: number, sign: "≤" | "≥", limit: number): string {
	if (Number.isNaN(value)) return "";
	const met = sign === "≤" ? value <= limit : value >= limit;
	return `| ${what} ${sign} ${limit} × PgBouncer | ${value.toFixed(2)} | ${met ? "met" : "**missed**"} |`;
}

function number(value: number, digits: number): string {
	return Number.isNaN(value) ? "" : value.toFixed(digits);
}

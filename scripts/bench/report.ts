// The bench's tables: medians of each cell, ratios to PgBouncer taken round by round (a busy second then harms both), and
// whether the targets of the project are met.

import type { Cell, Mode, Sample } from "./measure.ts";

interface Target {
	figure: "CPU" | "tps";
	contestant: string;
	/** Whom the figure is set against; PgBouncer when it is not said. */
	against?: string;
	modes: readonly Mode[];
	/** The fewest clients that it is for. */
	clients: number;
	/** Said in the table where the contestant's name would not be understood. */
	where: string;
	sign: "≤" | "≥";
	/** Times the other's. */
	limit: number;
}

const ALL: readonly Mode[] = ["simple", "extended", "prepared"];
const PGBOUNCER = "pgbouncer";
const ONE_WORKER = "workers=1";

const atMost = (limit: number) => ({ figure: "CPU", clients: 10, sign: "≤", limit }) as const;
const REPLICAS = { contestant: "replicas=1", where: ", replicas" };
const PLUGIN = { contestant: "plugin=1", where: ", plugin" };
const SHARDS = { contestant: "shards=1", where: ", two shards", against: ONE_WORKER };
const TWO_WORKERS = { contestant: "workers=2", where: ", two workers", modes: ALL };

/** What the project has set itself. A second worker is to cost little more than the first, and to serve many no slower. */
const TARGETS: readonly Target[] = [
	{ contestant: ONE_WORKER, modes: ALL, where: "", ...atMost(0.95) },
	{ ...REPLICAS, modes: ["simple"], ...atMost(1.15) },
	{ ...REPLICAS, modes: ["extended"], ...atMost(1) },
	{ ...REPLICAS, modes: ["prepared"], ...atMost(0.9) },
	{ ...PLUGIN, modes: ["simple"], ...atMost(1.25) },
	{ ...PLUGIN, modes: ["extended", "prepared"], ...atMost(1) },
	{ ...TWO_WORKERS, against: ONE_WORKER, ...atMost(1.1) },
	{ ...SHARDS, modes: ["simple"], ...atMost(2.2) },
	{ ...TWO_WORKERS, figure: "tps", clients: 50, sign: "≥", limit: 1 },
	{ contestant: "tls=1", where: ", TLS", against: "pgbouncer-tls", modes: ["prepared"], ...atMost(0.85), clients: 50 },
];

/** What the table's reader is told of contestants by the beginning of their names. */
const NOTES = [
	[
		"replicas=",
		"replicas=N: N workers that spread reads over the primary and two replicas; the others have the primary alone.",
	],
	["plugin=", "plugin=N: N workers with a plugin that looks at every table in the tree of each statement."],
	["shards=", "shards=N: N workers before two shards, databases of one server, both of which are asked for every row."],
	[
		"tls=",
		"tls=N: N workers with clients that speak TLS, as pgbouncer-tls has; the columns set both against PgBouncer without.",
	],
	["sockets=", "sockets=N: N workers that reach the primary by its Unix socket; the others by its port."],
] as const;

export function median(values: number[]): number {
	const sorted = values.toSorted((a, b) => a - b);
	const middle = sorted.length >> 1;
	const upper = sorted[middle] ?? Number.NaN;
	return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/**
 * The figure `of` set against another's, PgBouncer's when it is not said, of the same round and cell; against its `extended` where
 * it has no `prepared`.
 */
export function ratio(
	samples: Sample[],
	cell: Cell,
	name: string,
	of: (sample: Sample) => number,
	against = PGBOUNCER,
): number {
	const at = (who: string, mode: string, round: number) =>
		samples.find((s) => s.name === who && s.mode === mode && s.clients === cell.clients && s.round === round);
	const ratios: number[] = [];
	for (const sample of samples) {
		if (sample.name !== name || sample.mode !== cell.mode || sample.clients !== cell.clients) continue;
		const base =
			at(against, cell.mode, sample.round) ??
			(cell.mode === "prepared" ? at(against, "extended", sample.round) : undefined);
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
				name === PGBOUNCER ? Number.NaN : ratio(samples, cell, name, of);
			const cpu = (sample: Sample) => sample.cpu ?? Number.NaN;
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
					number(
						against((s) => s.tps),
						2,
					),
					number(
						against((s) => s.p50),
						2,
					),
					number(
						against((s) => s.p99),
						2,
					),
					number(against(cpu), 2),
				].join(" | ")} |`,
			);
			const place = `${cell.mode}, ${cell.clients} clients`;
			for (const target of TARGETS) {
				if (target.contestant !== name || cell.clients < target.clients || !target.modes.includes(cell.mode)) continue;
				const of = target.figure === "CPU" ? cpu : (s: Sample) => s.tps;
				targets.push(verdict(target, place, ratio(samples, cell, name, of, target.against)));
			}
		}
	}
	for (const [kind, sentence] of NOTES) if (names.some((name) => name.startsWith(kind))) lines.push("", sentence);
	if (
		samples.some((s) => s.name === PGBOUNCER) &&
		!samples.some((s) => s.name === PGBOUNCER && s.mode === "prepared")
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

function verdict({ figure, where, sign, limit, against }: Target, place: string, value: number): string {
	if (Number.isNaN(value)) return "";
	const met = sign === "≤" ? value <= limit : value >= limit;
	const other = against === undefined ? "PgBouncer" : against === ONE_WORKER ? "one worker" : "PgBouncer's with TLS";
	return `| ${figure}, ${place}${where} ${sign} ${limit} × ${other} | ${value.toFixed(2)} | ${met ? "met" : "**missed**"} |`;
}

function number(value: number, digits: number): string {
	return Number.isNaN(value) ? "" : value.toFixed(digits);
}

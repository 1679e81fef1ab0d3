// The Markdown that `npm run failover` prints: what clients saw of a failover.

import { type FailoverFigures, PHASES, SLACK } from "../../test/support/failover.ts";

export function failoverTable(figures: FailoverFigures): string {
	const { writeGap, readGap, stall, lsnCheckInterval } = figures;
	const longest = (gap: typeof writeGap) => Math.max(...PHASES.map((phase) => gap[phase]));
	const lines = [
		`${figures.clients} clients that write and read, ${figures.readers} that only read, lsn_check_interval ${lsnCheckInterval} ms, ${figures.writes} writes, ${figures.reads} reads.`,
		"",
		`Longest gap a client saw: ${ms(longest(writeGap))} between two writes, ${ms(longest(readGap))} between two reads.`,
		"",
		"| longest gap of one client that ended | writes | reads | clients stood still themselves |",
		"|---|---:|---:|---:|",
		...[
			["before the primary was killed", "before"] as const,
			["after that, before its return", "failover"] as const,
			["after its return as a second primary", "return"] as const,
		].map(([when, phase]) => `| ${when} | ${ms(writeGap[phase])} | ${ms(readGap[phase])} | ${ms(stall[phase])} |`),
		"",
		"| | measured | must be |",
		"|---|---:|---:|",
		`| promotion done to the first write there | ${ms(figures.firstWrite)} | ≤ ${ms(lsnCheckInterval + SLACK)} |`,
		`| promotion done to the first write of the last client | ${ms(figures.lastClient)} | ≤ ${ms(figures.limit)} |`,
		`| writes to the old primary after its return | ${figures.writesToOld} | 0 |`,
		`| writes done twice | ${figures.doubled} | 0 |`,
		`| writes confirmed by the new primary and not there | ${figures.lost} | 0 |`,
		`| reads answered by the old primary after its return | ${figures.readsFromOld} | |`,
		`| writes confirmed by the old one that no replica had received | ${figures.unreplicated} | |`,
		"",
	];
	if (figures.errors.length === 0) lines.push("No client got an error.");
	else {
		lines.push("| errors | before | failover | return | the first one |", "|---|---:|---:|---:|---|");
		for (const { state, times, message } of figures.errors) {
			const text = message.replaceAll("|", "\\|").replaceAll("\n", " ");
			lines.push(`| ${state} | ${times.before} | ${times.failover} | ${times.return} | ${text} |`);
		}
	}
	return lines.join("\n");
}

function ms(value: number | undefined): string {
	return value === undefined ? "never" : `${value.toFixed(0)} ms`;
}

// One pgbench run against one contestant: throughput, latency from its log, CPU of the proxy from /proc.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { requireTool, runTool } from "../../test/support/tools.ts";
import { type Contestant, DATABASE, USER } from "./contestants.ts";

export type Mode = "simple" | "extended" | "prepared";

export interface Cell {
	mode: Mode;
	clients: number;
}

export interface Sample extends Cell {
	round: number;
	name: string;
	/** Transactions a second, without the time to connect. */
	tps: number;
	/** Latency, microseconds. */
	p50: number;
	p99: number;
	/** CPU microseconds of the proxy's process for each transaction, user and kernel; undefined for the direct connection. */
	cpu: number | undefined;
}

/** The kernel counts in hundredths of a second on every Linux that Debian ships (getconf CLK_TCK). */
const TICK_US = 10_000;

/** `script`: a pgbench script instead of its built-in SELECT. Throws when pgbench fails or reports failed transactions. */
export async function measure(
	contestant: Contestant,
	cell: Cell,
	round: number,
	seconds: number,
	script?: string,
): Promise<Sample> {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-bench-"));
	try {
		const before = cpuTime(contestant.pid);
		const result = await runTool(
			[
				...[
					requireTool("pgbench"),
					"-n",
					...(script === undefined ? ["-S"] : ["-f", script]),
					"-M",
					cell.mode,
					"-T",
					String(seconds),
				],
				...["-c", String(cell.clients), "-j", String(Math.min(cell.clients, 2))],
				// A tenth is enough for a 99th percentile, and writing all would slow the client that shares the machine.
				...["-l", "--sampling-rate=0.1", `--log-prefix=${join(folder, "log")}`],
				...["-h", "127.0.0.1", "-p", String(contestant.port), "-U", USER, DATABASE],
			],
			{ PGSSLMODE: contestant.encrypts ? "require" : "disable" },
			(seconds + 60) * 1000,
		);
		const after = cpuTime(contestant.pid);
		const figure = (pattern: RegExp) => Number(pattern.exec(result.stdout)?.[1]);
		const transactions = figure(/number of transactions actually processed: (\d+)/);
		const failed = figure(/number of failed transactions: (\d+)/);
		if (result.code !== 0 || failed > 0 || /aborted/.test(result.stderr)) {
			throw new Error(`pgbench against ${contestant.name} exited ${result.code}\n${result.stdout}${result.stderr}`);
		}
		const latencies = readLatencies(folder);
		return {
			...cell,
			round,
			name: contestant.name,
			tps: figure(/tps = ([\d.]+)/),
			p50: percentile(latencies, 0.5),
			p99: percentile(latencies, 0.99),
			cpu: contestant.pid === undefined ? undefined : (after - before) / transactions,
		};
	} finally {
		rmSync(folder, { recursive: true, force: true });
	}
}

/** Microseconds of CPU that a process and its threads have used (proc(5), /proc/pid/stat: utime and stime). */
function cpuTime(pid: number | undefined): number {
	if (pid === undefined) return 0;
	const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
	// The name in parentheses may hold spaces; what follows begins with the third field.
	const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
	return (Number(fields[11]) + Number(fields[12])) * TICK_US;
}

/** Sorted microseconds: the third column of pgbench's per-transaction log. */
function readLatencies(folder: string): Float64Array {
	const all: number[] = [];
	for (const file of readdirSync(folder)) {
		for (const line of readFileSync(join(folder, file), "utf8").split("\n")) {
			const time = line.split(" ", 3)[2];
			if (time) all.push(Number(time));
		}
	}
	return Float64Array.from(all).sort();
}

function percentile(sorted: Float64Array, share: number): number {
	return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

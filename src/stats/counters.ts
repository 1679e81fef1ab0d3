// Counters that their owners write and the main thread reads. One row for each (pool, worker) in shared memory; a row
// has one writer, so plain stores are enough. The admin database shows their sums.

/** Columns of a row, in the order of SHOW STATS. Times in milliseconds. */
export const enum Stat {
	xact_count,
	query_count,
	server_assignment_count,
	received,
	sent,
	xact_time,
	idle_xact_time,
	query_time,
	wait_time,
	parse_count,
	bind_count,
	close_count,
	errors,
	cleaned,
	rollbacks,
	connect_time,
	connect_count,
	healthchecks,
	/** Servers by what they do now, and clients that wait: gauges, refreshed by the worker's janitor. */
	sv_idle,
	sv_active,
	sv_idle_xact,
	cl_waiting,
	/** When the client that waits longest began to (ms since the epoch), 0 when none waits. */
	oldest_wait,
	force_closed,
	re_synced,
	/** Attempts to log in to the server: one for each password that was tried. */
	auth_attempts,
	length,
}

export class Counters {
	readonly memory: SharedArrayBuffer;
	private readonly workers: number;
	private readonly all: Float64Array;

	/** @param memory what another thread's Counters made; a new one by default */
	constructor(pools: number, workers: number, memory?: SharedArrayBuffer) {
		this.workers = workers;
		this.memory = memory ?? new SharedArrayBuffer(pools * workers * Stat.length * 8);
		this.all = new Float64Array(this.memory);
	}

	/** The row that one worker writes for one pool. */
	row(slot: number, worker: number): Float64Array {
		return new Float64Array(this.memory, (slot * this.workers + worker) * Stat.length * 8, Stat.length);
	}

	/** The pool is no more, and nobody writes in its rows. */
	clear(slot: number): void {
		const row = slot * this.workers * Stat.length;
		this.all.fill(0, row, row + this.workers * Stat.length);
	}

	/** The sum over workers; `oldest_wait` is the earliest. */
	sum(slot: number): Float64Array {
		const total = new Float64Array(Stat.length);
		for (let worker = 0; worker < this.workers; worker++) {
			const row = (slot * this.workers + worker) * Stat.length;
			for (let i = 0; i < Stat.length; i++) {
				const value = this.all[row + i]!;
				if (i !== Stat.oldest_wait) total[i]! += value;
				else if (value > 0 && (total[i] === 0 || value < total[i]!)) total[i] = value;
			}
		}
		return total;
	}
}

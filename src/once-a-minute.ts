// A warning that would come with each failure comes once a minute and says how many there were: a log that repeats itself a
// thousand times a second hides what it says. One object for each kind of event; whoever has it asks `due` at each event, and
// writes the line when it is told to.

/** ms between two lines about the same thing. */
const PAUSE = 60_000;

const enum Word {
	/** Events that no line has told of yet. */
	untold,
	/** When the last line was written, in ticks of `TICK`; 0 before the first. */
	saidAt,
	COUNT,
}

/** Times are kept in tenths of a second: 31 bits of them are six years, and only differences count. */
const TICK = 100;

export class OnceAMinute {
	/** Words (int32) of shared memory that one object takes. */
	static readonly WORDS: number = Word.COUNT;
	private readonly words: Int32Array;

	/** @param words shared memory, zeros at first, where the line is to come once for all threads; memory of its own by default */
	constructor(words: Int32Array = new Int32Array(Word.COUNT)) {
		this.words = words;
	}

	/**
	 * Counts one more event.
	 * @param time `now()`
	 * @returns 0: say nothing; else how many times it has happened since the last line, this time included
	 */
	due(time: number): number {
		const { words } = this;
		Atomics.add(words, Word.untold, 1);
		const said = Atomics.load(words, Word.saidAt);
		// `| 1`: never 0, which means that no line was written yet.
		const tick = Math.trunc(time / TICK) | 1;
		if (said !== 0 && ((tick - said) | 0) * TICK < PAUSE) return 0;
		// Of threads that come here at once, one writes the line for all.
		if (Atomics.compareExchange(words, Word.saidAt, said, tick) !== said) return 0;
		return Atomics.exchange(words, Word.untold, 0);
	}
}

/** For the end of a line: "" for one time, else how many there were. */
export function timesText(times: number): string {
	return times > 1 ? ` (${times} times since this was last said)` : "";
}

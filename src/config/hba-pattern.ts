// Regular expressions in names of `[[hba]]`, behind a slash: what PostgreSQL and JavaScript read alike, and nothing else. PostgreSQL
// docs, "The pg_hba.conf File" and "Regular Expression Details".

/** PostgreSQL cuts longer names (NAMEDATALEN). */
const LONGEST = 63;
/** In how many ways one may match, at most: there are expressions that would keep a thread for years. Three stars are fewer. */
const MOST_WAYS = 2 ** 20;
/** DUPMAX of PostgreSQL. */
const MOST_TIMES = 255;

const QUANTIFIER = /[*+?]|\{(\d{1,4})(?:(,)(\d{0,4}))?\}/y;
const PLACE = /[$^]/y;
/** A character, or one of several: `-` among these stands in front or for a range, and nothing has another name there. */
const CHARACTER =
	/\.|\\[DWdw]|\\[!-/:-@[-`{-~]|\[(?!\]|\^\])\^?-?(?:[^\]\\[-](?:-[^\]\\[-])?)*\]|[^\\()[\]{}|*+?^$.]/sy;

/** As PostgreSQL reads them before it knows a database: each byte is a character. */
function bytesOf(text: string): string {
	return Buffer.from(text).toString("latin1");
}

/** @throws SyntaxError of ranges that are out of order, if of nothing else that is served */
function compiled(pattern: string): RegExp {
	return new RegExp(bytesOf(pattern), "s");
}

/** Whether a pattern that is served matches anywhere in a name. */
export function matchesPattern(pattern: string, name: string): boolean {
	return compiled(pattern).test(bytesOf(name).slice(0, LONGEST));
}

/** Why a pattern is not served; null: it is. */
export function whyNoPattern(pattern: string): string | null {
	const reading = new Reading(bytesOf(pattern));
	const ways = reading.branches();
	const { rest } = reading;
	if (rest !== "") return `not with ${JSON.stringify(Buffer.from(rest, "latin1").toString())} there`;
	// What is not a number any more is too many, too.
	if (!(ways <= MOST_WAYS)) return "with fewer ways to match";
	try {
		compiled(pattern);
		return null;
	} catch {
		return "with ranges in order";
	}
}

/** Goes through a pattern as far as it is served, and counts in how many ways its parts can match. */
class Reading {
	private readonly text: string;
	private at = 0;
	/** Something is missing where it stands. */
	private misses = false;

	constructor(text: string) {
		// Its end is told like a character that does not belong there.
		this.text = `${text}\0`;
	}

	/** From where it is not served; "": all of it is. */
	get rest(): string {
		return this.text.slice(this.at) === "\0" && !this.misses ? "" : this.text.slice(this.at, -1) || "its end";
	}

	branches(): number {
		let ways = this.branch();
		while (!this.misses && this.token(/\|/y) !== null) ways += this.branch();
		return ways;
	}

	private branch(): number {
		const from = this.at;
		let ways = 1;
		for (let of = this.piece(); of !== null && !this.misses; of = this.piece()) ways *= of;
		if (this.at === from) this.misses = true;
		return ways;
	}

	/** Null: there is none. */
	private piece(): number | null {
		if (this.token(PLACE) !== null) return 1;
		if (this.token(/\((?:\?:)?/y) === null) return this.token(CHARACTER) === null ? null : this.repeated(1);
		const ways = this.branches();
		if (this.misses || this.token(/\)/y) === null) {
			this.misses = true;
			return 1;
		}
		return this.repeated(ways);
	}

	/** @param ways of what may be repeated */
	private repeated(ways: number): number {
		const from = this.at;
		const found = this.token(QUANTIFIER);
		if (found === null) return ways;
		const [sign, least, comma, most] = found;
		if (sign === "?") return ways + 1;
		if (Math.max(Number(least ?? 0), Number(most ?? 0)) > MOST_TIMES) {
			this.at = from;
			this.misses = true;
			return ways;
		}
		if (least !== undefined && comma === undefined) return ways ** Number(least);
		// A name has no more characters to share out.
		return ways === 1 ? LONGEST + 1 : ways ** (Math.min(Number(most || LONGEST), LONGEST) + 1);
	}

	private token(pattern: RegExp): RegExpExecArray | null {
		pattern.lastIndex = this.at;
		const found = pattern.exec(this.text);
		if (found === null || this.at + found[0].length === this.text.length) return null;
		this.at += found[0].length;
		return found;
	}
}

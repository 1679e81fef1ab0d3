// Where the literals of the text are whose shape is being read, by their place in the shape: a place is one for all texts of that shape,
// whatever stands there. Of a list that the shape has folded all literals are in one place, and so are those of rows alike. Filled by
// shape.ts and lists.ts where statements are routed by their values (keys.ts); knows no SQL beyond what a literal is.

import { Mark } from "./marks.ts";

const FIRST_ROOM = 64;

/** One for each `Shape` that has one; what it says is of the text that was read last. */
export class Literals {
	/** How many there are. */
	count = 0;
	private bytes: Buffer = NOTHING;
	private places = new Int32Array(FIRST_ROOM);
	private starts = new Int32Array(FIRST_ROOM);
	private ends = new Int32Array(FIRST_ROOM);
	/** A `Mark`; `Mark.Any` is NULL. */
	private kinds = new Uint8Array(FIRST_ROOM);
	/** A minus before it is folded with it. */
	private signs = new Uint8Array(FIRST_ROOM);

	/** Another text is read. @param bytes which it is in */
	clear(bytes: Uint8Array): void {
		this.count = 0;
		this.bytes = bytes as Buffer;
	}

	/** The literal `bytes[start, end)` has its mark at `place`. */
	add(kind: Mark, place: number, start: number, end: number): void {
		if (this.count === this.places.length) this.grow();
		const i = this.count++;
		this.places[i] = place;
		this.starts[i] = start;
		this.ends[i] = end;
		this.kinds[i] = kind;
		this.signs[i] = 0;
	}

	/** A NULL of a row, which is a literal there; it ends before `end`, where there may be blanks and comments. */
	addNull(place: number, end: number): void {
		const { bytes } = this;
		while (end > 4 && bytes[end - 1]! <= 32) end--;
		this.add(Mark.Any, place, end - 4, end);
	}

	/** The list of literals that began at `from` has one mark there, and had `shape[from, …)`. */
	foldList(from: number, shape: Uint8Array): void {
		let i = this.count;
		while (i > 0 && this.places[i - 1]! >= from) i--;
		for (; i < this.count; i++) {
			const place = this.places[i]!;
			this.signs[i] = shape[place - 1] === 45 && place > from ? 1 : 0;
			this.places[i] = from;
		}
	}

	/** The row at `group` is left out, since it is like the one at `previous`. */
	foldGroup(group: number, previous: number): void {
		for (let i = this.count - 1; i >= 0 && this.places[i]! >= group; i--)
			this.places[i] = this.places[i]! - group + previous;
	}

	placeOf(i: number): number {
		return this.places[i]!;
	}

	startOf(i: number): number {
		return this.starts[i]!;
	}

	/** Which literal a constant of the tree is, that is said to be at `at` in the text: a minus may be before it. -1: none. */
	indexAt(at: number): number {
		const { ends } = this;
		let low = 0;
		let high = this.count;
		while (low < high) {
			const middle = (low + high) >> 1;
			if (ends[middle]! > at) high = middle;
			else low = middle + 1;
		}
		return low < this.count ? low : -1;
	}

	/** The next literal may be more of the same string, as it is behind a new line. */
	goesOn(i: number): boolean {
		if (i + 1 >= this.count || this.kinds[i + 1] !== Mark.String) return false;
		return /^\s*(--|$)/.test(this.bytes.latin1Slice(this.ends[i]!, this.starts[i + 1]!));
	}

	isNull(i: number): boolean {
		return this.kinds[i] === Mark.Any;
	}

	isNumber(i: number): boolean {
		return this.kinds[i]! <= Mark.Number;
	}

	/** What PostgreSQL makes of it, as text; null: bits. */
	text(i: number): string | null {
		const { bytes } = this;
		const start = this.starts[i]!;
		const end = this.ends[i]!;
		switch (this.kinds[i]) {
			case Mark.Integer:
			case Mark.Number: {
				const digits = bytes.latin1Slice(start, end);
				return this.signs[i] === 0 ? digits : `-${digits}`;
			}
			case Mark.String: {
				const text = bytes.utf8Slice(start + 1, end - 1);
				return text.includes("'") ? text.replaceAll("''", "'") : text;
			}
			case Mark.Escaped:
				return bytes.utf8Slice(start + 2, end - 1).replaceAll(/''|\\([\s\S])/g, unescape);
			case Mark.Dollars: {
				const tag = bytes.indexOf(36, start + 1) + 1 - start;
				return bytes.utf8Slice(start + tag, end - tag);
			}
			default:
				return null;
		}
	}

	private grow(): void {
		const { places, starts, ends, kinds, signs } = this;
		const room = 2 * places.length;
		this.places = new Int32Array(room);
		this.places.set(places);
		this.starts = new Int32Array(room);
		this.starts.set(starts);
		this.ends = new Int32Array(room);
		this.ends.set(ends);
		this.kinds = new Uint8Array(room);
		this.kinds.set(kinds);
		this.signs = new Uint8Array(room);
		this.signs.set(signs);
	}
}

const NOTHING = Buffer.alloc(0);

const ESCAPES: Readonly<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" };

/** Two quotes, or what a backslash stands before; escapes by number are in no text that has a shape. */
function unescape(whole: string, character: string | undefined): string {
	if (character === undefined) return whole.slice(1);
	return ESCAPES[character] ?? character;
}

// Lists of literals in the shape that is being written (shape.ts): where the grammar does not look at how many there are, and of
// which kinds, one mark stands for all of them. `IN (1, 2, 3)` and `ARRAY[…]` are one mark for two literals or more; of groups that
// are alike (`VALUES (1, 'a'), (2, 'b')`) the first is kept. Writes the brackets and commas, and looks back at what is before them.

import { FOLD, same } from "./characters.ts";
import type { Literals } from "./literals.ts";
import { isLiteral, Mark } from "./marks.ts";

const bytes = (text: string) => Buffer.from(text, "latin1");
const IN = bytes("in");
const ARRAY = bytes("array");
const FLOAT = bytes("float");
const VALUES = bytes("values");
const NULL = bytes("null");

/** Words by which a list begins. */
const enum Word {
	Other,
	In,
	Values,
	Array,
	Float,
}

/** One for each `Shape`. Its methods are given the shape `out[0, n)`, and those that write give its new length. */
export class Lists {
	private readonly literals: Literals | null;
	private depth = 0;
	/** Where the list of literals that is being written begins; 0: none is. */
	private list = 0;
	/** A group of literals is being written, whose parenthesis is the one of this depth and stands at `group`. */
	inGroup = false;
	private groupDepth = 0;
	private group = 0;
	/** The group before it that was kept; 0: it is the first. */
	private previous = 0;
	private previousEnd = 0;
	/** Where the last group ended: behind a comma there another may follow. */
	private groupEnd = 0;
	/** The last hint; what comes behind it still has the word before it. */
	private hintStart = 0;
	private hintEnd = 0;

	/** @param literals which are told what is folded */
	constructor(literals: Literals | null = null) {
		this.literals = literals;
	}

	clear(): void {
		this.depth = 0;
		this.list = 0;
		this.inGroup = false;
		this.groupEnd = 0;
		this.hintEnd = 0;
	}

	/** A hint has been written, `out[n, end)`: groups on both sides of it are not compared. */
	hint(n: number, end: number): void {
		this.inGroup = false;
		if (this.hintEnd !== n) this.hintStart = n;
		this.hintEnd = end;
	}

	/** Writes a parenthesis. -1: the grammar looks at what is in it (`float(24)`), and we do not. */
	open(out: Uint8Array, n: number): number {
		const behind = this.hintEnd === n ? this.hintStart : n;
		const word = lastWord(out, behind);
		out[n] = 40;
		this.depth++;
		if (!this.inGroup && (word === Word.Values || this.goesOn(out, n, behind))) {
			this.inGroup = true;
			this.groupDepth = this.depth;
			this.group = n;
			if (word === Word.Values) this.previous = 0;
		}
		this.list = word === Word.In ? n + 1 : 0;
		return word === Word.Float ? -1 : n + 1;
	}

	/** A parenthesis at `n` opens a group behind another, or the first of `IN ((1, 2), (3, 4))`. */
	private goesOn(out: Uint8Array, n: number, behind: number): boolean {
		if (this.groupEnd === n - 1 && out[n - 1] === 44) return true;
		if (this.list !== behind || out[behind - 1] !== 40) return false;
		this.previous = 0;
		return true;
	}

	/** @param at where the text is */
	close(out: Uint8Array, n: number, at: number): number {
		const isGroup = this.inGroup && this.depth === this.groupDepth;
		this.depth--;
		n = this.endList(out, n);
		if (isGroup) n = this.foldElement(out, n, at);
		out[n++] = 41;
		return isGroup ? this.endGroup(out, n) : n;
	}

	/** Leaves a group out that is like the one before it. */
	private endGroup(out: Uint8Array, n: number): number {
		const { group, previous, previousEnd } = this;
		if (previous > 0 && equal(out, previous, previousEnd, group, n)) {
			this.literals?.foldGroup(group, previous);
			n = previousEnd;
			out[n++] = Mark.More;
		} else {
			this.previous = group;
			this.previousEnd = n;
		}
		this.inGroup = false;
		this.groupEnd = n;
		return n;
	}

	openBracket(out: Uint8Array, n: number): number {
		this.list = lastWord(out, this.hintEnd === n ? this.hintStart : n) === Word.Array ? n + 1 : 0;
		out[n] = 91;
		return n + 1;
	}

	closeBracket(out: Uint8Array, n: number): number {
		n = this.endList(out, n);
		out[n] = 93;
		return n + 1;
	}

	private endList(out: Uint8Array, n: number): number {
		const { list } = this;
		this.list = 0;
		if (list === 0) return n;
		const end = foldList(out, list, n);
		if (end < n && this.literals !== null) this.literals.foldList(list, out);
		if (end < n) out[list] = Mark.List;
		return end;
	}

	/** A comma comes in a group. @param at where the text is */
	element(out: Uint8Array, n: number, at: number): number {
		return this.depth === this.groupDepth ? this.foldElement(out, n, at) : n;
	}

	/** Makes a literal or NULL that ends at `n` Any, when it is a whole element of a group: the grammar does not ask for its kind. */
	private foldElement(out: Uint8Array, n: number, at: number): number {
		const single = isLiteral(out[n - 1]!);
		const from = single ? n - 1 : n - NULL.length;
		const before = out[from - 1];
		if ((before !== 40 && before !== 44) || !(single || same(out, from, NULL))) return n;
		out[from] = Mark.Any;
		if (!single) this.literals?.addNull(from, at);
		return from + 1;
	}
}

/** The word that `out[0, n)` ends in. Directly behind a parameter (`$1in`) it is none of these: PostgreSQL refuses that. */
function lastWord(out: Uint8Array, n: number): Word {
	switch (out[n - 1]) {
		case 110:
			return endsIn(out, n, IN) ? Word.In : Word.Other;
		case 115:
			return endsIn(out, n, VALUES) ? Word.Values : Word.Other;
		case 116:
			return endsIn(out, n, FLOAT) ? Word.Float : Word.Other;
		case 121:
			return endsIn(out, n, ARRAY) ? Word.Array : Word.Other;
		default:
			return Word.Other;
	}
}

function endsIn(out: Uint8Array, n: number, word: Uint8Array): boolean {
	const from = n - word.length;
	return from > 0 && same(out, from, word) && FOLD[out[from - 1]!] === 0;
}

/** The end of the one mark that `1, 2, 3` becomes when `out[from, n)` is nothing else: IN (…) and ARRAY […] take any number of expressions of any kind. */
function foldList(out: Uint8Array, from: number, n: number): number {
	let count = 0;
	for (let i = from; ; i++) {
		if (out[i] === 45 || out[i] === 43) i++;
		if (i >= n || !isLiteral(out[i]!)) return n;
		count++;
		if (++i === n) break;
		if (out[i] !== 44) return n;
	}
	return count < 2 ? n : from + 1;
}

function equal(b: Uint8Array, from: number, fromEnd: number, to: number, toEnd: number): boolean {
	if (fromEnd - from !== toEnd - to) return false;
	for (let i = from, j = to; i < fromEnd; i++, j++) if (b[i] !== b[j]) return false;
	return true;
}

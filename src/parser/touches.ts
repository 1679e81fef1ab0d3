// The quick look at every query: may it do anything to its session that the next client must not see, or commit? Strings and
// comments are not told apart from code, so that it may say yes too often; then `sessionFacts` (session.ts) takes the closer look.
// All that makes it say yes is one automaton: for each byte of a text two tables are asked, and nothing is decided.

const SESSION_WORDS = ["set", "reset", "discard", "listen", "unlisten", "prepare", "deallocate", "load", "do"];
const COMMIT_WORDS = ["commit", "end"];
const CATALOGUE_WORDS = ["create", "alter", "drop", "import", "grant", "revoke"];
/** Words that count where they are the first of a text. */
const FIRST_WORDS = new Set([...SESSION_WORDS, ...CATALOGUE_WORDS, ...COMMIT_WORDS]);

/** Beginnings of words that count wherever they stand. `u&"…"` may spell any of them. */
const ANYWHERE = [
	"set_config",
	"temp",
	"hold",
	"pg_temp",
	"pg_advisory_lock",
	"pg_try_advisory_lock",
	"pg_settings",
	"u&",
];
/** As `ANYWHERE`, unless the first word is INSERT, whose INTO makes no table. */
const NOT_IN_INSERT = "into";

/** Bytes are of one class where the automaton tells them not apart: that of a letter, of a mark, or one of these. */
const OTHER_OF_WORD = "0";
const BLANK = " ";
const OTHER = "?";
/** What each class is called; its place here is its number. */
const CLASSES = [..."abcdefghijklmnopqrstuvwxyz_&;/*-", OTHER_OF_WORD, BLANK, OTHER];
const STRIDE = 64;

function classOf(byte: number): string {
	if (byte <= 32) return BLANK;
	const character = String.fromCharCode(byte).toLowerCase();
	if (byte >= 128 || /[0-9$]/.test(character)) return OTHER_OF_WORD;
	return CLASSES.includes(character) ? character : OTHER;
}

const isOfWord = (kind: string) => /[a-z0_]/.test(kind);

/** Where in a text the automaton is. */
interface Place {
	/** The text so far is blank, its first word, the beginning of a comment, something behind that, or ended by a semicolon. */
	readonly in: "blank" | "first" | "/" | "-" | "text" | "end";
	/** The word so far; "" between words, null when it is none of those that count. */
	readonly word: string | null;
	/** The first word is INSERT. */
	readonly inserts: boolean;
}

/** @returns what comes behind a byte of class `kind`, or true: the text may touch its session */
function next({ in: where, word, inserts }: Place, kind: string): Place | true {
	if (where === "end") return kind === BLANK || kind === ";" ? { in: "end", word, inserts } : true;
	// A comment before the first word hides it.
	if ((where === "/" && kind === "*") || (where === "-" && kind === "-")) return true;
	if (where === "blank") {
		if (kind === BLANK) return { in: "blank", word, inserts };
		if (kind === "/" || kind === "-") return { in: kind, word, inserts };
	}
	const isFirst = where === "blank" || where === "first";
	const longer = word === null ? null : word + kind;
	if (longer !== null) {
		if (ANYWHERE.includes(longer) || (longer === NOT_IN_INSERT && !inserts)) return true;
	}
	if (isOfWord(kind)) {
		const counts = longer !== null && begins(longer, isFirst);
		return { in: isFirst && counts ? "first" : "text", word: counts ? longer : null, inserts };
	}
	if (where === "first" && FIRST_WORDS.has(word ?? "")) return true;
	const isInsert = inserts || (where === "first" && word === "insert");
	return { in: kind === ";" ? "end" : "text", word: "", inserts: isInsert };
}

/** Whether a word that counts may begin so. */
function begins(text: string, isFirst: boolean): boolean {
	const words = [...ANYWHERE, NOT_IN_INSERT, ...(isFirst ? [...FIRST_WORDS, "insert"] : [])];
	return words.some((word) => word.startsWith(text));
}

const CLASS = new Uint8Array(256);
for (let byte = 0; byte < 256; byte++) CLASS[byte] = CLASSES.indexOf(classOf(byte));

/** A place is the number of its row in `NEXT`. */
const TOUCHES = 0;
const START = STRIDE;

/** `NEXT[place + class]` is the place behind a byte of that class. `ENDS[place]`: a text that ends there touches. */
function build(): { table: Uint16Array; ends: Uint8Array } {
	const places: Place[] = [{ in: "blank", word: "", inserts: false }];
	const rows = new Map([[JSON.stringify(places[0]), START]]);
	const cells: number[] = [];
	for (let n = 0; n < places.length; n++) {
		CLASSES.forEach((kind, column) => {
			const place = next(places[n]!, kind);
			const key = JSON.stringify(place);
			if (place !== true && !rows.has(key)) rows.set(key, START + STRIDE * (places.push(place) - 1));
			cells[START + STRIDE * n + column] = place === true ? TOUCHES : rows.get(key)!;
		});
	}
	const table = new Uint16Array(START + STRIDE * places.length);
	for (const cell in cells) table[cell] = cells[cell]!;
	const ends = new Uint8Array(table.length);
	for (const [n, place] of places.entries())
		if (place.in === "first" && FIRST_WORDS.has(place.word ?? "")) ends[START + STRIDE * n] = 1;
	return { table, ends };
}

const { table: NEXT, ends: ENDS } = build();

/** Whether the query text in `b[start, end)` may do anything to its session, or commit. */
export function touchesSession(b: Uint8Array, start: number, end: number): boolean {
	let place = START;
	for (let at = start; at < end; at++) {
		place = NEXT[place + CLASS[b[at]!]!]!;
		if (place === TOUCHES) return true;
	}
	return ENDS[place] === 1;
}

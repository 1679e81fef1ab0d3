// The quick look at every query: may it do anything to its session that the next client must not see, or commit? Strings and
// comments are not told apart from code, so that it may say yes too often; then `sessionFacts` (session.ts) takes the closer look.
// All that makes it say yes is one automaton: for each byte of a text two tables are asked, and nothing is decided. Where no text has
// been yet the table is empty and is filled as one comes there: to work out all of it would hold up the start of each thread.

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
	"pg_advisory_unlock",
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

const beginnings = (words: readonly string[]) =>
	new Set(words.flatMap((word) => Array.from(word, (_, last) => word.slice(0, last + 1))));

/** What words that count begin with, wherever they stand and where they are the first of a text. */
const BEGINNINGS = beginnings([...ANYWHERE, NOT_IN_INSERT]);
const FIRST_BEGINNINGS = beginnings([...FIRST_WORDS, "insert"]);

/** Whether a word that counts may begin so. */
function begins(text: string, isFirst: boolean): boolean {
	return BEGINNINGS.has(text) || (isFirst && FIRST_BEGINNINGS.has(text));
}

const CLASS = new Uint8Array(256);
for (let byte = 0; byte < 256; byte++) CLASS[byte] = CLASSES.indexOf(classOf(byte));

/** A place is where its row begins in `NEXT`; the first row is nobody's, so that these two are none. */
const UNKNOWN = 0;
const TOUCHES = 1;
const START = STRIDE;
/** More than there are: 286. */
const MOST_PLACES = 512;

/** `NEXT[place + class]` is the place behind a byte of that class. `ENDS[place]`: a text that ends there touches. */
const NEXT = new Uint16Array(STRIDE * MOST_PLACES);
const ENDS = new Uint8Array(NEXT.length);

/** The places that texts have come to, in the order of their rows. */
const places: Place[] = [];
const rows = new Map<string, number>();

/** @returns the row of `place` in `NEXT` */
function rowOf(place: Place): number {
	const key = `${place.in} ${place.word} ${place.inserts}`;
	let row = rows.get(key);
	if (row === undefined) {
		row = STRIDE * (places.push(place) - 1) + START;
		if (row >= NEXT.length) throw new RangeError(`more than ${MOST_PLACES} places: a text there would be let pass`);
		rows.set(key, row);
		ENDS[row] = Number(place.in === "first" && FIRST_WORDS.has(place.word ?? ""));
	}
	return row;
}

/** Works out `NEXT` where nobody has been. @returns what is there from now on */
function explore(from: number, column: number): number {
	const place = next(places[(from - START) / STRIDE]!, CLASSES[column]!);
	const to = place === true ? TOUCHES : rowOf(place);
	NEXT[from + column] = to;
	return to;
}

rowOf({ in: "blank", word: "", inserts: false });

/** Whether the query text in `b[start, end)` may do anything to its session, or commit. */
export function touchesSession(b: Uint8Array, start: number, end: number): boolean {
	let place = START;
	for (let at = start; at < end; at++) {
		const column = CLASS[b[at]!]!;
		let to = NEXT[place + column]!;
		if (to <= TOUCHES) {
			if (to === UNKNOWN) to = explore(place, column);
			if (to === TOUCHES) return true;
		}
		place = to;
	}
	return ENDS[place] === 1;
}

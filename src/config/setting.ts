// What a setting is: its type, default, text and how a value is read from TOML or from an environment variable.
// `settings.ts` makes the table of all settings from these kinds; `check.ts` applies them. Nothing here knows a name.

import type { z as zod } from "zod";

/**
 * What an absent limit counts as ("disabled" in PgDog, where it is the largest i64). A plain integer, not Infinity, so that
 * it survives JSON and prints as a number. It is far above what `setTimeout` takes (2^31 - 1): compare with it, never
 * start a timer from it.
 */
export const MAX = Number.MAX_SAFE_INTEGER;
/** `i64::MAX`, PgDog's own way to write "disabled": accepted from files and read as `MAX`. */
const MAX_I64 = 9223372036854775807n;

type Zod = typeof zod;
type Schema = (z: Zod) => zod.ZodType;

export interface Setting<T> {
	/** For the reference: `integer`, `milliseconds`, `bytes`, `boolean`, `string`, `list of strings` or `choice`. */
	readonly type: string;
	readonly default: T;
	readonly required: boolean;
	/** True when a reload puts a new value to work without a restart. */
	readonly reloadable: boolean;
	/** One line for the reference. */
	readonly text: string;
	/** What a value may be, in words: second half of an error message. */
	readonly accepted: string;
	/**
	 * Reads a TOML value; integers arrive as bigint, so that 5.0 is not taken for 5. Made with the zod that is given: workers, which
	 * know the settings and judge none, need not load it.
	 */
	readonly schema: (z: Zod) => zod.ZodType<T>;
	/** Turns text (an environment variable, a URL parameter) into what TOML would have given; `schema` then judges. */
	readonly fromText: (text: string) => unknown;
	/** Environment variables that give a default, first found wins. Undefined: `PGDOG_` and the name in capitals. */
	readonly env: readonly string[] | undefined;
	/** Other spellings of the name. */
	readonly aliases: readonly string[];
	/** Values that PgDog knows and that we do not serve yet. */
	readonly later: readonly string[];
	/** The value must never be shown. */
	readonly secret: boolean;
}

export type Settings = Readonly<Record<string, Setting<unknown>>>;
/** The values of a table of settings, by name. */
export type Values<S extends Settings> = { readonly [K in keyof S]: S[K] extends Setting<infer T> ? T : never };

interface About<D> {
	readonly default: D;
	readonly text: string;
	readonly required?: boolean;
	/** Default: true. */
	readonly reloadable?: boolean;
	readonly env?: readonly string[];
	readonly aliases?: readonly string[];
}

interface Range {
	readonly min?: number;
	/** Without it the setting accepts all up to `MAX`, and i64::MAX for "disabled". */
	readonly max?: number;
}

function setting<T>(
	type: string,
	accepted: string,
	about: About<unknown>,
	schema: Schema,
	fromText: (text: string) => unknown,
	more: { later?: readonly string[]; secret?: boolean } = {},
): Setting<T> {
	return {
		type,
		accepted,
		default: about.default as T,
		required: about.required ?? false,
		reloadable: about.reloadable ?? true,
		text: about.text,
		schema: schema as (z: Zod) => zod.ZodType<T>,
		fromText,
		env: about.env,
		aliases: about.aliases ?? [],
		later: more.later ?? [],
		secret: more.secret ?? false,
	};
}

function integerFromText(text: string): unknown {
	return /^[+-]?\d+(_\d+)*$/.test(text) ? BigInt(text.replace(/[_+]/g, "")) : text;
}

function whole<D>(type: string, unit: string, about: About<D> & Range): Setting<number | D> {
	const min = about.min ?? 0;
	const max = about.max;
	const accepted = `an integer${unit} ${max === undefined ? `from ${min} up` : `from ${min} to ${max}`}`;
	const schema: Schema = (z) =>
		z
			.bigint()
			.min(BigInt(min))
			.max(max === undefined ? MAX_I64 : BigInt(max))
			.transform((value) => (value > BigInt(MAX) ? MAX : Number(value)));
	return setting(type, accepted, about, schema, integerFromText);
}

export function integer<D extends number | undefined>(about: About<D> & Range): Setting<number | D> {
	return whole("integer", "", about);
}

/** A duration; always in milliseconds, as everywhere in PgDog's files. */
export function milliseconds<D extends number | undefined>(about: About<D> & Range): Setting<number | D> {
	return whole("milliseconds", " (milliseconds)", about);
}

export function bytes<D extends number | undefined>(about: About<D> & Range): Setting<number | D> {
	return whole("bytes", " (bytes)", about);
}

export function flag<D extends boolean | undefined>(about: About<D>): Setting<boolean | D> {
	return setting(
		"boolean",
		"true or false",
		about,
		(z) => z.boolean(),
		(text) => {
			const word = text.toLowerCase();
			if (["true", "1", "yes", "on"].includes(word)) return true;
			return ["false", "0", "no", "off"].includes(word) ? false : text;
		},
	);
}

// Names and passwords go into the StartupMessage, where a NUL ends a string: one inside would start a parameter of its own.
const clean = (z: Zod) => z.string().regex(/^[^\0]*$/);
const line = (z: Zod) => clean(z).min(1);
const asIs = (text: string): unknown => text;

export function text<D extends string | undefined>(
	about: About<D> & { readonly pattern?: RegExp; readonly accepted?: string },
): Setting<string | D> {
	const accepted = about.accepted ?? "a string, not empty";
	return setting("string", accepted, about, (z) => (about.pattern ? line(z).regex(about.pattern) : line(z)), asIs);
}

/** A string that no message may show. With `empty` it may be empty: an empty password counts as none. */
export function secret<D extends string | undefined>(
	about: About<D> & { readonly pattern?: RegExp; readonly accepted?: string; readonly empty?: boolean },
): Setting<string | D> {
	const accepted = about.accepted ?? (about.empty ? "a string" : "a string, not empty");
	const schema: Schema = (z) => {
		const any = about.empty ? clean(z) : line(z);
		return about.pattern ? any.regex(about.pattern) : any;
	};
	return setting("string", accepted, about, schema, asIs, { secret: true });
}

export function list(about: About<undefined> & { readonly secret?: boolean }): Setting<readonly string[] | undefined> {
	const item = about.secret ? clean : line;
	const accepted = about.secret ? "a list of strings" : "a list of strings, none empty";
	return setting("list of strings", accepted, about, (z) => z.array(item(z)), asIs, { secret: about.secret ?? false });
}

/** A word, several with commas between them, or a list with one in each string; in double quotes a comma is a letter. */
export function words(about: Omit<About<undefined>, "default">): Setting<readonly string[] | undefined> {
	const accepted = "a word, several with commas between them, or a list of words";
	const schema: Schema = (z) => {
		const word = line(z).regex(/^\S(?:.*\S)?$/);
		const split = (text: string) => text.split(COMMA).map((each) => each.trim());
		return z.union([clean(z).transform(split).pipe(z.array(word)), z.array(word).min(1)]);
	};
	return setting("string or list of strings", accepted, { ...about, default: undefined }, schema, asIs);
}

/** One with an even number of quotes behind it. */
const COMMA = /,(?=(?:[^"]*"[^"]*")*[^"]*$)/;

/** A name that PostgreSQL stores: as in SQL it is in lower case unless it stands in double quotes. */
export function identifier<D extends string | undefined>(about: About<D>): Setting<string | D> {
	const accepted = `one name, in lower case unless it is in double quotes, of ${MAX_IDENTIFIER} bytes at most`;
	return parsed<string | D>("name", accepted, about, (name) => {
		const quoted = /^"((?:[^"\0]|"")+)"$/.exec(name)?.[1]?.replaceAll('""', '"');
		const stored = quoted ?? (/^[^".\0]+$/.test(name) ? lowerCase(name) : "");
		return stored === "" || Buffer.byteLength(stored) > MAX_IDENTIFIER ? undefined : stored;
	});
}

/** Longest name, bytes (PostgreSQL docs, "Identifiers and Key Words"): the server cuts a longer one, under another name. */
export const MAX_IDENTIFIER = 63;

/** ASCII letters only, as the server folds names. */
export function lowerCase(name: string): string {
	return name.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

/** A value of a sharded column as TOML has it: which are of the column's type is judged with the column. */
export type KeyValue = bigint | string;

const MIN_INT8 = -(2n ** 63n);
const keySchema = (z: Zod) => z.union([z.bigint().min(MIN_INT8).max(MAX_I64), clean(z)]);

export function keyValue(about: Omit<About<undefined>, "default">): Setting<KeyValue | undefined> {
	return setting("integer or string", "an integer or a string", { ...about, default: undefined }, keySchema, asIs);
}

export function keyValues(about: Omit<About<undefined>, "default">): Setting<readonly KeyValue[] | undefined> {
	const schema: Schema = (z) => z.array(keySchema(z));
	const accepted = "a list of integers or of strings";
	return setting("list of integers or strings", accepted, { ...about, default: undefined }, schema, asIs);
}

export type Vector = readonly number[];

/** Whether it is a list of lists of numbers. */
export function areVectors(value: unknown): value is readonly Vector[] {
	const isNumber = (each: unknown) => typeof each === "number" && Number.isFinite(Math.fround(each));
	return Array.isArray(value) && value.every((each) => Array.isArray(each) && each.length > 0 && each.every(isNumber));
}

export function vectors(about: Omit<About<undefined>, "default">): Setting<readonly Vector[] | undefined> {
	const schema: Schema = (z) => {
		const number = z.union([z.number(), z.bigint().transform(Number)]);
		return z.array(z.array(number)).refine(areVectors);
	};
	return setting(
		"list of lists of numbers",
		"a list of lists of numbers",
		{ ...about, default: undefined },
		schema,
		asIs,
	);
}

/** Tables inside an entry, read by whoever reads the entry. */
export function tables(
	about: Omit<About<undefined>, "default">,
): Setting<readonly Record<string, unknown>[] | undefined> {
	const schema: Schema = (z) => z.array(z.record(z.string(), z.unknown()));
	return setting("list of tables", "a list of tables", { ...about, default: undefined }, schema, asIs);
}

/** One word of several. `later`: words of PgDog that we do not serve yet, refused with that reason. */
export function choice<const V extends string, D extends V | undefined>(
	words: readonly V[],
	about: About<D> & { readonly later?: readonly string[] },
): Setting<V | D> {
	const accepted = words.map((word) => `"${word}"`).join(", ");
	return setting("choice", accepted, about, (z) => z.enum(words), asIs, { later: about.later ?? [] });
}

/** A string that is rewritten as it is read; `read` gives undefined for what it does not accept. */
export function parsed<V>(
	type: string,
	accepted: string,
	about: About<V>,
	read: (text: string) => V | undefined,
): Setting<V> {
	const schema: Schema = (z) =>
		z.string().transform((value, context) => {
			const result = read(value);
			if (result !== undefined) return result;
			context.addIssue({ code: "custom", message: accepted });
			return z.NEVER;
		});
	return setting(type, accepted, about, schema, asIs);
}

/** The environment variables that give a default to the setting of this name, first found wins. */
export function environmentNames(name: string, setting: Setting<unknown>): readonly string[] {
	return setting.env ?? [`PGDOG_${name.toUpperCase()}`];
}

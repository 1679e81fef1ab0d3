// What is wrong with a configuration, said so that the person who wrote it can mend it: file, line, key, the value found
// and what is accepted. Called by all that reads configuration; knows no setting by name. No secret enters a message.

export type Wrong =
	/** The value is not one that is accepted. */
	| "value"
	| "missing"
	/** Nobody knows this key. */
	| "unknown"
	/** PgDog knows the key or the value; we do not serve it yet. */
	| "unserved"
	/** Not TOML at all. */
	| "syntax"
	/** The file is there, but cannot be read; with a key: the file that it names. */
	| "unreadable";

export interface Problem {
	readonly wrong: Wrong;
	/** As named on the command line; for a database URL the flag or the environment variable. */
	readonly file: string;
	/** Counted from 1; undefined where there are no lines. */
	readonly line: number | undefined;
	/** Path such as `databases[1].port`, counted from 0; empty when the whole file is meant. */
	readonly key: string;
	/** The value as text, `***` for a secret; empty when it is beside the point. */
	readonly found: string;
	readonly accepted: string;
}

/** Codes of the operating system, in words. */
const UNREADABLE: Readonly<Record<string, string>> = {
	EISDIR: "it is a folder",
	EACCES: "permission denied",
	ENOTDIR: "a part of its path is no folder",
	ENOENT: "there is no such file",
};

/** Why something cannot be read, by the code of the operating system. */
export function unreadableText(code = "unknown error"): string {
	return UNREADABLE[code] ?? code;
}

/** One line: `pgdog.toml:12: databases[1].port = 70000: accepted is an integer from 1 to 65535`. */
export function problemText(problem: Problem): string {
	const { file, line, key, found, accepted } = problem;
	const place = line === undefined ? file : `${file}:${line}`;
	switch (problem.wrong) {
		case "value":
			return `${place}: ${key} = ${found}: accepted is ${accepted}`;
		case "missing":
			return `${place}: ${key} is missing: accepted is ${accepted}`;
		case "unknown":
			return `${place}: ${key} is not a known key: ${accepted}`;
		case "unserved":
			return `${place}: ${key}${found === "" ? "" : ` = ${found}`}: known to PgDog, not served yet${accepted === "" ? "" : `: accepted is ${accepted}`}`;
		case "syntax":
			return `${place}: not valid TOML: ${found}`;
		case "unreadable":
			return `${place}: ${key === "" ? "" : `${key} `}cannot be read: ${unreadableText(found)}`;
	}
}

/** Gathers all that one load finds, so that it can be told at once. */
export class Findings {
	readonly problems: Problem[] = [];
	readonly warnings: string[] = [];
	/** Paths of the files that were read. */
	readonly files: string[] = [];

	problem(source: ValueSource, key: string, wrong: Wrong, found: string, accepted: string): void {
		this.problems.push({ wrong, file: source.name, line: lineOf(source, key), key, found, accepted });
	}

	/** A warning about a key of a file. */
	warn(source: ValueSource, key: string, text: string): void {
		this.warnings.push(`${placeOf(source, key)}: ${text}`);
	}
}

/** Where values come from: a file with the line of each key path, or something without lines. */
export interface ValueSource {
	readonly name: string;
	readonly lines: ReadonlyMap<string, number>;
}

/** `pgdog.toml:12`; the file alone where there are no lines. */
export function placeOf(source: ValueSource, key: string): string {
	const line = lineOf(source, key);
	return line === undefined ? source.name : `${source.name}:${line}`;
}

/** The line of a key, or of the nearest thing around it when the key itself is not there. */
function lineOf(source: ValueSource, key: string): number | undefined {
	for (let path = key; path !== ""; path = path.slice(0, Math.max(path.lastIndexOf("."), path.lastIndexOf("[")))) {
		const line = source.lines.get(path);
		if (line !== undefined) return line;
		if (!path.includes(".") && !path.includes("[")) break;
	}
	return undefined;
}

/** A TOML value as a message may show it. Tables and lists are named only: they may hold anything, passwords too. */
export function show(value: unknown, secret = false): string {
	if (secret) return "***";
	if (typeof value === "string") {
		const masked = maskUrl(value);
		return JSON.stringify(masked.length > 100 ? `${masked.slice(0, 100)}…` : masked);
	}
	if (typeof value === "bigint" || typeof value === "boolean") return String(value);
	// A float that looks like an integer must still look like a float, or the message contradicts itself.
	if (typeof value === "number") return Number.isInteger(value) ? value.toFixed(1) : String(value);
	if (Array.isArray(value)) return "a list";
	return value instanceof Date ? "a date" : "a table";
}

/** Hides the password of `scheme://user:password@host`, up to the last `@` before a space, and that of a parameter `password=`. */
export function maskUrl(text: string): string {
	return text.replace(/(:\/\/[^:/?#\s]*):[^\s]*@/g, "$1:***@").replace(/([?&]password=)[^&#\s]*/gi, "$1***");
}

/** The known name nearest to a mistyped one, or undefined when none is near. */
export function nearest(name: string, known: Iterable<string>): string | undefined {
	const limit = Math.max(1, Math.floor(name.length / 3));
	let best: string | undefined;
	let bestDistance = limit + 1;
	for (const candidate of known) {
		if (Math.abs(candidate.length - name.length) >= bestDistance) continue;
		const distance = editDistance(name.toLowerCase(), candidate);
		if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
	}
	return best;
}

/** Levenshtein's distance with neighbours swapped counted as one edit ("prot" for "port"). */
function editDistance(a: string, b: string): number {
	let before: number[] = [];
	let last = Array.from({ length: b.length + 1 }, (_, j) => j);
	for (let i = 1; i <= a.length; i++) {
		const row = [i];
		for (let j = 1; j <= b.length; j++) {
			const change = a[i - 1] === b[j - 1] ? 0 : 1;
			let cost = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + change);
			if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, before[j - 2]! + 1);
			row.push(cost);
		}
		before = last;
		last = row;
	}
	return last[b.length]!;
}

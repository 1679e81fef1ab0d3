// One configuration file: reads it, and hands out its tables with what is wrong in them reported by line.
// Called by load.ts; knows no setting and no table by meaning.

import { readFileSync } from "node:fs";
import { isAbsolute } from "node:path";
import { parse, TomlError } from "smol-toml";
import { isTable, readTable, readUnserved, type Table, unknownKey, unservedKeys } from "./check.ts";
import { joinKey, locate } from "./locate.ts";
import { type Findings, show, type ValueSource } from "./problem.ts";
import type { Settings, Values } from "./setting.ts";
import type { Unserved } from "./unserved.ts";

/** A file and what it holds; an empty table when it is missing or broken. */
export interface File {
	readonly source: ValueSource;
	readonly table: Table;
}

/** `Problem.accepted` of a file that cannot be read. */
const FILE = "a file of text";

/**
 * Reads one file; what is wrong with it goes to the report.
 * @param needed why it has to be there; undefined: a missing one is a warning, as in PgDog, and defaults take its place
 */
export function readFile(path: string, needed: string | undefined, report: Findings, notes: string[]): File {
	const unread: File = { source: { name: path, lines: new Map() }, table: {} };
	let content: Uint8Array;
	try {
		content = readFileSync(path);
	} catch (error) {
		const { code } = error as NodeJS.ErrnoException;
		if (code !== "ENOENT") report.problem(unread.source, "", "unreadable", code ?? "unknown error", FILE);
		else if (needed !== undefined) missing(path, needed, report);
		else report.warnings.push(`"${path}" doesn't exist, loading defaults instead`);
		return unread;
	}
	let text: string;
	try {
		text = new TextDecoder("utf-8", { fatal: true }).decode(content);
	} catch {
		report.problem(unread.source, "", "syntax", "it is not UTF-8", "TOML");
		return unread;
	}
	try {
		const table = parse(text, { integersAsBigInt: true });
		notes.push(`loaded "${path}"`);
		report.files.push(path);
		return { source: { name: path, lines: locate(text) }, table };
	} catch (error) {
		if (!(error instanceof TomlError)) throw error;
		// The message goes on with the lines around the mistake, and one of them may hold a password.
		const found = error.message.split("\n", 1)[0]!.replace(/^Invalid TOML document: /, "");
		report.problems.push({ wrong: "syntax", file: path, line: error.line, key: "", found, accepted: "TOML" });
		return unread;
	}
}

/** Reports a file that has to be there and is not: to go on with defaults would take away what it says. */
export function missing(path: string, needed: string, report: Findings): void {
	const where = isAbsolute(path) ? "" : ` in ${workingDirectory()}`;
	report.problem(
		{ name: path, lines: new Map() },
		"",
		"unreadable",
		`there is no such file${where}, and ${needed}`,
		FILE,
	);
}

function workingDirectory(): string {
	try {
		return process.cwd();
	} catch {
		return "the working directory, which is gone itself";
	}
}

/**
 * Reports tables of a file that nobody knows, or that belong in the other file; what is in them is read by others.
 * @param elsewhere tables of the other file
 */
export function checkTables(
	file: File,
	known: readonly string[],
	elsewhere: readonly string[],
	later: Unserved,
	report: Findings,
): void {
	for (const [key, value] of Object.entries(file.table)) {
		const at = joinKey("", key);
		if (isEmptyList(value) && Object.hasOwn(later.refused, key)) continue;
		if (known.includes(key) || readUnserved(later, key, value, at, file.source, report)) continue;
		if (elsewhere.includes(key)) {
			report.problem(file.source, at, "unknown", "", `it belongs in ${key === "users" ? "users.toml" : "pgdog.toml"}`);
		} else unknownKey(key, [...known, ...unservedKeys(later)], at, file.source, report);
	}
}

/** Whether it is an empty list: that asks for nothing, whatever it would be a list of. */
function isEmptyList(value: unknown): boolean {
	return Array.isArray(value) && value.length === 0;
}

/** `[name]`: the keys that it sets. */
export function section<S extends Settings>(
	table: S,
	later: Unserved,
	file: File,
	name: string,
	report: Findings,
): { values: Partial<Values<S>> } {
	const value = file.table[name];
	if (isTable(value)) return { values: readTable(table, later, value, name, file.source, report) };
	if (value !== undefined) report.problem(file.source, name, "value", show(value, true), `one table, [${name}]`);
	return { values: {} };
}

/** `[[name]]`: the keys that each entry sets, with its path. */
export function entriesOf<S extends Settings>(
	table: S,
	later: Unserved,
	file: File,
	name: string,
	report: Findings,
): { at: string; values: Partial<Values<S>> }[] {
	const value = file.table[name];
	if (value === undefined) return [];
	if (!Array.isArray(value)) {
		report.problem(
			file.source,
			name,
			"value",
			isTable(value) ? "a table" : show(value, true),
			`a list of tables, [[${name}]]`,
		);
		return [];
	}
	return value.flatMap((entry: unknown, index) => {
		const at = `${name}[${index}]`;
		if (isTable(entry)) return [{ at, values: readTable(table, later, entry, at, file.source, report) }];
		report.problem(file.source, at, "value", show(entry, true), `a table, [[${name}]]`);
		return [];
	});
}

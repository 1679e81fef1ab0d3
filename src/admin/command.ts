// What a command of the admin database is once its text is understood, and how rows of plain data become columns of text.
// Shared by the files of this room; knows no command by name.

import { PgError } from "../errors.ts";
import { type Column, Oid } from "../wire/backend-messages.ts";
import type { AdminSource, Notice } from "./source.ts";

export type Row = (string | null)[];

/** What a command does to the session that gives it, beside its answer. */
export type Effect =
	| { readonly kind: "begin" | "commit" | "rollback" | "rollback to savepoint" | "discard" }
	/** `name` undefined: all of them. */
	| { readonly kind: "deallocate"; readonly name: string | undefined };

export interface Command {
	/** Columns of the answer; empty: it returns no rows. Known before the command runs, so that Describe can tell. */
	readonly columns: readonly Column[];
	readonly tag: string;
	readonly effect?: Effect;
	/** @param tell sends a NoticeResponse before the end of the answer. @throws PgError */
	run(source: AdminSource, tell: (notice: Notice) => void): Promise<Row[]> | Row[];
}

/** Whose rows and columns SHOW has: PgBouncer's (pgbouncer.ts) where the admin database is named "pgbouncer". */
export type AdminShape = "pgdog" | "pgbouncer";

export function shapeOf(admin: { readonly name: string }): AdminShape {
	return admin.name === "pgbouncer" ? "pgbouncer" : "pgdog";
}

/** A value before it is text. Numbers with a fraction are shown to three places, as PgDog does. */
type Cell = string | number | boolean | null;

/** A column with the way to its value. */
export interface Field<T> extends Column {
	readonly value: (item: T) => Cell;
}

export const int = <T>(name: string, value: (item: T) => number | null): Field<T> => ({ name, oid: Oid.int8, value });
export const float = <T>(name: string, value: (item: T) => number | null): Field<T> => ({
	name,
	oid: Oid.float8,
	value,
});
export const bool = <T>(name: string, value: (item: T) => boolean | null): Field<T> => ({
	name,
	oid: Oid.bool,
	value,
});
export const textColumn = <T>(name: string, value: (item: T) => string | null): Field<T> => ({
	name,
	oid: Oid.text,
	value,
});
/** A point in time, ms since the epoch; NULL for one that has not been. */
export const time = <T>(name: string, value: (item: T) => number): Field<T> =>
	textColumn(name, (item) => showTime(value(item)));

/** The columns alone: plain data that can cross threads. */
export function columnsOf<T>(fields: readonly Field<T>[]): Column[] {
	return fields.map(({ name, oid }) => ({ name, oid: oid ?? Oid.text }));
}

export function rowsOf<T>(fields: readonly Field<T>[], items: Iterable<T>): Row[] {
	const rows: Row[] = [];
	for (const item of items) rows.push(fields.map((field) => show(field.oid, field.value(item))));
	return rows;
}

function show(oid: Oid | undefined, value: Cell): string | null {
	if (value === null || typeof value === "string") return value;
	if (typeof value === "boolean") return value ? "t" : "f";
	// A shared counter may be read between two stores: what is not a number must not reach a driver that parses it.
	if (!Number.isFinite(value)) return "0";
	if (oid === Oid.int8 || oid === Oid.int4) return BigInt(Math.trunc(value)).toString();
	return String(Math.round(value * 1000) / 1000);
}

/** `2026-01-31 23:59:59.123 +01:00`: local time, as PgDog prints it. */
export function showTime(ms: number): string | null {
	if (!(ms > 0)) return null;
	const offset = -new Date(ms).getTimezoneOffset();
	const local = new Date(ms + offset * 60_000).toISOString();
	const pad = (n: number) => String(Math.trunc(n)).padStart(2, "0");
	const zone = `${offset < 0 ? "-" : "+"}${pad(Math.abs(offset) / 60)}:${pad(Math.abs(offset) % 60)}`;
	return `${local.slice(0, 10)} ${local.slice(11, 23)} ${zone}`;
}

/** PgDog's error for what is no admin command, in its text and SQLSTATE (08P01). */
export function syntaxError(detail?: string): PgError {
	return new PgError("ERROR", "08P01", "syntax error in admin command", detail, HELP_HINT);
}

export function notServed(what: string, hint = HELP_HINT): PgError {
	return new PgError("ERROR", "0A000", `${what} is not supported yet`, undefined, hint);
}

const HELP_HINT = "SHOW HELP lists the commands.";

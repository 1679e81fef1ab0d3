// The prepared statements and portals of one admin session. PostgreSQL docs, "Extended Query". Knows no socket.

import { PgError } from "../errors.ts";
import { dataRow, formatOf, Oid } from "../wire/backend-messages.ts";
import { binary } from "./binary.ts";
import type { Command, Row } from "./command.ts";

export interface Prepared {
	readonly sql: string;
	readonly command: Command;
}

export interface Portal {
	readonly name: string;
	readonly statement: Prepared;
	/** Result format codes of its Bind. */
	readonly formats: readonly number[];
	/** null until its first Execute is answered. */
	rows: Row[] | null;
	/** Rows sent so far. */
	sent: number;
	done: boolean;
}

/** Most that texts and names of one session may take, in UTF-16 units, with `EACH` added for each statement and portal. Guesses. */
const MOST = 1 << 20;
const EACH = 100;

export class PreparedStatements {
	private readonly statements = new Map<string, Prepared>();
	private readonly portals = new Map<string, Portal>();
	private size = 0;

	parse(name: string, statement: Prepared): void {
		if (name !== "" && this.statements.has(name))
			throw new PgError("ERROR", "42P05", `prepared statement "${name}" already exists`);
		this.closeStatement(name);
		this.grow(name.length + statement.sql.length + EACH);
		this.statements.set(name, statement);
	}

	statement(name: string): Prepared {
		const found = this.statements.get(name);
		if (found !== undefined) return found;
		const which = name === "" ? "unnamed prepared statement" : `prepared statement "${name}"`;
		throw new PgError("ERROR", "26000", `${which} does not exist`);
	}

	bind(name: string, statement: Prepared, formats: readonly number[]): void {
		const columns = statement.command.columns.length;
		if (formats.length > 1 && formats.length !== columns) {
			const message = `bind message has ${formats.length} result formats but query has ${columns} columns`;
			throw new PgError("ERROR", "08P01", message);
		}
		const unknown = formats.find((format) => format > 1);
		if (unknown !== undefined) throw new PgError("ERROR", "22023", `unsupported format code: ${unknown}`);
		if (name !== "" && this.portals.has(name)) throw new PgError("ERROR", "42P03", `portal "${name}" already exists`);
		this.closePortal(name);
		this.grow(name.length + EACH);
		this.portals.set(name, { name, statement, formats, rows: null, sent: 0, done: false });
	}

	portal(name: string): Portal {
		const found = this.portals.get(name);
		if (found === undefined) throw new PgError("ERROR", "34000", `portal "${name}" does not exist`);
		return found;
	}

	/** Closing a statement that does not exist is no error (Close). */
	closeStatement(name: string): void {
		const found = this.statements.get(name);
		if (found === undefined) return;
		this.size -= name.length + found.sql.length + EACH;
		this.statements.delete(name);
	}

	closePortal(name: string): void {
		if (this.portals.delete(name)) this.size -= name.length + EACH;
	}

	/** Closes all portals at the end of a transaction, for most sessions at every Sync. */
	closePortals(): void {
		for (const name of [...this.portals.keys()]) this.closePortal(name);
	}

	/** DEALLOCATE of one statement, or of all (undefined): in SQL, of those with names. @throws PgError 26000 */
	deallocate(name: string | undefined): void {
		if (name !== undefined) {
			this.statement(name);
			this.closeStatement(name);
		} else for (const each of [...this.statements.keys()]) if (each !== "") this.closeStatement(each);
	}

	private grow(by: number): void {
		if (this.size + by > MOST)
			throw new PgError("ERROR", "54000", "too many prepared statements and portals in an admin session");
		this.size += by;
	}
}

/** DataRow messages of `rows[from, to)`, in the formats of the portal. */
export function dataRows(
	command: Command,
	rows: readonly Row[],
	formats: readonly number[],
	from: number,
	to: number,
): Buffer[] {
	const out: Buffer[] = [];
	const isText = formats.every((format) => format === 0);
	for (let i = from; i < to; i++) {
		const row = rows[i]!;
		if (isText) out.push(dataRow(row));
		else
			out.push(
				dataRow(
					row.map((value, column) =>
						value === null || formatOf(formats, column) === 0
							? value
							: binary(command.columns[column]?.oid ?? Oid.text, value),
					),
				),
			);
	}
	return out;
}

// One connection to the admin database, in the worker that accepted it: both query protocols, one command after another.
// Commands are answered elsewhere (`ask`); here is only what the protocol wants around them. What a client sends ahead is
// held until the answer before it is out. PostgreSQL docs, "Message Flow".

import { randomBytes } from "node:crypto";
import { PgError, ProtocolError } from "../errors.ts";
import type { Stream, StreamOwner } from "../net/stream.ts";
import {
	BIND_COMPLETE,
	backendKeyData,
	CLOSE_COMPLETE,
	commandComplete,
	EMPTY_QUERY_RESPONSE,
	NO_DATA,
	NO_PARAMETERS,
	PARSE_COMPLETE,
	PORTAL_SUSPENDED,
	parameterStatus,
	readyForQuery,
	rowDescription,
} from "../wire/backend-messages.ts";
import { Frontend, Target, TxStatus } from "../wire/codes.ts";
import { errorResponse, noticeResponse } from "../wire/error-response.ts";
import { frontendLimit, HEADER, readInt32, Tail } from "../wire/frame.ts";
import { Body } from "./body.ts";
import type { AdminShape, Command } from "./command.ts";
import {
	type AnswerError,
	type Answered,
	answerError,
	type CommandAnswer,
	TAKES_NO_PARAMETERS,
	understand,
} from "./commands.ts";
import { dataRows, type Portal, PreparedStatements } from "./prepared.ts";
import { REPORTED } from "./settings.ts";
import type { Notice } from "./source.ts";
import { type AdminStatement, statements } from "./words.ts";

/** Longest message of an admin session, bytes: no command comes near. */
const LONGEST = 64 << 10;
/** Bytes that a client may send ahead of the answers; with more its socket is not read. */
const HELD = 64 << 10;

/** SQLSTATE of a WARNING and a NOTICE of no class of their own, as in PostgreSQL. */
const NOTICE_STATES = { WARNING: "01000", NOTICE: "00000" } as const;

/** Messages in `out` with which they are written before a walk ends. A guess. */
const MOST_OUT = 64;

export interface AdminSessionOptions {
	/** As in the first log line. */
	readonly version: string;
	/** Whose rows and columns SHOW has. */
	readonly shape: AdminShape;
	/** `address:port`, or `unix`. */
	readonly address: string;
	/** Parameters of the StartupMessage, names in lower case. */
	readonly parameters: ReadonlyMap<string, string>;
	/** Has the main thread answer one statement. */
	ask(sql: string): Promise<CommandAnswer>;
	/** Called once, when the session is closed. */
	onOver(): void;
}

const enum State {
	/** Its messages are read. */
	Ready,
	/** A command is being answered, or the client does not read its answers: what it sends is held. */
	Waiting,
	Closed,
}

export class AdminSession implements StreamOwner {
	readonly stream: Stream;
	readonly address: string;
	private readonly options: AdminSessionOptions;
	private state = State.Waiting;
	/** Waiting for an answer: `onDrain` must not go on. */
	private asking = false;
	/** The statements of a Query that are to be answered when the client has read those before. */
	private later: (() => void) | null = null;
	private readonly tail = new Tail();
	/** Messages to be written when the walk ends. */
	private out: Uint8Array[] = [];
	private status = TxStatus.Idle;
	/** After an error of the extended protocol: everything up to Sync is ignored. */
	private skipping = false;
	private readonly prepared = new PreparedStatements();

	constructor(stream: Stream, options: AdminSessionOptions) {
		this.stream = stream;
		this.address = options.address;
		this.options = options;
	}

	/** AuthenticationOk has been sent, and `stream.owner` is this. */
	begin(): void {
		const { version, parameters } = this.options;
		for (const [name, value] of REPORTED) this.out.push(parameterStatus(name, value(version)));
		this.out.push(parameterStatus("application_name", parameters.get("application_name") ?? ""));
		// There is nothing to cancel: no client has process id 0, and the key is nobody's.
		this.out.push(backendKeyData(0, randomBytes(4)));
		this.ready();
		this.resume();
	}

	// ---- bytes ------------------------------------------------------------------------------------------------------

	onData(chunk: Buffer): void {
		if (this.state === State.Closed) return;
		if (this.state === State.Waiting) {
			this.tail.hold(chunk);
			if (this.tail.bytes > HELD) this.stream.pause();
			return;
		}
		const whole = this.tail.add(chunk);
		if (whole !== null) this.walk(whole);
	}

	/** The client took everything that was written. */
	onDrain(): void {
		if (this.state !== State.Waiting || this.asking) return;
		const { later } = this;
		this.later = null;
		if (later !== null) later();
		else this.resume();
	}

	/** Writes what was answered and reads on. */
	private resume(): void {
		if (this.isClosed) return;
		this.state = State.Ready;
		this.flush();
		if (!this.isReady) return;
		this.stream.resume();
		if (this.tail.bytes > 0) this.walk(this.tail.take());
	}

	/** Message after message, until a command has to be waited for. */
	private walk(chunk: Buffer): void {
		let at = 0;
		try {
			while (this.state === State.Ready && chunk.length - at >= HEADER) {
				const length = readInt32(chunk, at + 1);
				checkHeader(chunk[at]!, length);
				const next = at + 1 + length;
				if (next > chunk.length) break;
				this.onMessage(chunk[at]!, chunk, at + HEADER, next);
				at = next;
				// A Describe of seven bytes is answered with thousands: not all answers to a chunk may pile up.
				if (this.out.length >= MOST_OUT) this.flush();
			}
		} catch (error) {
			if (!(error instanceof ProtocolError)) throw error;
			this.close(new PgError("FATAL", error.sqlstate, error.message));
		}
		if (this.isClosed) return;
		// Behind a command that is waited for, everything is held; else the piece of a message that is not all here.
		if (at < chunk.length) this.tail.keep(chunk, at, this.isReady ? needed(chunk, at) : Number.POSITIVE_INFINITY);
		this.flush();
	}

	/** A client that does not read its answers gets no more of them. */
	private flush(): void {
		if (this.out.length === 0) return;
		const bytes = this.out.length === 1 ? this.out[0]! : Buffer.concat(this.out);
		this.out = [];
		if (!this.stream.writeAll(bytes) && !this.isClosed) this.state = State.Waiting;
	}

	// ---- messages ---------------------------------------------------------------------------------------------------

	private onMessage(code: number, chunk: Buffer, at: number, stop: number): void {
		if (code === Frontend.Terminate) {
			this.close(null);
			return;
		}
		if (code === Frontend.Sync) {
			this.skipping = false;
			this.ready();
			return;
		}
		if (this.skipping) return;
		const body = new Body(chunk, at, stop);
		try {
			switch (code) {
				case Frontend.Query:
					this.onQuery(body);
					break;
				case Frontend.Parse:
					this.onParse(body);
					break;
				case Frontend.Bind:
					this.onBind(body);
					break;
				case Frontend.Describe:
					this.onDescribe(body);
					break;
				case Frontend.Execute:
					this.onExecute(body);
					break;
				case Frontend.Close:
					this.onCloseMessage(body);
					break;
				case Frontend.FunctionCall:
					throw new PgError("ERROR", "0A000", "the admin database has no functions to call");
				default:
					// Flush: everything is flushed anyway. CopyData, CopyDone, CopyFail without a COPY: ignored, as by PostgreSQL.
					break;
			}
		} catch (error) {
			if (!(error instanceof PgError)) throw error;
			this.fail(answerError(error));
			if (code === Frontend.Query || code === Frontend.FunctionCall) this.ready();
			else this.skipping = true;
		}
	}

	private onQuery(body: Body): void {
		const sql = body.string();
		body.end();
		this.prepared.closeStatement("");
		this.prepared.closePortal("");
		const list = statements(sql);
		// A text that cannot be cut into statements: `understand` throws its syntax error.
		if (list === null) understand(sql);
		else if (list.length > 0) {
			this.runNext(list, 0);
			return;
		}
		this.out.push(EMPTY_QUERY_RESPONSE);
		this.ready();
	}

	/** The statements of one Query, until one fails. */
	private runNext(list: readonly AdminStatement[], i: number): void {
		const statement = list[i];
		if (statement === undefined) {
			this.ready();
			this.resume();
			return;
		}
		// Only for what the command does to the session; an error in the statement is told by the answer.
		const command = understood(statement.sql, this.options.shape);
		const answered = (answer: Answered) => {
			if (answer.columns.length > 0) this.out.push(rowDescription(answer.columns));
			if (command !== null) this.complete(command, answer, [], 0, answer.rows.length);
			this.flush();
			if (this.stream.queued === 0) this.runNext(list, i + 1);
			else this.later = () => this.runNext(list, i + 1);
		};
		this.ask(statement.sql, answered, () => this.ready());
	}

	private onParse(body: Body): void {
		const name = body.string();
		const sql = body.string();
		const types = body.int16();
		body.skip(types * 4);
		body.end();
		if (types > 0) throw TAKES_NO_PARAMETERS;
		this.prepared.parse(name, { sql, command: understand(sql, this.options.shape) });
		this.out.push(PARSE_COMPLETE);
	}

	private onBind(body: Body): void {
		const portal = body.string();
		const statement = body.string();
		body.int16s();
		const values = body.int16();
		for (let i = 0; i < values; i++) {
			const size = body.int32();
			if (size !== -1) body.skip(size >>> 0);
		}
		const formats = body.int16s();
		body.end();
		const prepared = this.prepared.statement(statement);
		if (values > 0) throw TAKES_NO_PARAMETERS;
		this.prepared.bind(portal, prepared, formats);
		this.out.push(BIND_COMPLETE);
	}

	private onDescribe(body: Body): void {
		const target = body.byte();
		const name = body.string();
		body.end();
		if (target !== Target.Statement && target !== Target.Portal)
			throw new PgError("ERROR", "08P01", `invalid DESCRIBE message subtype ${target}`);
		const portal = target === Target.Portal ? this.prepared.portal(name) : null;
		const { columns } = (portal?.statement ?? this.prepared.statement(name)).command;
		if (portal === null) this.out.push(NO_PARAMETERS);
		this.out.push(columns.length === 0 ? NO_DATA : rowDescription(columns, portal?.formats ?? []));
	}

	private onExecute(body: Body): void {
		const name = body.string();
		const most = body.int32();
		body.end();
		const portal = this.prepared.portal(name);
		const { sql, command } = portal.statement;
		if (command.tag === "") this.out.push(EMPTY_QUERY_RESPONSE);
		else if (portal.rows !== null) this.fetch(portal, portal.rows, most);
		else
			this.ask(
				sql,
				(answer) => {
					portal.rows = answer.rows;
					this.fetch(portal, answer.rows, most);
					this.resume();
				},
				() => {
					this.skipping = true;
				},
			);
	}

	/** The next rows of a portal; `most` 0 or less: all that are left. */
	private fetch(portal: Portal, rows: Answered["rows"], most: number): void {
		const { command } = portal.statement;
		if (portal.done && command.columns.length === 0)
			throw new PgError("ERROR", "55000", `portal "${portal.name}" cannot be run`);
		const from = portal.sent;
		const to = most > 0 ? Math.min(rows.length, from + most) : rows.length;
		portal.sent = to;
		// PostgreSQL suspends also when it has just sent the last row: it has not looked for another one.
		if (most > 0 && to - from === most) {
			for (const row of dataRows(command, rows, portal.formats, from, to)) this.out.push(row);
			this.out.push(PORTAL_SUSPENDED);
			return;
		}
		portal.done = true;
		this.complete(command, { columns: command.columns, rows, tag: command.tag }, portal.formats, from, to);
	}

	private onCloseMessage(body: Body): void {
		const target = body.byte();
		const name = body.string();
		body.end();
		if (target === Target.Statement) this.prepared.closeStatement(name);
		else if (target === Target.Portal) this.prepared.closePortal(name);
		else throw new PgError("ERROR", "08P01", `invalid CLOSE message subtype ${target}`);
		this.out.push(CLOSE_COMPLETE);
	}

	// ---- answers ----------------------------------------------------------------------------------------------------

	/** Calls `then` with the answer, or, when the client has been told of an error, `failed`; neither when the session is over. */
	private ask(sql: string, then: (answer: Answered) => void, failed: () => void): void {
		if (this.isClosed) return;
		this.state = State.Waiting;
		this.asking = true;
		const refuse = (error: AnswerError) => {
			this.fail(error);
			failed();
			this.resume();
		};
		const answered = (answer: CommandAnswer) => {
			this.asking = false;
			if (this.isClosed) return;
			if ("error" in answer) {
				refuse(answer.error);
				return;
			}
			try {
				for (const { severity, message } of answer.notices ?? [])
					this.notice(severity, NOTICE_STATES[severity], message);
				then(answer);
			} catch (error) {
				if (!(error instanceof PgError)) throw error;
				refuse(answerError(error));
			}
		};
		this.options
			.ask(sql)
			.catch((error): CommandAnswer => ({ error: answerError(error) }))
			.then(answered)
			// A bug, here or in the stream: no data handler is there to catch it.
			.catch((error) => this.close(new PgError("FATAL", "XX000", answerError(error).message)));
	}

	/** Rows, CommandComplete, and what the command does to the session. */
	private complete(command: Command, answer: Answered, formats: readonly number[], from: number, to: number): void {
		for (const row of dataRows(command, answer.rows, formats, from, to)) this.out.push(row);
		let tag = answer.tag;
		switch (command.effect?.kind) {
			case "begin":
				if (this.status === TxStatus.Idle) this.status = TxStatus.InBlock;
				else this.notice("WARNING", "25001", "there is already a transaction in progress");
				break;
			case "commit":
				if (this.status === TxStatus.Failed) tag = "ROLLBACK";
				this.endBlock();
				break;
			case "rollback":
				this.endBlock();
				break;
			case "rollback to savepoint":
				if (this.status === TxStatus.Failed) this.status = TxStatus.InBlock;
				break;
			case "discard":
				this.prepared.deallocate(undefined);
				break;
			case "deallocate":
				this.prepared.deallocate(command.effect.name);
				break;
		}
		this.out.push(commandComplete(tag));
	}

	private endBlock(): void {
		if (this.status === TxStatus.Idle) this.notice("WARNING", "25P01", "there is no transaction in progress");
		this.status = TxStatus.Idle;
	}

	private notice(severity: Notice["severity"], sqlstate: string, message: string): void {
		this.out.push(noticeResponse(new PgError(severity, sqlstate, message)));
	}

	/** Sends ErrorResponse. For drivers a transaction block has failed then; commands still run, nothing is ever rolled back. */
	private fail({ severity, sqlstate, message, detail, hint }: AnswerError): void {
		this.out.push(errorResponse(new PgError(severity, sqlstate, message, detail, hint), "stays"));
		if (this.status === TxStatus.InBlock) this.status = TxStatus.Failed;
	}

	private ready(): void {
		if (this.status === TxStatus.Idle) this.prepared.closePortals();
		this.out.push(readyForQuery(this.status));
	}

	// ---- the end ----------------------------------------------------------------------------------------------------

	private get isReady(): boolean {
		return this.state === State.Ready;
	}

	private get isClosed(): boolean {
		return this.state === State.Closed;
	}

	/** The one way out. `error`: what the client is told; null: it asked for the end itself, or nothing is to be said. */
	close(error: PgError | null): void {
		if (this.isClosed) return;
		if (error !== null) this.out.push(errorResponse(error, "ends"));
		this.flush();
		this.leave();
		this.stream.end();
	}

	onClose(): void {
		this.leave();
	}

	private leave(): void {
		if (this.isClosed) return;
		this.state = State.Closed;
		this.out = [];
		this.tail.clear();
		this.options.onOver();
	}
}

function understood(sql: string, shape: AdminShape): Command | null {
	try {
		return understand(sql, shape);
	} catch (error) {
		if (error instanceof PgError) return null;
		throw error;
	}
}

function checkHeader(code: number, length: number): void {
	const limit = frontendLimit(code);
	if (limit === 0) throw new ProtocolError(`invalid frontend message type ${code}`);
	if (length < 4 || length > Math.min(limit, LONGEST)) throw new ProtocolError("invalid message length");
}

/** How many bytes must be together before the message at `at` is looked at again. */
function needed(chunk: Buffer, at: number): number {
	return chunk.length - at < HEADER ? HEADER : readInt32(chunk, at + 1) + 1;
}

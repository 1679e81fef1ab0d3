// Messages that we send in a client's place to a server: login, our own queries, statements prepared anew, cancel.
// Layouts: PostgreSQL docs, "Message Formats".

import { Frontend, StartupCode, Target } from "./codes.ts";
import { Writer } from "./writer.ts";

const w = () => new Writer();

export const SYNC = Buffer.from([Frontend.Sync, 0, 0, 0, 4]);
export const FLUSH = Buffer.from([Frontend.Flush, 0, 0, 0, 4]);
export const TERMINATE = Buffer.from([Frontend.Terminate, 0, 0, 0, 4]);

export function startupMessage(parameters: Readonly<Record<string, string>>): Buffer {
	const out = w().begin(0).int32(StartupCode.Protocol30);
	for (const [name, value] of Object.entries(parameters)) out.string(name).string(value);
	return out.byte(0).end().bytes();
}

export function cancelRequest(pid: number, secret: Uint8Array): Buffer {
	return w().begin(0).int32(StartupCode.CancelRequest).int32(pid).raw(secret).end().bytes();
}

/** PasswordMessage, SASLInitialResponse and SASLResponse share a type byte; `body` is what follows the length. */
export function authResponse(body: Uint8Array): Buffer {
	return w().begin(Frontend.Password).raw(body).end().bytes();
}

export function query(sql: string): Buffer {
	return w().begin(Frontend.Query).string(sql).end().bytes();
}

/** Query; `text` ends in its NUL. */
export function queryOf(text: Uint8Array): Buffer {
	return w().begin(Frontend.Query).raw(text).end().bytes();
}

/** Parse; `rest` is the message from the query text on: the text, its NUL, and the parameter types. */
export function parse(statement: string, rest: Uint8Array): Buffer {
	return w().begin(Frontend.Parse).string(statement).raw(rest).end().bytes();
}

export function describe(target: Target, name: string): Buffer {
	return w().begin(Frontend.Describe).byte(target).string(name).end().bytes();
}

export function close(target: Target, name: string): Buffer {
	return w().begin(Frontend.Close).byte(target).string(name).end().bytes();
}

export function copyFail(reason: string): Buffer {
	return w().begin(Frontend.CopyFail).string(reason).end().bytes();
}

export const CLOSE_UNNAMED_STATEMENT = close(Target.Statement, "");
export const DESCRIBE_UNNAMED_STATEMENT = describe(Target.Statement, "");
/** Portal of our own Bind and Execute of the unnamed statement, without parameters: a name that no client's portal has. */
const PORTAL = "__pgdog";
export const BIND_OURS = w().begin(Frontend.Bind).string(PORTAL).string("").int16(0).int16(0).int16(0).end().bytes();
export const EXECUTE_OURS = w().begin(Frontend.Execute).string(PORTAL).int32(0).end().bytes();
export const CLOSE_OURS = close(Target.Portal, PORTAL);

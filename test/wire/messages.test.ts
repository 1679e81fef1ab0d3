// Every builder, byte for byte against test/support/wire-frames.ts, which shares no code with it.

import { expect, test } from "bun:test";
import fc from "fast-check";
import * as ours from "../../src/wire/backend-messages.ts";
import { Auth, Backend, Frontend, Target, TxStatus } from "../../src/wire/codes.ts";
import * as client from "../../src/wire/frontend-messages.ts";
import { Writer } from "../../src/wire/writer.ts";
import { backend, bytes, concat, cstring, frontend, int16, int32, message, text } from "../support/wire-frames.ts";

const key4 = bytes(1, 2, 3, 255);
const key32 = Uint8Array.from({ length: 32 }, (_, i) => 255 - i);

const TABLE: [string, Uint8Array, Uint8Array][] = [
	["ParseComplete", ours.PARSE_COMPLETE, backend.parseComplete()],
	["CloseComplete", ours.CLOSE_COMPLETE, backend.closeComplete()],
	["EmptyQueryResponse", ours.EMPTY_QUERY_RESPONSE, backend.emptyQueryResponse()],
	["AuthenticationOk", ours.AUTHENTICATION_OK, backend.authenticationOk()],
	["ReadyForQuery I", ours.READY_IDLE, backend.readyForQuery("I")],
	["ReadyForQuery T", ours.readyForQuery(TxStatus.InBlock), backend.readyForQuery("T")],
	["ReadyForQuery E", ours.readyForQuery(TxStatus.Failed), backend.readyForQuery("E")],
	[
		"AuthenticationCleartextPassword",
		ours.authentication(Auth.CleartextPassword),
		backend.authenticationCleartextPassword(),
	],
	["AuthenticationMD5Password", ours.authentication(Auth.MD5Password, key4), backend.authenticationMD5Password(key4)],
	["AuthenticationSASLFinal", ours.authentication(Auth.SASLFinal, text("v=x")), backend.authenticationSASLFinal("v=x")],
	["ParameterStatus", ours.parameterStatus("ä", ""), backend.parameterStatus("ä", "")],
	["BackendKeyData of 3.0", ours.backendKeyData(0x7fffffff, key4), backend.backendKeyData(0x7fffffff, key4)],
	["BackendKeyData of 3.2", ours.backendKeyData(-1, key32), backend.backendKeyData(-1, key32)],
	// As PostgreSQL 17 answers a client that asks for 3.9: 00 03 00 00, not the minor version alone.
	[
		"NegotiateProtocolVersion 3.0",
		ours.negotiateProtocolVersion(0, ["_pq_.a"]),
		backend.negotiateProtocolVersion(196608, ["_pq_.a"]),
	],
	["NegotiateProtocolVersion 3.2", ours.negotiateProtocolVersion(2, []), backend.negotiateProtocolVersion(196610)],
	["CommandComplete", ours.commandComplete("INSERT 0 1"), backend.commandComplete("INSERT 0 1")],
	["RowDescription of none", ours.rowDescription([]), backend.rowDescription()],
	[
		"RowDescription",
		ours.rowDescription([{ name: "a" }, { name: "é", oid: ours.Oid.int8 }, { name: "", oid: ours.Oid.bool }]),
		backend.rowDescription("a", { name: "é", oid: 20, size: 8 }, { name: "", oid: 16, size: 1 }),
	],
	["DataRow", ours.dataRow(["a", null, "", "é"]), backend.dataRow("a", null, "", "é")],
	["DataRow of none", ours.dataRow([]), backend.dataRow()],
	["Sync", client.SYNC, frontend.sync()],
	["Terminate", client.TERMINATE, frontend.terminate()],
	[
		"StartupMessage",
		client.startupMessage({ user: "ü", database: "" }),
		frontend.startupMessage({ user: "ü", database: "" }),
	],
	["StartupMessage without parameters", client.startupMessage({}), frontend.startupMessage({})],
	["CancelRequest of 3.0", client.cancelRequest(7, key4), frontend.cancelRequest(7, key4)],
	["CancelRequest of 3.2", client.cancelRequest(-7, key32), frontend.cancelRequest(-7, key32)],
	["PasswordMessage", client.authResponse(cstring("ß")), frontend.passwordMessage("ß")],
	["SASLResponse", client.authResponse(text("c=biws")), frontend.saslResponse("c=biws")],
	["Query", client.query("SELECT 'é'"), frontend.query("SELECT 'é'")],
	[
		"Parse",
		client.parse("s", concat(cstring("SELECT $1"), int16(1), int32(23))),
		frontend.parse("SELECT $1", "s", [23]),
	],
	["Close of a statement", client.close(Target.Statement, "s"), frontend.close("S", "s")],
	["Close of a portal", client.close(Target.Portal, "ö"), frontend.close("P", "ö")],
	["Close of the unnamed statement", client.CLOSE_UNNAMED_STATEMENT, frontend.close("S")],
	["CopyFail", client.copyFail("why"), frontend.copyFail("why")],
];

test.each(TABLE)("%s", (_, made, expected) => {
	expect(Buffer.from(made).toString("hex")).toBe(Buffer.from(expected).toString("hex"));
});

test("strings of any length and script grow the writer", () => {
	fc.assert(
		fc.property(fc.array(fc.string({ unit: "grapheme", maxLength: 2000 }), { maxLength: 5 }), (raw) => {
			const values = raw.map((value) => value.replaceAll("\0", "").toWellFormed());
			expect(ours.dataRow(values).equals(backend.dataRow(...values))).toBe(true);
			for (const value of values) expect(client.query(value).equals(frontend.query(value))).toBe(true);
		}),
	);
});

test("a writer builds several messages, gives them away once, and begins anew", () => {
	const writer = new Writer(1);
	writer.begin(Backend.DataRow).int16(0).end().begin(Frontend.Query).string("x").end();
	const first = writer.bytes();
	const second = writer.begin(0).int32(-2).byte(255).int16(-1).int16(65535).end().bytes();
	expect(first.equals(concat(backend.dataRow(), frontend.query("x")))).toBe(true);
	expect(second.equals(concat(int32(13), int32(-2), bytes(255, 255, 255, 255, 255)))).toBe(true);
	expect(first.equals(concat(backend.dataRow(), frontend.query("x")))).toBe(true);
	expect(writer.bytes().length).toBe(0);
});

test("the codes are the letters of the manual", () => {
	expect(message("Q")[0]).toBe(Frontend.Query);
	const letters = (codes: number[]) => String.fromCharCode(...codes);
	expect(
		letters([
			Frontend.Parse,
			Frontend.Bind,
			Frontend.Describe,
			Frontend.Execute,
			Frontend.Close,
			Frontend.Sync,
			Frontend.Flush,
			Frontend.CopyData,
			Frontend.CopyDone,
			Frontend.CopyFail,
			Frontend.FunctionCall,
			Frontend.Terminate,
			Frontend.Password,
		]),
	).toBe("PBDECSHdcfFXp");
	expect(
		letters([
			Backend.RowDescription,
			Backend.CommandComplete,
			Backend.ReadyForQuery,
			Backend.BindComplete,
			Backend.NoData,
			Backend.ParameterDescription,
			Backend.PortalSuspended,
			Backend.ErrorResponse,
			Backend.NoticeResponse,
			Backend.NotificationResponse,
			Backend.ParameterStatus,
			Backend.BackendKeyData,
			Backend.Authentication,
			Backend.CopyInResponse,
			Backend.CopyOutResponse,
			Backend.CopyBothResponse,
			Backend.FunctionCallResponse,
			Backend.NegotiateProtocolVersion,
		]),
	).toBe("TCZ2ntsENASKRGHWVv");
});

// A client that has no server: what is answered without one, what is refused and thrown away, and what waits for one. Its Link is
// played; wherever its messages are cut, the answers are the same.

import { expect, test } from "bun:test";
import fc from "fast-check";
import type { ClientContext } from "../../src/client/context.ts";
import { Incoming } from "../../src/client/incoming.ts";
import type { Link, LinkOwner } from "../../src/client/link.ts";
import { Budget } from "../../src/client/share.ts";
import { Wait } from "../../src/client/wait.ts";
import { Walk } from "../../src/client/walk.ts";
import { PgError } from "../../src/errors.ts";
import { TxStatus } from "../../src/wire/codes.ts";
import { concat, frontend, int32, message } from "../support/wire-frames.ts";

function start(pooler_mode = "transaction") {
	const heard: string[] = [];
	const stream = {
		queued: 0,
		pause() {},
		resume() {},
		writeAll(bytes: Buffer) {
			for (let at = 0; at < bytes.length; at += 1 + bytes.readInt32BE(at + 1)) {
				const code = String.fromCharCode(bytes[at]!);
				heard.push(code === "E" ? `E ${/C(\w{5})\0/.exec(bytes.toString("latin1", at))![1]}` : code);
			}
			return true;
		},
	};
	const incoming = new Incoming(
		{ time: 0, collected: new Budget(1 << 20) } as unknown as ClientContext,
		stream as never,
	);
	const client = {
		stream,
		incoming,
		countError() {},
		close(reason: string, error?: PgError) {
			heard.push(error === undefined ? reason : `${reason} (${error.sqlstate})`);
			incoming.close();
		},
	};
	const link = {
		server: null,
		overdue: null as PgError | null,
		takeOverdue() {
			const { overdue } = link;
			link.overdue = null;
			return overdue;
		},
		isLeaving: false,
		routing: { needed: false, heldBegin: { status: TxStatus.Idle, fail() {} } },
		checkout: { isRouted: false, pool: { spec: { pooler_mode } }, take: () => null },
		saying: { prepared: () => ({ closeAlone: () => heard.push("taken away") }) },
	};
	const walk = new Walk(client as unknown as LinkOwner, link as unknown as Link);
	incoming.goOn();
	const send = (...messages: Uint8Array[]) => {
		const whole = incoming.add(Buffer.from(concat(...messages)));
		if (whole !== null) walk.read(whole);
	};
	return { heard, stream, incoming, link, walk, send };
}

const BATCH = [frontend.bind(), frontend.execute(), frontend.sync()];

const ANSWERED: [string, Uint8Array[], string[]][] = [
	["a Sync", [frontend.sync(), frontend.flush(), frontend.sync()], ["Z", "Z"]],
	["a malformed Sync", [message("S", int32(0)), frontend.sync()], ["E 08P01", "Z", "Z"]],
	[
		"a malformed Flush, with all up to the Sync behind it",
		[message("H", int32(0)), ...BATCH, frontend.sync()],
		["E 08P01", "Z", "Z"],
	],
	[
		"Close messages",
		[frontend.close("S", "one"), frontend.close("P", "two"), frontend.sync()],
		["taken away", "3", "3", "Z"],
	],
	[
		"a transaction where that is refused",
		[frontend.query("BEGIN"), frontend.parse("BEGIN"), ...BATCH, frontend.sync()],
		["E 58000", "Z", "E 58000", "Z", "Z"],
	],
	["what is left of a COPY that has failed", [frontend.copyData("1\n"), frontend.copyDone(), frontend.sync()], ["Z"]],
	["its end", [frontend.terminate()], ["client disconnected"]],
	[
		"what is no message",
		[frontend.sync(), message("?")],
		["Z", "protocol error: invalid frontend message type 63 (08P01)"],
	],
];

test.each(ANSWERED)("%s is answered without a server, wherever it is cut", (_, messages, expected) => {
	const all = concat(...messages);
	fc.assert(
		fc.property(fc.array(fc.nat(all.length)), (places) => {
			const { send, heard } = start("statement");
			const cuts = [0, ...places.sort((a, b) => a - b), all.length];
			for (const [i, cut] of cuts.entries()) if (i > 0 && cut > cuts[i - 1]!) send(all.subarray(cuts[i - 1], cut));
			// As many Close messages as are here are answered at once.
			expect(heard.join("").replaceAll("taken away", "")).toBe(expected.join("").replaceAll("taken away", ""));
		}),
	);
});

test("a request waits for a server with all behind it; refused, it alone is thrown away", () => {
	const { send, heard, incoming, walk } = start();
	send(frontend.parse("SELECT 1"), frontend.bind());
	expect(incoming.wait).toBe(Wait.Nothing);
	send(frontend.execute(), frontend.sync(), frontend.query("SELECT 2"));
	send(frontend.sync());
	expect(incoming.wait).toBe(Wait.Server);
	walk.refuseHeld(new PgError("ERROR", "57014", "canceling statement due to user request"));
	expect(heard).toEqual(["E 57014", "Z"]);
	expect(incoming.wait).toBe(Wait.Server);
	walk.refuseHeld(new PgError("ERROR", "57014", "canceling statement due to user request"));
	expect(heard).toEqual(["E 57014", "Z", "E 57014", "Z", "Z"]);
	expect(incoming.wait).toBe(Wait.Nothing);
});

test("a batch whose end does not come is not waited for any longer than the client is quiet", () => {
	const { send, incoming, walk } = start();
	send(frontend.parse("SELECT 1"));
	expect(incoming.isBatchOpen).toBeTrue();
	walk.onQuiet();
	expect(incoming.wait).toBe(Wait.Server);
	expect(incoming.ahead.hurried).toBeFalse();
});

test("what became known too late is told instead of the answer to the next request, and to no other", () => {
	const { send, heard, link, incoming } = start();
	link.overdue = new PgError("ERROR", "53200", "the settings of this session take more than the proxy keeps");
	send(frontend.sync(), frontend.query("SELECT 1"));
	expect(heard).toEqual(["Z", "E 53200", "Z"]);
	send(frontend.query("SELECT 2"));
	expect(incoming.wait).toBe(Wait.Server);
});

test("who does not read answers gets no more of them, until it does", () => {
	const { send, heard, stream, incoming, walk } = start();
	stream.queued = 1 << 20;
	send(frontend.sync());
	expect([heard.length, incoming.wait]).toEqual([0, Wait.Drain]);
	stream.queued = 0;
	walk.resume();
	expect(heard).toEqual(["Z"]);
});

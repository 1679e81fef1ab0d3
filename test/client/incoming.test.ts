// What a client has sent is lost by no wait, and read in its order: what is held comes first, from its beginning.

import { expect, test } from "bun:test";
import type { ClientContext } from "../../src/client/context.ts";
import { HELD, Incoming } from "../../src/client/incoming.ts";
import { Budget } from "../../src/client/share.ts";
import { Wait } from "../../src/client/wait.ts";
import { PgError } from "../../src/errors.ts";
import type { Sink } from "../../src/net/stream.ts";

const MOST = 100 << 20;

function start(budget = new Budget(MOST)) {
	const stream = {
		paused: false,
		pause: () => {
			stream.paused = true;
		},
		resume: () => {
			stream.paused = false;
		},
	};
	const context = { time: 1, collected: budget };
	const incoming = new Incoming(context as unknown as ClientContext, stream as unknown as Sink);
	incoming.goOn();
	return { incoming, stream, context, budget };
}

const chunk = (text: string) => Buffer.from(text);

test("what is held is read again from its beginning, with what has come meanwhile behind it", () => {
	const { incoming } = start();
	incoming.routedTo(4);
	incoming.hold(chunk("aabbcc"), 2, Wait.Answers);
	expect([incoming.isHeld, incoming.routed]).toEqual([true, 2]);
	expect(incoming.add(chunk("dd"))).toBeNull();
	expect(incoming.first).toBe(98);
	incoming.goOn();
	expect(incoming.take()?.toString()).toBe("bbccdd");
	expect(incoming.take()).toBeNull();
	expect(incoming.add(chunk("ee"))?.toString()).toBe("ee");
});

test("a message that is here in part is read when it is whole, and routed then", () => {
	const { incoming } = start();
	incoming.routedTo(2);
	expect(incoming.keep(chunk("aab"), 2, 3)).toBeTrue();
	expect(incoming.routed).toBe(0);
	expect(incoming.add(chunk("b"))).toBeNull();
	expect(incoming.isHeld).toBeFalse();
	expect(incoming.add(chunk("b"))?.toString()).toBe("bbb");
});

test("a client that waits may send so much ahead; then it is not read, until it goes on", () => {
	const { incoming, stream } = start();
	incoming.waitFor(Wait.Task);
	incoming.add(Buffer.alloc(HELD));
	expect(stream.paused).toBeFalse();
	incoming.add(Buffer.alloc(1));
	expect(stream.paused).toBeTrue();
	incoming.goOn();
	expect(stream.paused).toBeFalse();
	expect(incoming.take()?.length).toBe(HELD + 1);
});

test("who sends what ends the connection is heard no more, and waits to be told", () => {
	const { incoming, context } = start();
	const error = new PgError("FATAL", "08P01", "invalid message length");
	incoming.add(chunk("a"));
	incoming.part(error, Wait.Ends);
	context.time = 2;
	expect(incoming.add(chunk("b"))).toBeNull();
	expect([incoming.parting, incoming.wait, incoming.heardAt]).toEqual([error, Wait.Ends, 2]);
	expect(incoming.take()).toBeNull();
});

test("a large message has its share from its first bytes on, or there is no room for it; who goes gives it back", () => {
	const budget = new Budget(8 << 20);
	const [one, other] = [start(budget).incoming, start(budget).incoming];
	expect(one.keep(chunk("a"), 0, 6 << 20)).toBeTrue();
	expect(other.keep(chunk("a"), 0, 6 << 20)).toBeFalse();
	one.close();
	expect([one.isClosed, one.isHeld, budget.used]).toEqual([true, false, 0]);
	expect(one.add(chunk("b"))).toBeNull();
	expect(other.keep(chunk("a"), 0, 6 << 20)).toBeTrue();
});

// What a shard's Link does to its client's socket, as whoever merges the shards' answers hears of it.

import { expect, test } from "bun:test";
import { ShardPort } from "../../src/shards/shard-port.ts";

function port(full = false) {
	const events: string[] = [];
	const owner = {
		onShard: (shard: number, bytes: Buffer) => {
			events.push(`${shard} ${bytes}`);
			return !full;
		},
		onShardReads: () => events.push("reads"),
		onShardWait: () => events.push("told"),
		onShardEnd: (shard: number) => events.push(`${shard} ends`),
		flow: () => events.push("flow"),
	};
	return { port: new ShardPort(1, owner), events };
}

test("what is written is its owner's at once, and does not change when it is volatile", () => {
	const { port: own, events } = port();
	const buffer = Buffer.from("abcdef");
	expect(own.write(buffer, 1, 2)).toBe(true);
	own.write(buffer, 3, 2, false);
	buffer.fill(0);
	own.writeAll(Buffer.from("g"));
	expect(events).toEqual(["1 bc", "1 de", "1 g"]);
	expect(own.bytesOut).toBe(5);
	const { port: full } = port(true);
	expect([full.writeAll(buffer), full.queued > 0]).toEqual([false, true]);
	full.drained();
	expect(full.queued).toBe(0);
});

test("a client that may not be sent more is not read until it reads on", () => {
	const { port: own, events } = port();
	own.pause();
	expect(own.paused).toBe(true);
	own.resume();
	own.resume();
	expect(events).toEqual(["flow", "flow", "reads", "reads"]);
});

test("the end is told, also when it comes in the middle of a message, which nothing else completes", () => {
	const { port: own, events } = port();
	own.end();
	own.midMessage = true;
	own.writeAll(Buffer.from("x"));
	expect(events).toEqual(["1 ends", "1 ends"]);
});

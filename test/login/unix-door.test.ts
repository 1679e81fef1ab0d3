// Clients of the Unix socket, who are handed to workers in turn.

import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UnixDoor } from "../../src/login/unix-door.ts";
import { Descriptors } from "../../src/net/descriptors.ts";
import { closeDescriptor, sendNow } from "../../src/net/options.ts";
import type { Attendance } from "../../src/stats/attendance.ts";
import { until } from "../support/until.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-unix-door-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("they go on with the workers that come back to their loops, or are turned away", async () => {
	let limit = 1_000_000;
	const descriptors = new Descriptors(undefined, () => limit);
	const handed: number[] = [];
	let isOpen = true;
	const attendance = { isStuck: (worker: number) => worker === 1 } as unknown as Attendance;
	const door = new UnixDoor(descriptors, attendance, 3, (worker, fd) => {
		if (!isOpen) return false;
		handed.push(worker);
		// The connection goes on by this descriptor.
		sendNow(fd, Buffer.from(`worker ${worker}`));
		closeDescriptor(fd);
		return true;
	});
	const unix = join(folder, "socket");
	const listener = Bun.listen<undefined>({ unix, socket: { data() {}, open: (socket) => door.accept(socket) } });
	const visit = async () => {
		let heard = "";
		const over = Promise.withResolvers<void>();
		const data = (_: unknown, chunk: Buffer) => {
			heard += chunk.toString("latin1");
		};
		await Bun.connect({ unix, socket: { data, close: () => over.resolve(), error: () => over.resolve() } });
		await over.promise;
		return heard;
	};
	expect([await visit(), await visit(), await visit()]).toEqual(["worker 0", "worker 2", "worker 0"]);
	expect([handed, descriptors.connections]).toEqual([[0, 2, 0], 3]);
	isOpen = false;
	expect(await visit()).toBe("");
	limit = 1;
	expect(await visit()).toContain("C53300\0");
	await until(() => descriptors.connections === 3, "the others to be counted no more");
	listener.stop();
});

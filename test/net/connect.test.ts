// Connecting to servers with TLS: however it ends, the descriptor is free again, once.

import { expect, test } from "bun:test";
import { connect } from "../../src/net/connect.ts";
import { Descriptors } from "../../src/net/descriptors.ts";
import { socketHandlers } from "../../src/net/stream.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";

const KEEP_ALIVE = { keepalive: false };

test("a server that says too little of TLS in time costs one descriptor while that lasts", async () => {
	const handlers = socketHandlers((error) => {
		throw error;
	});
	const descriptors = new Descriptors();
	for (const answer of ["", "S"]) {
		using server = Bun.listen({
			hostname: "127.0.0.1",
			port: 0,
			socket: {
				data(socket) {
					socket.write(answer);
				},
			},
		});
		const attempt = connect(
			{ host: "127.0.0.1", port: server.port },
			100,
			{ onData() {}, onDrain() {}, onClose() {} },
			{ handlers, keepAlive: KEEP_ALIVE, descriptors, tls: { verify: "prefer", authorities: null, identity: null } },
		);
		expect(descriptors.connections).toBe(1);
		await rejects(attempt, "no answer within");
		await until(() => descriptors.connections <= 0, "it to be closed");
		await Bun.sleep(50);
		expect(descriptors.connections).toBe(0);
	}
});

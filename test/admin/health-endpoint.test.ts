import { expect, test } from "bun:test";
import { isUp, serveHealth } from "../../src/admin/health-endpoint.ts";
import type { PoolRow } from "../../src/status/rows.ts";
import { PlainSource, VITALS } from "./support.ts";

/** A pool for each value. */
function pools(...healthy: boolean[]): PoolRow[] {
	const [pool] = new PlainSource().poolRows;
	return healthy.map((each, id) => ({ ...pool!, id, vitals: { ...VITALS, healthy: each } }));
}

/** Sends `text` as it is and reads until the other side closes. */
async function raw(port: number, text: string): Promise<string> {
	const { promise, resolve } = Promise.withResolvers<string>();
	let got = "";
	await Bun.connect({
		hostname: "127.0.0.1",
		port,
		socket: {
			open: (socket) => void socket.write(text),
			data: (_, chunk) => {
				got += chunk.toString();
			},
			close: () => resolve(got),
		},
	});
	return promise;
}

test.each([
	[[], false],
	[[true], true],
	[[false], false],
	[[false, true, false], true],
	[[false, false], false],
])("with pools whose health is %p it is up: %p", (healthy, up) => {
	expect(isUp(pools(...healthy))).toBe(up);
});

test("a banned pool whose server is well counts as well", () => {
	expect(isUp(pools(true).map((pool) => ({ ...pool, vitals: { ...pool.vitals, ban: "by hand" } })))).toBe(true);
});

test("each request is answered with the health of its moment, whatever its path and method", async () => {
	let up = true;
	const endpoint = serveHealth(0, () => up);
	try {
		const url = `http://127.0.0.1:${endpoint.port}`;
		for (const [path, method] of [
			["/", "GET"],
			["/healthz?deep=1", "GET"],
			["/a/b", "POST"],
			["/", "DELETE"],
			["/", "OPTIONS"],
		] as const) {
			for (up of [true, false]) {
				const response = await fetch(`${url}${path}`, {
					method,
					...(method === "POST" ? { body: "x".repeat(9000) } : {}),
				});
				expect(response.status).toBe(up ? 200 : 502);
				expect(response.headers.get("content-type")).toBe("text/plain");
				expect(await response.text()).toBe(up ? "up" : "down");
			}
		}
		const head = await fetch(url, { method: "HEAD" });
		expect(head.status).toBe(502);
		expect(await head.text()).toBe("");
	} finally {
		endpoint.stop();
	}
});

// A balancer that asks every second over kept connections would hold them all; and one from before keep-alive waits for the end.
test.each(["GET / HTTP/1.1\r\nHost: proxy\r\nConnection: keep-alive\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"])(
	"a connection is closed behind its answer: %j",
	async (request) => {
		const endpoint = serveHealth(0, () => true);
		try {
			const answer = await raw(endpoint.port, request);
			expect(answer).toStartWith("HTTP/1.1 200 OK\r\n");
			expect(answer).toEndWith("\r\n\r\nup");
		} finally {
			endpoint.stop();
		}
	},
);

test("a port that is taken is an error that names the port, the setting and the reason", () => {
	const endpoint = serveHealth(0, () => true);
	try {
		expect(() => serveHealth(endpoint.port, () => true)).toThrow(
			`cannot listen on 0.0.0.0:${endpoint.port} (healthcheck_port): address already in use`,
		);
	} finally {
		endpoint.stop();
	}
});

test("stop frees the port at once, and closes a connection that has asked half", async () => {
	const first = serveHealth(0, () => true);
	const open = raw(first.port, "GET / HT");
	// It is accepted: the listener answers in order, and this came later.
	await raw(first.port, "GET / HTTP/1.0\r\n\r\n");
	first.stop();
	expect(await open).toBe("");
	const second = serveHealth(first.port, () => false);
	try {
		expect(await raw(second.port, "GET / HTTP/1.0\r\n\r\n")).toEndWith("down");
	} finally {
		second.stop();
	}
});

import { expect, test } from "bun:test";
import { type Health, isUp, serveHealth } from "../../src/admin/health-endpoint.ts";
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
	expect(isUp(pools(...healthy), false)).toBe(up);
	// Pools that come with log-ins are no worse for not being there yet.
	expect(isUp(pools(...healthy), true)).toBe(up || healthy.length === 0);
});

test("a banned pool whose server is well counts as well", () => {
	expect(
		isUp(
			pools(true).map((pool) => ({ ...pool, vitals: { ...pool.vitals, ban: "by hand" } })),
			false,
		),
	).toBe(true);
});

const UP: Health = { isUp: () => true, isLive: () => true, isStopping: () => false };
const DOWN: Health = { ...UP, isUp: () => false };

test("each request is answered with the health of its moment, whatever its method", async () => {
	let up = true;
	const health = { ...UP, isUp: () => up };
	const endpoint = serveHealth(0, health);
	try {
		const url = `http://127.0.0.1:${endpoint.port}`;
		for (const [path, method] of [
			["/", "GET"],
			["/?deep=1", "GET"],
			["/ready", "POST"],
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

test.each<[string, Health, Record<string, number>]>([
	["well", UP, { "/": 200, "/ready": 200, "/live": 200 }],
	["without a server", DOWN, { "/": 502, "/ready": 502, "/live": 200 }],
	["stopping", { ...UP, isStopping: () => true }, { "/": 502, "/ready": 503, "/live": 200 }],
	["stuck", { ...UP, isLive: () => false }, { "/": 200, "/ready": 200, "/live": 503 }],
])("a proxy that is %s", async (_, health, expected) => {
	const endpoint = serveHealth(0, health);
	try {
		const status = async (path: string) => (await fetch(`http://127.0.0.1:${endpoint.port}${path}`)).status;
		const found = Object.fromEntries(
			await Promise.all(Object.keys(expected).map(async (path) => [path, await status(path)])),
		);
		expect(found).toEqual(expected);
		expect([await status("/healthz"), await status("/live/x")]).toEqual([404, 404]);
	} finally {
		endpoint.stop();
	}
});

// A balancer that asks every second over kept connections would hold them all; and one from before keep-alive waits for the end.
test.each(["GET / HTTP/1.1\r\nHost: proxy\r\nConnection: keep-alive\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"])(
	"a connection is closed behind its answer: %j",
	async (request) => {
		const endpoint = serveHealth(0, UP);
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
	const endpoint = serveHealth(0, UP);
	try {
		expect(() => serveHealth(endpoint.port, UP)).toThrow(
			`cannot listen on 0.0.0.0:${endpoint.port} (healthcheck_port): address already in use`,
		);
	} finally {
		endpoint.stop();
	}
});

test("stop frees the port at once, and closes a connection that has asked half", async () => {
	const first = serveHealth(0, UP);
	const open = raw(first.port, "GET / HT");
	// It is accepted: the listener answers in order, and this came later.
	await raw(first.port, "GET / HTTP/1.0\r\n\r\n");
	first.stop();
	expect(await open).toBe("");
	const second = serveHealth(first.port, DOWN);
	try {
		expect(await raw(second.port, "GET / HTTP/1.0\r\n\r\n")).toEndWith("down");
	} finally {
		second.stop();
	}
});

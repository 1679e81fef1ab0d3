// Clients that read too slowly, write too much, write too slowly or do nothing: each costs the proxy a bounded amount of memory,
// and the others notice nothing.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { RawClient } from "../support/raw-client.ts";
import { until, within } from "../support/until.ts";
import { bytes, concat, cstring, frontend, int16, int32 } from "../support/wire-frames.ts";
import { Stage } from "./stage.ts";

setDefaultTimeout(60_000);

const MB = 1 << 20;
/** What the proxy may need for one such client: chunks on their way, and what the collector has not swept yet. */
const BOUND = 160 * MB;

let stage: Stage;

beforeAll(async () => {
	// A client that blocks one server leaves others, and so does what a reset client had sent ahead, which is worked off first.
	stage = await Stage.start({ pool: 4, general: { log_connections: false, log_disconnections: false } });
	await stage.look("CREATE TABLE copied (line text); ALTER TABLE copied OWNER TO pgdog; SELECT 1");
	// Warm: the first large chunks cost memory that stays.
	await (await stage.witness()).query("SELECT repeat('x', 20000000)");
});
afterAll(() => stage?.[Symbol.asyncDispose]());

/** Watches the proxy's memory while `work` runs. @returns the most above its start */
async function growth(work: () => Promise<void>): Promise<number> {
	const before = stage.memory();
	let most = before;
	const look = () => {
		most = Math.max(most, stage.memory());
	};
	const timer = setInterval(look, 5);
	try {
		await work();
		look();
	} finally {
		clearInterval(timer);
	}
	return most - before;
}

/** Another client's queries are answered, for as long as `time` milliseconds; the bound is for a machine that is busy otherwise. */
async function othersServed(time: number): Promise<void> {
	const witness = await stage.witness();
	for (const end = performance.now() + time; performance.now() < end; await Bun.sleep(10)) {
		const start = performance.now();
		expect((await witness.query("SELECT 'served'")).rows).toEqual([["served"]]);
		expect(performance.now() - start).toBeLessThan(4_000);
	}
}

const HUGE_RESULTS: [string, Uint8Array][] = [
	["many rows", frontend.query("SELECT repeat('x', 1000) FROM generate_series(1, 400000)")],
	["rows of 20 MB", frontend.query("SELECT repeat('x', 20000000) FROM generate_series(1, 20)")],
	["COPY", frontend.query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 400000)) TO STDOUT")],
	[
		"a pipeline of results",
		concat(
			...Array.from({ length: 100 }, () =>
				concat(frontend.parse("SELECT repeat('x', 4000000)"), frontend.bind(), frontend.execute(), frontend.sync()),
			),
		),
	],
];

for (const [name, request] of HUGE_RESULTS) {
	test(`a client that does not read 400 MB of result (${name}) costs little memory`, async () => {
		const client = await stage.client();
		try {
			const grown = await growth(async () => {
				client.pause();
				client.send(request);
				await othersServed(400);
			});
			expect(grown).toBeLessThan(BOUND);
		} finally {
			client.reset();
		}
		await stage.intact(`a client that does not read ${name}`);
	});
}

test("a client that reads nothing for a while gets every byte once it reads", async () => {
	const client = await stage.client();
	client.pause();
	client.send(frontend.query("SELECT g, repeat('x', 1000) FROM generate_series(1, 30000) g"));
	await Bun.sleep(200);
	client.resume();
	const { rows, status } = await client.result();
	expect(status).toBe("I");
	expect(rows.length).toBe(30_000);
	expect(rows.every((row, i) => row[0] === String(i + 1) && row[1]?.length === 1000)).toBe(true);
	client.reset();
	await stage.intact("a client that read late");
});

const FLOODS: [string, Uint8Array][] = [
	["queries", frontend.query("SELECT repeat('x', 100)")],
	["Syncs", frontend.sync()],
	["empty queries", frontend.query("")],
	["batches", concat(frontend.parse("SELECT 1"), frontend.bind(), frontend.execute(), frontend.sync())],
	["Closes", concat(frontend.close("S", "nothing"), frontend.sync())],
	["errors", concat(frontend.parse("SELEC"), frontend.sync())],
	["Parses of new names", concat(frontend.parse("SELECT 1", "again"), frontend.close("S", "again"), frontend.sync())],
];

for (const [name, one] of FLOODS) {
	test(`a client that writes 12 MB of ${name} and reads nothing costs little memory`, async () => {
		const client = await stage.client();
		const piece = concat(...Array.from({ length: Math.ceil(65_536 / one.length) }, () => one));
		try {
			const grown = await growth(async () => {
				client.pause();
				for (let sent = 0; sent < 12 * MB; sent += piece.length) client.send(piece);
				await othersServed(300);
			});
			expect(grown).toBeLessThan(BOUND);
		} finally {
			client.reset();
		}
		await stage.intact(`a flood of ${name}`);
	});
}

/** A header that promises `size` bytes of body, of which `first` are there, and the last ones. */
function head(code: string, size: number, first: Uint8Array): Uint8Array {
	return concat(bytes(code.charCodeAt(0)), int32(size + 4), first);
}

const SIZE = 100 * MB;
const VALUE = SIZE - 1000;
const LARGE: [string, Uint8Array, Uint8Array, Uint8Array, Uint8Array][] = [
	// name, before, head, end, behind
	[
		"Query",
		new Uint8Array(0),
		head("Q", "SELECT length('".length + VALUE + "')\0".length, Buffer.from("SELECT length('")),
		Buffer.from("')\0"),
		new Uint8Array(0),
	],
	[
		"Bind",
		frontend.parse("SELECT length($1)"),
		head("B", 2 + 2 + 2 + 4 + VALUE + 2, concat(cstring(""), cstring(""), int16(0), int16(1), int32(VALUE))),
		int16(0),
		concat(frontend.execute(), frontend.sync()),
	],
	[
		"CopyData",
		frontend.query("COPY copied FROM STDIN"),
		head("d", VALUE + 1, new Uint8Array(0)),
		Buffer.from("\n"),
		concat(frontend.copyDone(), frontend.query("SELECT max(length(line)) FROM copied")),
	],
];

for (const [name, before, start, end, behind] of LARGE) {
	test(`a ${name} of 100 MB passes through in pieces`, async () => {
		await using client = await stage.client({ timeout: 30_000 });
		client.send(before);
		const grown = await growth(async () => {
			client.send(start);
			const piece = new Uint8Array(256 << 10).fill(120);
			for (let left = VALUE; left > 0; left -= piece.length) {
				client.send(left < piece.length ? piece.subarray(0, left) : piece);
				// Nobody else is held up meanwhile.
				if (left % 64 === 0) await Bun.sleep(0);
			}
			client.send(end, behind);
			await until(() => client.received.some((message) => message.code === "D"), "the answer", 25_000);
		});
		const row = client.received.find((message) => message.code === "D");
		expect(row?.body.toString("latin1")).toContain(String(VALUE));
		expect(client.received.some((message) => message.code === "E")).toBe(false);
		expect(grown).toBeLessThan(BOUND);
		await (await stage.witness()).query("TRUNCATE copied");
		await stage.intact(`a ${name} of 100 MB`);
	});

	test(`a client that vanishes in the middle of a ${name} of 100 MB leaves nothing behind`, async () => {
		for (const reset of [true, false]) {
			const client = await stage.client();
			client.send(before, start, new Uint8Array(5 * MB).fill(120));
			await Bun.sleep(20);
			reset ? client.reset() : client.close();
			await stage.intact(`half a ${name} of 100 MB`);
		}
		expect(await stage.look("SELECT count(*) FROM copied")).toEqual(["0"]);
	});
}

test("a Parse of 100 MB is refused: it would have to be kept", async () => {
	const client = await stage.client();
	client.send(concat(bytes("P".charCodeAt(0)), int32(SIZE)));
	const messages = await client.closed;
	expect(messages.map((message) => message.code)).toEqual(["E"]);
	expect(messages[0]?.body.toString()).toContain("C54000");
	await stage.intact("a Parse of 100 MB");
});

test("clients that promise a large message and send a little of it cost what they sent", async () => {
	const clients = await Promise.all(Array.from({ length: 50 }, () => stage.client()));
	const grown = await growth(async () => {
		for (const client of clients) client.send(head("P", 60 * MB, new Uint8Array(1000)));
		await othersServed(200);
	});
	expect(grown).toBeLessThan(BOUND);
	for (const client of clients) client.reset();
	await stage.intact("promises");
});

test("clients that send one byte at a time are served", async () => {
	const one = async (run: (send: (whole: Uint8Array) => Promise<void>, client: RawClient) => Promise<void>) => {
		const client = await RawClient.open(stage.door);
		await run(async (whole) => {
			for (let i = 0; i < whole.length; i++) {
				client.send(whole.subarray(i, i + 1));
				await Bun.sleep(0);
			}
		}, client);
		client.reset();
	};
	const session = async () => {
		const client = await stage.client();
		const drip = async (whole: Uint8Array) => {
			for (let i = 0; i < whole.length; i++) {
				client.send(whole.subarray(i, i + 1));
				await Bun.sleep(0);
			}
			return client.result();
		};
		expect((await drip(frontend.query("SELECT 'drip'"))).rows).toEqual([["drip"]]);
		const batch = concat(
			frontend.parse("SELECT $1::text", "dripped"),
			frontend.bind({ statement: "dripped", values: ["drop"] }),
			frontend.describe("P"),
			frontend.execute(),
			frontend.sync(),
		);
		expect((await drip(batch)).rows).toEqual([["drop"]]);
		const messages = concat(frontend.query("COPY copied FROM STDIN"), frontend.copyData("x\n"), frontend.copyDone());
		expect((await drip(messages)).tags).toEqual(["COPY 1"]);
		client.reset();
	};
	await Promise.all([
		...Array.from({ length: 5 }, session),
		one(async (drip, client) => {
			await drip(frontend.sslRequest());
			expect(await client.nextByte()).toBe("N");
			await drip(frontend.startupMessage({ user: "pgdog", database: "pgdog" }));
			expect((await client.next()).code).toBe("R");
			await drip(frontend.passwordMessage("wrong"));
			expect((await client.next()).code).toBe("E");
		}),
	]);
	await (await stage.witness()).query("TRUNCATE copied");
	await stage.intact("dripping clients");
});

test("clients that connect and send nothing, or half a login, are disconnected at client_login_timeout", async () => {
	await using other = await Stage.start({ cluster: stage.cluster, general: { client_login_timeout: 500 } });
	const startup = frontend.startupMessage({ user: "pgdog", database: "pgdog" });
	const beginnings = [new Uint8Array(0), bytes(0), frontend.sslRequest(), startup.subarray(0, 20), startup];
	const clients = await Promise.all(Array.from({ length: 300 }, () => RawClient.open(other.door)));
	clients.forEach((client, i) => {
		client.send(beginnings[i % beginnings.length]!);
	});
	await using served = await other.client();
	expect((await served.query("SELECT 1")).rows).toEqual([["1"]]);
	await within(
		until(() => clients.every((client) => client.ended), "all to be disconnected", 5_000),
		"all to be disconnected",
	);
	// Those who have logged in stay.
	expect((await served.query("SELECT 2")).rows).toEqual([["2"]]);
	other.sane();
	await other.retire();
});

test("after all this the proxy's memory is near what it was, and nothing failed inside", async () => {
	stage.sane();
	await stage.intact("everything");
	// Freed memory goes back to the system in its own time.
	await until(() => stage.memory() < 300 * MB, "memory to be given back", 5_000);
});

// Bytes that are no protocol, in every phase of a connection: the proxy answers as a bare PostgreSQL does, or closes; and no
// other client notices. The tables are in malformed.ts.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { cut, type Message } from "../support/message.ts";
import type { RawClient } from "../support/raw-client.ts";
import { describeMessage, transcript } from "../support/transcript.ts";
import { until, within } from "../support/until.ts";
import { concat, frontend } from "../support/wire-frames.ts";
import { beforeStartup, duringLogin, inSession, longStartups, type Malformed } from "./malformed.ts";
import { Broken, Stage } from "./stage.ts";

let stage: Stage;

setDefaultTimeout(60_000);

beforeAll(async () => {
	stage = await Stage.start({ general: { log_connections: false, log_disconnections: false } });
});
afterAll(() => stage?.[Symbol.asyncDispose]());

/** How long nothing must have come, ms, before something is taken for an input that gets no answer. */
const QUIET = 15;

interface Said {
	messages: Message[];
	closed: boolean;
	/** Not a byte came, of a message or of anything else. */
	silent?: boolean;
}

/** Sends bytes to a port and collects until the connection is closed, or a message comes after which the server waits. */
async function say(port: number, first: Uint8Array, second: Uint8Array | null, waits: boolean): Promise<Said> {
	let buffer: Buffer = Buffer.alloc(0);
	let closed = false;
	const socket = await Bun.connect({
		hostname: "127.0.0.1",
		port,
		socket: {
			data(_, chunk) {
				buffer = Buffer.concat([buffer, chunk]);
			},
			close() {
				closed = true;
			},
			error() {
				closed = true;
			},
		},
	});
	// The one-byte answers to SSLRequest and GSSENCRequest; no NoticeResponse comes first.
	const parsed = () => {
		let start = 0;
		while (buffer[start] === 78) start++;
		return cut(buffer.subarray(start)).messages;
	};
	try {
		let rest = socket.write(first);
		for (; rest < first.length && !closed; await Bun.sleep(1)) {
			const taken = socket.write(first, rest, first.length - rest);
			if (taken < 0) break;
			rest += taken;
		}
		if (second !== null) {
			await until(() => closed || parsed().some((message) => message.code === "R"), "an authentication request");
			rest = socket.write(second);
			for (; rest < second.length && !closed; await Bun.sleep(1)) {
				const taken = socket.write(second, rest, second.length - rest);
				if (taken < 0) break;
				rest += taken;
			}
		}
		const answered = () => {
			const messages = parsed();
			return messages.filter((message) => message.code === "R").length > (second === null ? 0 : 1);
		};
		if (waits) await Bun.sleep(QUIET);
		else await until(() => closed || answered(), `an answer or the end; there was ${transcript(parsed())}`, 3_000);
		return { messages: parsed(), closed, silent: buffer.length === 0 };
	} finally {
		socket.terminate();
	}
}

/**
 * Throws unless the proxy did what PostgreSQL did, or else closed: with PostgreSQL's SQLSTATE where that gives an ERROR and goes
 * on, with a protocol violation where it closes and names another cause, with any FATAL where it closes without a word.
 */
function compare(bare: Said, proxied: Said, waits = false): void {
	// PostgreSQL may know from the head that the rest is not wanted (a Query during COPY); to wait for it is no mistake.
	if (waits && proxied.messages.length === 0 && !proxied.closed) return;
	if (bare.closed === proxied.closed && essence(bare.messages) === essence(proxied.messages)) return;
	const theirs = bare.messages.map(describeMessage);
	const ours = proxied.messages.map(describeMessage);
	const last = ours.pop() ?? "";
	const [, state] = /^ErrorResponse S="FATAL" V="FATAL" C="(\w+)"/.exec(last) ?? [];
	const expected = theirs[ours.length];
	const right =
		expected === undefined || (bare.closed && state === "08P01")
			? bare.closed
			: expected.startsWith("ErrorResponse") && expected.includes(` C="${state}"`);
	if (proxied.closed && state !== undefined && right && ours.every((line, i) => line === theirs[i])) return;
	throw new Error(
		`PostgreSQL${bare.closed ? " (closed)" : ""}:\n${theirs.slice(0, 12).join("\n")}\n` +
			`the proxy${proxied.closed ? " (closed)" : ""}:\n${[...ours, last].slice(0, 12).join("\n")}`,
	);
}

/** The messages, of errors severity and SQLSTATE only; texts are compared by conformance tests. */
function essence(messages: Message[]): string {
	return transcript(messages, {
		mask: (line) => line.replace(/^(ErrorResponse|NoticeResponse) .*?(V="\w+").*?(C="\w+").*/, "$1 $2 $3"),
	});
}

/** Runs all of a table and tells of every failure, not of the first alone. */
async function each(table: Malformed[], run: (bad: Malformed) => Promise<void>): Promise<void> {
	const failures: string[] = [];
	let broken = 0;
	for (const bad of table) {
		try {
			await within(run(bad), bad.name, 12_000);
			await stage.intact(bad.name);
			stage.sane();
		} catch (error) {
			failures.push(`* ${bad.name}: ${(error as Error).message}`);
			// What is broken for the other client stays broken; a table full of that is not waited for.
			if (error instanceof Broken && ++broken === 3) break;
			if (error instanceof Broken) await stage.renew();
		}
	}
	if (failures.length > 0) throw new Error(`${failures.length} of ${table.length}:\n${failures.join("\n\n")}`);
}

test("a first packet that is none is answered as PostgreSQL does, or the connection closed", async () => {
	await each([...beforeStartup, ...longStartups], async ({ send, waits = false, differs }) => {
		const [bare, proxied] = await Promise.all([
			say(stage.cluster.port, send, null, waits),
			say(stage.proxy.port, send, null, waits),
		]);
		if (differs === undefined) compare(bare, proxied, waits);
		// Where PostgreSQL closes without a word, an ErrorResponse would be for a client that is gone, or does not know what it is.
		// As long as it has not closed it may only be slow.
		if (bare.silent && bare.closed) expect(proxied.messages.map(describeMessage)).toEqual([]);
	});
});

test("what is no answer to an authentication request ends the login as in PostgreSQL", async () => {
	const startup = frontend.startupMessage({ user: "pgdog", database: "pgdog" });
	await each(duringLogin, async ({ send, waits = false, differs }) => {
		const [bare, proxied] = await Promise.all([
			say(stage.cluster.port, startup, send, waits),
			say(stage.proxy.port, startup, send, waits),
		]);
		if (differs === undefined) compare(bare, proxied, waits);
	});
});

const MARKERS = concat(frontend.query("ROLLBACK; SELECT 'one'"), frontend.query("ROLLBACK; SELECT 'two'"));

/** All that comes of `send` and of two queries behind it, which end whatever it began. */
async function provoke(client: RawClient, bad: Malformed): Promise<Said> {
	client.pending();
	client.send(bad.send);
	const start = performance.now();
	const from = client.received.length;
	const quiet = () => client.received.length === from && performance.now() - start < QUIET;
	while (quiet() && !client.ended) await Bun.sleep(1);
	if (bad.waits) return { messages: client.pending(), closed: client.ended };
	const done = () => client.ended || client.received.slice(from).some((m) => m.code === "D" && m.body.includes("two"));
	if (!client.ended) {
		// An answer in time may be one to the first of several messages: then let the end of the connection come.
		if (client.received.length > from && client.received.at(-1)?.code === "E") await Bun.sleep(3);
		client.send(frontend.sync(), MARKERS);
		await until(done, `an end of ${bad.name}; there was\n${transcript(client.received.slice(from))}`, 3_000);
		if (!client.ended) await until(() => client.ended || client.received.at(-1)?.code === "Z", "ReadyForQuery", 3_000);
	}
	return { messages: client.received.slice(from), closed: client.ended };
}

const PHASES: { name: string; before: (client: RawClient) => Promise<unknown> }[] = [
	{ name: "between transactions", before: async () => undefined },
	{ name: "in a transaction", before: (client) => client.query("BEGIN; SELECT 1") },
	{
		name: "in a failed transaction",
		before: async (client) => {
			await client.query("BEGIN; SET LOCAL app.who = 'x'");
			await client.query("SELECT 1/0");
		},
	},
	{
		name: "in the middle of a batch",
		before: async (client) => {
			client.send(frontend.parse("SELECT $1::int", "mine"), frontend.flush());
			await client.until("1");
		},
	},
	{
		name: "in a batch that has failed",
		before: async (client) => {
			client.send(frontend.parse("SELEC", "mine"), frontend.flush());
			await client.until("E");
		},
	},
	{
		name: "in a batch of which nothing was answered yet",
		before: async (client) => client.send(frontend.parse("SELECT 1"), frontend.bind(), frontend.execute()),
	},
	{
		name: "during COPY",
		before: async (client) => {
			client.send(frontend.query("COPY copied FROM STDIN"));
			await client.until("G");
		},
	},
	{
		name: "during COPY by the extended protocol",
		before: async (client) => {
			client.send(frontend.parse("COPY copied FROM STDIN"), frontend.bind(), frontend.execute(), frontend.flush());
			await client.until("G");
		},
	},
];

for (const phase of PHASES) {
	test(`bytes that are no message, sent ${phase.name}, are answered as PostgreSQL does`, async () => {
		await (await stage.witness()).query("CREATE TABLE IF NOT EXISTS copied (line text)");
		await each(inSession, async (bad) => {
			const [bare, proxied] = await Promise.all(
				[stage.bareDoor, stage.door].map(async (door) => {
					const client = await stage.client(door);
					try {
						await phase.before(client);
						return await provoke(client, bad);
					} finally {
						client.reset();
					}
				}),
			);
			if (bad.differs === undefined) compare(bare!, proxied!, bad.waits);
		});
	});

	test(`Terminate ${phase.name} ends the connection and nothing else`, async () => {
		await (await stage.witness()).query("CREATE TABLE IF NOT EXISTS copied (line text)");
		const client = await stage.client();
		await phase.before(client);
		client.send(frontend.terminate());
		await client.closed;
		await stage.intact(`Terminate ${phase.name}`);
		stage.sane();
	});
}

test("after all this the proxy has the server connections it may have, and says nothing of a failure of its own", async () => {
	await stage.intact("everything");
	stage.sane();
	expect(stage.proxy.running).toBe(true);
});

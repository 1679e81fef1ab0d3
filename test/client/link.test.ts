// How long a client has its server: until nothing is open there, whatever is held behind that; and what it does when the server goes.
// The server is real, between sockets that only remember; the client and the pool are played.

import { expect, test } from "bun:test";
import { ServerState } from "../../src/backend/server-state.ts";
import { Statements } from "../../src/backend/statements.ts";
import type { ClientContext, Login } from "../../src/client/context.ts";
import { Incoming } from "../../src/client/incoming.ts";
import { Link, type LinkOwner } from "../../src/client/link.ts";
import { Budget } from "../../src/client/share.ts";
import { Wait } from "../../src/client/wait.ts";
import type { General } from "../../src/config/settings.ts";
import { Contain } from "../../src/contain.ts";
import { PgError } from "../../src/errors.ts";
import { createFactsCache } from "../../src/parser/facts-cache.ts";
import type { Cluster } from "../../src/pool/cluster.ts";
import type { Ear, Ears } from "../../src/pool/ear.ts";
import type { Waiter } from "../../src/pool/waiters.ts";
import { STALE } from "../../src/session/preparing.ts";
import { Said } from "../../src/session/said.ts";
import { Stat } from "../../src/stats/counters.ts";
import { rig } from "../backend/support.ts";
import { backend, concat, frontend } from "../support/wire-frames.ts";

function start(pooler_mode = "transaction", settings: Partial<General> = {}, more: Partial<ClientContext> = {}) {
	const { server, toServer, toClient, events, sets } = rig();
	server.giveBack();
	events.length = 0;
	const general = { client_connection_recovery: "recover", connection_recovery: "recover", ...settings };
	const known = { time: 5, collected: new Budget(1), sets, general, stopping: false, facts: createFactsCache() };
	const context = { ...known, ...more };
	const counters = new Float64Array(Stat.length);
	const pool = { counters, spec: { pooler_mode, server_user: "pgdog" }, take: () => server };
	const cluster = { first: pool, shards: [], pick: () => pool };
	const { stream } = toClient;
	const client = {
		stream,
		incoming: new Incoming(context as unknown as ClientContext, stream),
		leaving: false,
		resume: () => events.push("resumed"),
		close: (reason: string, error?: PgError) => events.push(`closed: ${error?.sqlstate ?? reason}`),
		shutDown: () => events.push("shut down"),
		countError() {},
		pid: 5,
		user: "u",
		database: "d",
	};
	const login = { hints: {}, parameters: sets.empty } as unknown as Login;
	const link = new Link(
		context as unknown as ClientContext,
		client as unknown as LinkOwner,
		cluster as unknown as Cluster,
		null,
		login,
		null,
	);
	link.checkout.endLogin();
	client.incoming.goOn();
	const ask = (...messages: Uint8Array[]) => {
		if (link.server === null) link.checkout.take();
		const chunk = Buffer.from(concat(...messages));
		let said = Said.AsIs;
		for (let at = 0, next = 0; at < chunk.length; at = next) {
			next = at + 1 + chunk.readInt32BE(at + 1);
			said = link.saying.say(server, chunk[at]!, chunk, at, at, next, next);
		}
		return said;
	};
	const answer = (...messages: Uint8Array[]) => server.onData(Buffer.from(concat(...messages)));
	return { link, client, server, toServer, events, counters, ask, answer };
}

const done = (status: "I" | "T" | "E" = "I") => [backend.commandComplete("SELECT 1"), backend.readyForQuery(status)];

test("a server is given back when its transaction is over, and what was asked is counted", () => {
	const { link, server, events, counters, ask, answer } = start();
	ask(frontend.query("SELECT 1"));
	expect([link.server, server.state]).toEqual([server, ServerState.Lent]);
	answer(...done("T"));
	expect([link.server, link.queries, link.transactions]).toEqual([server, 1, 0]);
	ask(frontend.query("SELECT 2"));
	answer(...done());
	expect([link.server, link.queries, link.transactions, link.answeredAt]).toEqual([null, 2, 1, 5]);
	expect([counters[Stat.query_count], counters[Stat.xact_count]]).toEqual([2, 1]);
	expect(events).toEqual(["idle"]);
});

test("what waits for answers goes on when they are there, and not before", () => {
	const { client, events, ask, answer } = start();
	ask(frontend.query("SELECT 1"), frontend.query("SELECT 2"));
	client.incoming.waitFor(Wait.Answers);
	answer(...done());
	expect(events).toEqual([]);
	answer(...done());
	expect(events).toEqual(["idle", "resumed"]);
});

test("a client that is to leave does so when its transaction is over", () => {
	const { client, events, ask, answer } = start();
	client.leaving = true;
	ask(frontend.query("SELECT 1"));
	answer(...done("T"));
	expect(events).toEqual([]);
	ask(frontend.query("COMMIT"));
	answer(...done());
	expect(events).toEqual(["idle", "shut down"]);
});

test("in the middle of a message to it a server is nobody else's", () => {
	const { link, server, events, ask, answer } = start();
	ask(frontend.query("SELECT 1"));
	server.stream.midMessage = true;
	answer(...done());
	expect([link.server, events]).toEqual([server, []]);
	server.stream.midMessage = false;
	link.endTransaction(server);
	expect([link.server, events]).toEqual([null, ["idle"]]);
});

test("in session mode the server stays", () => {
	const { link, server, events, ask, answer } = start("session");
	ask(frontend.query("SELECT 1"));
	answer(...done());
	expect([link.server, link.transactions, events]).toEqual([server, 1, []]);
	link.leave();
	expect(link.server).toBeNull();
});

test("a transaction is refused in statement mode, when the server says that there is one", () => {
	const { events, ask, answer } = start("statement");
	ask(frontend.query("SELECT begin()"));
	answer(...done("T"));
	expect(events).toEqual(["closed: 58000"]);
});

test("who has asked something of a server that goes is told; who has not is none the wiser", () => {
	const { link, client, events, ask } = start();
	ask(frontend.query("SELECT 1"));
	link.onServerGone(null);
	expect([link.server, events]).toEqual([null, ["closed: the server closed the connection"]]);
	const other = start();
	other.link.checkout.take();
	other.client.incoming.waitFor(Wait.Server);
	other.link.onServerGone(null);
	// From the same pool it has another.
	expect([other.link.server, other.events]).toEqual([other.server, ["resumed"]]);
	expect(client.incoming.isClosed).toBeFalse();
});

test("a batch that has failed is left without its client, whose server is another's then", () => {
	const { link, server, client, events, ask, answer } = start();
	ask(frontend.execute());
	answer(backend.errorResponse({ S: "ERROR", V: "ERROR", C: "34000", M: "no such portal" }));
	expect(link.isIdleInBatch(server)).toBeTrue();
	link.leaveBatch(server);
	expect(client.incoming.wait).toBe(Wait.Task);
	answer(backend.readyForQuery());
	expect([link.server, events]).toEqual([null, ["idle", "resumed"]]);
});

/** A client whose LISTENs an ear that is played takes part in: it listens on `heard`. */
function listening(general: Partial<General> = { pub_sub_channel_size: 10 }) {
	const heard = new Set<string>();
	const joined = new Set<string>();
	const ear = {
		add: (name: string) => joined.add(name) && heard.has(name),
		remove: (name: string) => joined.delete(name),
		wait: (_: string[], done: (error: PgError | null) => void) => done(new PgError("ERROR", "08001", "no")),
	};
	const contain = new Contain(
		(error) => {
			throw error;
		},
		() => {},
	);
	const ears = { of: () => ear as unknown as Ear } as unknown as Ears;
	let serial = 0;
	const statements = new Statements(() => ++serial);
	const more = { ears, contain, statements, nextSerial: () => ++serial };
	return { ...start("transaction", { prepared_statements: "extended", ...general }, more), heard, joined };
}

test("a LISTEN goes on when it is listened for; what comes behind it waits for its answer", () => {
	const { ask, answer, link, heard, joined } = listening();
	expect(ask(frontend.query("LISTEN a"))).toBe(Said.Awaits);
	heard.add("a");
	expect(ask(frontend.query("LISTEN a"))).toBe(Said.AsIs);
	expect(ask(frontend.query("SELECT 1"))).toBe(Said.Later);
	answer(backend.commandComplete("LISTEN"), backend.readyForQuery("I"));
	// The server is cleaned, and the client stays with this thread.
	answer(backend.commandComplete("UNLISTEN"), backend.readyForQuery("I"));
	expect([...joined, link.isQuiet]).toEqual(["a", false]);
	expect(ask(frontend.query("SELECT 1"))).toBe(Said.AsIs);
	expect(ask(frontend.query("UNLISTEN a"))).toBe(Said.Later);
	answer(...done());
	expect(ask(frontend.query("UNLISTEN a"))).toBe(Said.AsIs);
	answer(backend.commandComplete("UNLISTEN"), backend.readyForQuery("I"));
	expect([...joined]).toEqual([]);
});

test("the same in a batch, by the statement that is bound; what nothing listens for is refused", () => {
	const { ask, answer, link, heard, joined } = listening();
	const batch = [frontend.bind(), frontend.execute(), frontend.sync()];
	expect(ask(frontend.parse("LISTEN a"))).not.toBe(Said.Awaits);
	expect(ask(frontend.bind())).toBe(Said.Awaits);
	link.saying.hearing!.wait(() => {});
	expect(ask(frontend.bind())).toBe(Said.Unheard);
	expect([link.saying.refusalOf(Said.Unheard).sqlstate, link.saying.refusalOf(Said.Refused)]).toEqual(["08001", STALE]);
	heard.add("a");
	expect(ask(...batch)).toBe(Said.AsIs);
	expect(ask(frontend.parse("SELECT 1"))).toBe(Said.Later);
	answer(
		backend.parseComplete(),
		backend.bindComplete(),
		backend.commandComplete("LISTEN"),
		backend.readyForQuery("I"),
	);
	expect([...joined]).toEqual(["a"]);
});

test("without the setting, and where nothing is said for certain, a LISTEN is as any statement", () => {
	for (const [sql, general] of [
		["LISTEN a", { pub_sub_channel_size: 0 }],
		['LISTEN U&"a"', { pub_sub_channel_size: 10 }],
	] as const) {
		const { ask, link } = listening(general);
		expect(ask(frontend.query(sql))).toBe(Said.AsIs);
		expect(link.saying.hearing).toBeNull();
	}
});

// A worker that had little time heard behind the log-in what another had learned before; the log-in waited for the one server on.
test("a log-in that waits for a server is over when another thread tells what that would say", () => {
	const { sets } = rig();
	const events: string[] = [];
	let known: ReturnType<typeof sets.of> | null = null;
	const pool = {
		greeting: () => known,
		take: (waiter: Waiter) => {
			waiter.queued = true;
			events.push("waits");
			return null;
		},
		leave: (waiter: Waiter) => {
			waiter.queued = false;
			events.push("leaves");
		},
	};
	const cluster = { first: pool, shards: [], pick: () => pool, serves: () => true };
	const client = { incoming: {}, onWelcome: (reports: Buffer) => events.push(reports.toString("latin1")) };
	const login = { hints: {}, parameters: sets.empty } as unknown as Login;
	const context = { sets, collected: new Budget(1) } as unknown as ClientContext;
	const link = new Link(context, client as unknown as LinkOwner, cluster as unknown as Cluster, null, login, null);
	link.begin();
	link.checkout.onElsewhere(false);
	expect([events, link.checkout.loggedIn]).toEqual([["waits"], false]);
	known = sets.of(new Map([["TimeZone", "UTC"]]));
	link.checkout.onElsewhere(false);
	expect([events, link.checkout.loggedIn]).toEqual([
		["waits", "leaves", expect.stringContaining("TimeZone\0UTC")],
		true,
	]);
	// It is one of many to whom that is said.
	link.checkout.onElsewhere(false);
	expect(events).toHaveLength(3);
});

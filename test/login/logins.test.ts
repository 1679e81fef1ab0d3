// Who is let in, and who is not: limits, wrong answers, users whom a server knows, and the ends that a log-in may come to.

import { afterAll, expect, spyOn, test } from "bun:test";
import type { User } from "../../src/config/snapshot.ts";
import { PgError, TOO_MANY_CONNECTIONS } from "../../src/errors.ts";
import { Stream } from "../../src/net/stream.ts";
import { Stat } from "../../src/stats/counters.ts";
import { ScriptedServer, testPool } from "../pool/support.ts";
import { errorFields } from "../support/message.ts";
import { RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";
import { concat, frontend, int32 } from "../support/wire-frames.ts";
import { type LoginListener, listen, reach } from "./support.ts";

const postgres = new ScriptedServer();
afterAll(() => postgres[Symbol.dispose]());

const USER: User = { name: "u", database: "d", passwords: ["secret"] };
const STARTUP = frontend.startupMessage({ user: "u", database: "d" });

/** One pool of its own for each, so that nobody counts another's clients. */
function stage(settings: Parameters<typeof listen>[2] = {}, users: readonly User[] = [USER], address?: string) {
	const inner = testPool(postgres.port, { pool_size: 20 });
	const listening = listen(inner, users, settings, address);
	return Object.assign(listening, {
		inner,
		[Symbol.dispose]: () => {
			inner.pool.shutDown();
			listening.stop();
		},
	});
}

/** What a client is told that is not let in: SQLSTATE and message. */
async function told(client: RawClient): Promise<string> {
	const last = (await client.closed).at(-1);
	if (last?.code !== "E") return last?.code ?? "nothing";
	const { C, M } = errorFields(last.body);
	return `${C} ${M}`;
}

const open = ({ port }: LoginListener) => RawClient.open({ port });

/** Sends its StartupMessage; nothing more. */
async function begin(to: LoginListener, user = "u", database = "d", more: Record<string, string> = {}) {
	const client = await open(to);
	client.send(frontend.startupMessage({ user, database, ...more }));
	return client;
}

const connect = ({ port }: LoginListener, user = "u", password = "secret", database = "d") =>
	RawClient.connect({ port, user, database, password });

const WRONG = '28000 password for user "u" and database "d" is wrong, or the database does not exist';

test.each(["plain", "md5", "scram"] as const)(
	"%s: the right password lets in, a wrong one does not",
	async (auth_type) => {
		using listening = stage({ auth_type });
		const proven: string[] = [];
		listening.context.onProven = ({ name }, keys) => proven.push(`${name} ${keys.clientKey.length}`);
		await using client = await connect(listening);
		expect(client.backendPid).toBeGreaterThan(0);
		expect(listening.startups.size).toBe(0);
		await rejects(connect(listening, "u", "wrong"), WRONG.slice(6));
		await until(() => listening.startups.size === 0, "the end of the other");
		expect(listening.lines.filter((line) => line.includes("auth error: wrong password"))).toHaveLength(1);
		// Only SCRAM proves keys.
		expect(proven).toEqual(auth_type === "scram" ? ["u 32"] : []);
	},
);

// Three writes are three TLS records, and wake the client three times.
test("what a client is told once it has proven who it is goes out in one write", async () => {
	using listening = stage({ auth_type: "scram" });
	// The first has a server asked for what the others are told at once.
	await using first = await connect(listening);
	expect(first.backendPid).toBeGreaterThan(0);
	const written: Buffer[] = [];
	const { write } = Stream.prototype;
	using spy = spyOn(Stream.prototype, "write").mockImplementation(function (this: Stream, bytes, start, length, lasts) {
		// Flushed from within, it would be written twice over here.
		if (this.out.fill === 0) written.push(Buffer.from(bytes.subarray(start, start + length)));
		return write.call(this, bytes, start, length, lasts);
	});
	await using client = await connect(listening);
	expect(spy).toHaveBeenCalled();
	expect(client.backendPid).toBeGreaterThan(0);
	const asked = written.filter((bytes) => bytes[0] === 0x52);
	expect(asked.map((bytes) => bytes.readInt32BE(5))).toEqual([10, 11, 12]);
	expect(asked.at(-1)!.subarray(-6).toString("latin1")).toBe("Z\0\0\0\x05I");
});

test("what is sent together with the password is answered after the log-in", async () => {
	using listening = stage({ auth_type: "plain" });
	const client = await begin(listening);
	await client.until("R");
	client.send(concat(frontend.passwordMessage("secret"), frontend.query("SELECT 1")));
	await client.until("Z");
	expect((await client.until("Z")).map(({ code }) => code).join("")).toBe("CZ");
	client.close();
});

test.each([
	["another message", frontend.query("SELECT 1"), "08P01 expected password response, got message type 81"],
	["a length that cannot be", concat(Buffer.from("p"), int32(3)), "08P01 invalid message length"],
	["a length that is too much", concat(Buffer.from("p"), int32(1 << 24)), "08P01 invalid message length"],
	["Terminate", frontend.terminate(), "nothing"],
])("instead of a password %s ends the log-in", async (_, sent, expected) => {
	using listening = stage({ auth_type: "plain" });
	const client = await begin(listening);
	await client.until("R");
	client.send(sent);
	expect(await told(client)).toBe(expected);
	expect(listening.startups.size).toBe(0);
});

test("a password byte by byte", async () => {
	using listening = stage({ auth_type: "plain" });
	const client = await begin(listening);
	await client.until("R");
	for (const byte of frontend.passwordMessage("secret")) {
		client.send(Uint8Array.of(byte));
		await Bun.sleep(0);
	}
	expect((await client.until("Z")).map(({ code }) => code).join("")).toBe("RKZ");
	client.close();
});

test("a message that comes while an answer is being checked ends the log-in", async () => {
	using listening = stage({ auth_query_user: "asker" }, []);
	const { promise, resolve } = Promise.withResolvers<{ found: null }>();
	listening.context.lookUp = () => promise;
	const client = await begin(listening);
	await until(() => [...listening.startups].some(({ user }) => user === "u"), "the StartupMessage");
	client.send(frontend.passwordMessage("early"));
	expect(await told(client)).toBe("08P01 a message came before it was asked for");
	// What is found then is nobody's.
	resolve({ found: null });
	await promise;
	expect(listening.startups.size).toBe(0);
});

test("who fails is told so after failed_login_delay, and nothing that he sends meanwhile counts", async () => {
	using listening = stage({ auth_type: "plain", failed_login_delay: 30 });
	const client = await begin(listening);
	await client.until("R");
	const at = performance.now();
	client.send(concat(frontend.passwordMessage("wrong"), frontend.passwordMessage("secret")));
	expect(await told(client)).toBe(WRONG);
	expect(performance.now() - at).toBeGreaterThan(25);
	// Who leaves before is told nothing.
	const left = await begin(listening);
	await left.until("R");
	left.send(frontend.passwordMessage("wrong"));
	await until(() => listening.lines.filter((line) => line.includes("wrong password")).length === 2, "the failure");
	left.close();
	await until(() => listening.startups.size === 0, "its end");
	expect(await told(left)).toBe("nothing");
});

test("after max_failed_logins of an address not even the right password counts, until it has logged in before", async () => {
	using listening = stage({ auth_type: "plain", max_failed_logins: 2 });
	const wrong = () =>
		connect(listening, "u", "wrong").then(
			() => "in",
			(error: Error) => error.message,
		);
	await wrong();
	// One that succeeds is forgiven the one before.
	await using client = await connect(listening);
	expect(client.backendPid).toBeGreaterThan(0);
	expect([await wrong(), await wrong()].every((said) => said.includes("28000"))).toBe(true);
	const barred = '28000 too many failed log-ins from address "10.0.0.1"';
	expect(await told(await begin(listening))).toBe(barred);
	// The admin's, too.
	expect(await told(await begin(listening, "admin", "admin"))).toBe(barred);
	expect(
		listening.lines.filter((line) => line.includes("2 of 2 (max_failed_logins), for 60 s from the last")),
	).toHaveLength(1);
});

test("clients of the Unix socket are behind no address", async () => {
	using listening = stage(
		{ auth_type: "plain", max_failed_logins: 1, max_client_connections_per_address: 1 },
		[USER],
		"unix",
	);
	await connect(listening, "u", "wrong").catch(() => {});
	await using one = await connect(listening);
	await using two = await connect(listening);
	expect(one.backendPid).not.toBe(two.backendPid);
});

test.each([
	[{ max_client_connections: 1 }, {}, "sorry, too many clients already"],
	[{ max_client_connections_per_address: 1 }, {}, 'too many connections from address "10.0.0.1"'],
	[{}, { max_client_connections: 1 }, 'too many connections for role "u"'],
] as const)(
	"beyond %j, and of the user %j, a client is refused, and the admin is not",
	async (settings, more, message) => {
		using listening = stage(settings, [{ ...USER, ...more }]);
		const first = await connect(listening);
		expect(await told(await begin(listening))).toBe(`${TOO_MANY_CONNECTIONS} ${message}`);
		expect(listening.inner.pool.counters[Stat.errors]).toBe(1);
		const admin = await begin(listening, "admin", "admin");
		expect((await admin.next()).code).toBe("R");
		admin.close();
		first.close();
		// Its seat is the next one's.
		await until(async () => {
			const next = await begin(listening);
			const { code } = await next.next();
			next.close();
			return code === "R";
		}, "the seat");
	},
);

test("who was let in to be told that there is no room is told so, unless he is the admin", async () => {
	using listening = stage({ auth_type: "plain" });
	listening.refusal = new PgError("FATAL", TOO_MANY_CONNECTIONS, "no room");
	expect(await told(await begin(listening))).toBe(`${TOO_MANY_CONNECTIONS} no room`);
	const opened: string[] = [];
	listening.context.openAdmin = (stream, address, parameters, minor) => {
		opened.push(`${address} ${parameters.get("application_name")} ${minor}`);
		stream.end();
	};
	const admin = await begin(listening, "admin", "admin", { application_name: "psql" });
	await admin.until("R");
	admin.send(frontend.passwordMessage("secret"));
	await admin.closed;
	expect(opened).toEqual(["10.0.0.1:5000 psql 0"]);
});

test.each([
	[{ "pgdog.role": "nonsense" }, "22023"],
	[{ options: "-c pgdog.shard=nonsense" }, "22023"],
	[{ "pgdog.role": "primary", options: "-c pgdog.role=nonsense" }, ""],
	[{ "pgdog.unknown": "1", replication: "off" }, ""],
] as [Record<string, string>, string][])(
	"with the parameters %j a log-in ends with %j",
	async (parameters, sqlstate) => {
		using listening = stage();
		const client = await begin(listening, "u", "d", parameters);
		if (sqlstate === "") await client.until("Z");
		else expect((await told(client)).slice(0, 5)).toBe(sqlstate);
		client.close();
	},
);

test("a user who leaves the configuration during his log-in is not let in; nor is anybody while it shuts down", async () => {
	using listening = stage({ auth_type: "plain" });
	const { find } = listening.context;
	const client = await begin(listening);
	await client.until("R");
	listening.context.find = () => null;
	client.send(frontend.passwordMessage("secret"));
	expect(await told(client)).toBe(WRONG);
	expect(listening.lines.join()).toContain("the user left the configuration");
	listening.context.find = find;
	listening.context.stopping = true;
	await rejects(connect(listening), "57P03: the database system is shutting down");
});

test("whoever has not logged in when it shuts down is told so once he has said who he is", async () => {
	using listening = stage({ auth_type: "plain" });
	const early = await open(listening);
	early.send(STARTUP.subarray(0, 5));
	const late = await begin(listening);
	await late.until("R");
	await until(() => listening.startups.size === 2, "both");
	for (const startup of [...listening.startups]) startup.shutDown();
	expect(await told(early)).toBe("nothing");
	expect(await told(late)).toBe("57P03 the database system is shutting down");
	expect(listening.startups.size).toBe(0);
});

test("a log-in that takes too long is ended without a word, once", async () => {
	using listening = stage({ auth_type: "plain" });
	const client = await begin(listening);
	await client.until("R");
	const [startup] = listening.startups;
	startup!.expire();
	startup!.expire();
	startup!.fail(new PgError("FATAL", "XX000", "never said"));
	expect(await told(client)).toBe("nothing");
	expect(listening.lines.filter((line) => line.includes("login timeout"))).toHaveLength(1);
	expect(listening.lines.join()).not.toContain("never said");
});

// ---- users whom the configuration does not have ---------------------------------------------------------------------------

const ASKS = { auth_type: "plain", auth_query_user: "asker" } as const;
const FOUND = { passwords: ["theirs"] };

test("a user whom a server knows logs in by what it says, and gets pools first", async () => {
	using listening = stage(ASKS, []);
	const { context, inner } = listening;
	const steps: string[] = [];
	const learned = { name: "x", database: "d", ...FOUND, learned: true };
	context.lookUp = async (user, database) => {
		steps.push(`look up ${user} ${database}`);
		return { found: FOUND };
	};
	context.join = async (user, database, found) => {
		steps.push(`join ${user} ${database} ${found.passwords.join()}`);
		context.find = () => reach(inner, learned);
		return null;
	};
	await using client = await connect(listening, "x", "theirs");
	expect(client.backendPid).toBeGreaterThan(0);
	// The pools are there for the next one, who is asked for nevertheless.
	await using next = await connect(listening, "x", "theirs");
	expect(next.backendPid).toBeGreaterThan(0);
	expect(steps).toEqual(["look up x d", "join x d theirs", "look up x d"]);
});

test("a user of the configuration is asked of nobody", async () => {
	using listening = stage(ASKS);
	listening.context.lookUp = async () => {
		throw new Error("asked");
	};
	await using client = await connect(listening);
	expect(client.backendPid).toBeGreaterThan(0);
});

test("what is wrong with a stranger has the answer doubted, and what cannot be said is no wrong password", async () => {
	using listening = stage(ASKS, []);
	const doubted: string[] = [];
	listening.context.doubt = (user, database) => doubted.push(`${user} ${database}`);
	listening.context.lookUp = async () => ({ found: FOUND });
	await rejects(connect(listening, "u", "wrong"), "28000");
	expect(doubted).toEqual(["u d"]);
	listening.context.lookUp = async () => ({ found: null });
	await rejects(connect(listening, "u", "theirs"), "28000");
	expect(doubted).toEqual(["u d", "u d"]);
	listening.context.lookUp = async () => ({ sqlstate: "08006", message: "the user could not be looked up" });
	await rejects(connect(listening, "u", "theirs"), "08006: the user could not be looked up");
	listening.context.lookUp = async () => ({ found: FOUND });
	listening.context.join = async () => ({ sqlstate: "57P03", message: "the user was reconfigured" });
	await rejects(connect(listening, "u", "theirs"), "57P03: the user was reconfigured");
	expect(doubted).toHaveLength(2);
});

test("a stranger may send his first request together with his password", async () => {
	using listening = stage(ASKS, []);
	const { context, inner } = listening;
	context.lookUp = async () => ({ found: FOUND });
	context.join = async () => {
		context.find = () => reach(inner, { ...USER, ...FOUND, learned: true });
		return null;
	};
	const client = await begin(listening);
	await client.until("R");
	client.send(concat(frontend.passwordMessage("theirs"), frontend.query("SELECT 1")));
	await client.until("Z");
	expect((await client.until("Z")).map(({ code }) => code).join("")).toBe("CZ");
	client.close();
});

// ---- passwords that only the server can judge ------------------------------------------------------------------------

const PASSES = { passthrough_auth: "enabled_plain" } as const;

test("a user whom nobody knows is asked for his password in clear text, and gets in when it is found right", async () => {
	using listening = stage(PASSES, []);
	const { context, inner, lines } = listening;
	const said: unknown[] = [];
	context.lookUp = async (user, database, password) => {
		said.push([user, database, password]);
		if (password === "away") return { sqlstate: "08006", message: "the password could not be checked" };
		return password === "right"
			? { found: { passwords: ["right"], passed: true } }
			: { found: null, reason: "a reason" };
	};
	context.join = async (_, __, found) => {
		context.find = () => reach(inner, { ...USER, ...found, learned: true });
		return null;
	};
	await rejects(connect(listening, "u", "wrong"), "28000");
	expect(lines.join()).toContain("auth error: a reason");
	await rejects(connect(listening, "u", "away"), "08006: the password could not be checked");
	await using client = await connect(listening, "u", "right");
	expect(client.backendPid).toBeGreaterThan(0);
	// Whose pools are there is asked just so.
	await using next = await connect(listening, "u", "right");
	expect(next.backendPid).toBeGreaterThan(0);
	expect(said).toEqual(["wrong", "away", "right", "right"].map((password) => ["u", "d", password]));
});

test("what is no password is asked of nobody", async () => {
	using listening = stage(PASSES, []);
	listening.context.lookUp = async () => {
		throw new Error("asked");
	};
	for (const [body, expected] of [
		[Buffer.from([0xff, 0]), "28000"],
		[Buffer.from([0]), "28P01"],
		[Buffer.from("no end"), "08P01"],
	] as const) {
		const client = await begin(listening);
		await client.until("R");
		client.send(concat(Buffer.from("p"), int32(4 + body.length), body));
		expect(await told(client)).toStartWith(expected);
	}
});

test("without TLS nobody is asked for a password in clear text, unless that is wanted", async () => {
	using listening = stage({ passthrough_auth: "enabled_allow_change" });
	await rejects(connect(listening, "x", "right"), "08004: only TLS connections are allowed");
	await using client = await connect(listening);
	expect(client.backendPid).toBeGreaterThan(0);
});

test("who is asked both ways is looked up first, and passes on his password when nothing was found", async () => {
	using listening = stage({ ...ASKS, ...PASSES, auth_type: "scram" }, []);
	const asked: unknown[] = [];
	listening.context.lookUp = async (_user, _database, password) => {
		asked.push(password);
		return { found: null };
	};
	await rejects(connect(listening, "u", "theirs"), "28000");
	expect(asked).toEqual([undefined, "theirs"]);
});

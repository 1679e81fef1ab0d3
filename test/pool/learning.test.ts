// Users whom the configuration does not have: who is asked for them, for how long an answer is believed, and who of them has pools.

import { expect, test } from "bun:test";
import type { Socket } from "bun";
import { now } from "../../src/clock.ts";
import { load } from "../../src/config/load.ts";
import type { General } from "../../src/config/settings.ts";
import type { Snapshot } from "../../src/config/snapshot.ts";
import { createLog } from "../../src/log.ts";
import { Learning } from "../../src/pool/learning.ts";
import { Body, cut } from "../support/message.ts";
import { until } from "../support/until.ts";
import { asksForTls, backend, concat } from "../support/wire-frames.ts";
import { testPool } from "./support.ts";

type Rows = (string | null)[][];

interface State {
	buffer: Buffer;
	isIn: boolean;
	isAsked: boolean;
	name: string;
}

/** A server that has a row for each user, and answers Parse, Bind, Execute and Sync at once with those of the name that is bound. */
class Register implements Disposable {
	readonly port: number;
	/** Names that were asked for, in order. */
	readonly asked: string[] = [];
	/** StartupMessages, in order. */
	readonly logins: Record<string, string>[] = [];
	rows: Record<string, Rows> = { alice: [["alice", "secret"]], bob: [["bob", "geheim"]] };
	/** Says this SQLSTATE instead of an answer. */
	error = "";
	/** While true nothing is answered. */
	hold = false;
	/** While true it refuses whoever logs in. */
	closed = false;
	/** Says this SQLSTATE to whoever has said the password, and no more. */
	errorAfter = "";
	/** What it asks whoever logs in for, in clear text; null: it lets in whoever comes. */
	password: string | null = null;
	/** Passwords that were said, in order. */
	readonly said: string[] = [];
	private readonly held: (() => void)[] = [];
	private readonly open = new Set<Socket<State>>();
	private readonly listener;

	constructor() {
		this.listener = Bun.listen<State>({
			hostname: "127.0.0.1",
			port: 0,
			socket: {
				open: (socket) => {
					socket.data = { buffer: Buffer.alloc(0), isIn: false, isAsked: false, name: "" };
					this.open.add(socket);
				},
				close: (socket) => {
					this.open.delete(socket);
				},
				data: (socket, chunk) => this.onData(socket, chunk),
			},
		});
		this.port = this.listener.port;
	}

	get connections(): number {
		return this.open.size;
	}

	private onData(socket: Socket<State>, chunk: Buffer): void {
		const state = socket.data;
		if (asksForTls(chunk)) {
			socket.write("N");
			return;
		}
		state.buffer = Buffer.concat([state.buffer, chunk]);
		if (state.isAsked) {
			this.judge(socket);
			return;
		}
		if (!state.isIn) {
			const words = state.buffer.toString("utf8", 8).split("\0");
			this.logins.push(
				Object.fromEntries(words.flatMap((name, i) => (i % 2 === 0 && name !== "" ? [[name, words[i + 1]!]] : []))),
			);
			state.buffer = Buffer.alloc(0);
			if (this.closed) {
				socket.end(backend.errorResponse({ S: "FATAL", V: "FATAL", C: "57P03", M: "not now" }));
				return;
			}
			if (this.password !== null) {
				state.isAsked = true;
				socket.write(backend.authenticationCleartextPassword());
				return;
			}
			state.isIn = true;
			socket.write(concat(backend.authenticationOk(), backend.backendKeyData(1, 7), backend.readyForQuery()));
			return;
		}
		const { messages, rest } = cut(state.buffer);
		state.buffer = Buffer.from(rest);
		for (const { code, body } of messages) {
			if (code === "B") {
				const reader = new Body(body);
				const [, , , , length] = [reader.cstring(), reader.cstring(), reader.int16(), reader.int16(), reader.int32()];
				state.name = reader.bytes(length).toString("utf8");
				this.asked.push(state.name);
			} else if (code === "S") {
				const { name } = state;
				const answer = () => this.answer(socket, name);
				if (this.hold) this.held.push(answer);
				else answer();
			}
		}
	}

	private judge(socket: Socket<State>): void {
		const said = socket.data.buffer.toString("utf8", 5, socket.data.buffer.length - 1);
		socket.data.buffer = Buffer.alloc(0);
		// A Terminate, once it is in.
		if (said === "") return;
		this.said.push(said);
		const answer = () => {
			const full = backend.errorResponse({ S: "FATAL", V: "FATAL", C: this.errorAfter, M: "wrong" });
			if (said === this.password && this.errorAfter !== "") socket.end(concat(backend.authenticationOk(), full));
			else if (said === this.password && this.error === "")
				socket.write(concat(backend.authenticationOk(), backend.backendKeyData(1, 7), backend.readyForQuery()));
			else socket.end(backend.errorResponse({ S: "FATAL", V: "FATAL", C: this.error || "28P01", M: "wrong" }));
		};
		if (this.hold) this.held.push(answer);
		else answer();
	}

	private answer(socket: Socket<unknown>, name: string): void {
		const rows = (this.rows[name] ?? []).map((row) => backend.dataRow(...row));
		const said =
			this.error === ""
				? [backend.parseComplete(), backend.bindComplete(), ...rows, backend.commandComplete("SELECT 1")]
				: [backend.errorResponse({ S: "ERROR", V: "ERROR", C: this.error, M: "refused", D: "the detail" })];
		socket.write(concat(...said, backend.readyForQuery()));
	}

	goOn(): void {
		this.hold = false;
		for (const answer of this.held.splice(0)) answer();
	}

	/** Ends all connections without a word. */
	drop(): void {
		for (const socket of this.open) socket.terminate();
	}

	[Symbol.dispose](): void {
		this.listener.stop(true);
	}
}

/** What the main thread has: user "u" of the configuration, and an entry "d" of `[[databases]]` that asks the register. */
function stage(settings: Partial<General> = {}, urls: (port: number) => string[] = () => []) {
	const register = new Register();
	const loaded = load({
		configPath: "/nowhere/pgdog.toml",
		databaseUrls: [`postgres://u:p@127.0.0.1:${register.port}/d`, ...urls(register.port)],
		overrides: {},
		env: {},
	});
	if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
	const asks = { auth_query_user: "asker", auth_query_password: "asks" };
	const snapshot: Snapshot = { ...loaded.snapshot, general: { ...loaded.snapshot.general, ...asks, ...settings } };
	const lines: string[] = [];
	const log = createLog("text", "warn", { write: (line) => lines.push(line) });
	const learning = new Learning(snapshot, log, testPool(register.port).context);
	return {
		register,
		learning,
		snapshot,
		lines,
		[Symbol.dispose]() {
			learning.stop();
			register[Symbol.dispose]();
		},
	};
}

const ALICE = { found: { passwords: ["secret"] } };
const NOBODY = { found: null };
const CANNOT_SAY = "the user could not be looked up";

test("one connection asks for all users, as the one who may, and what came is kept", async () => {
	using main = stage();
	const { learning, register } = main;
	expect(await learning.lookUp("alice", "d")).toMatchObject(ALICE);
	expect(await learning.lookUp("alice", "d")).toMatchObject(ALICE);
	expect(await learning.lookUp("bob", "d")).toMatchObject({ found: { passwords: ["geheim"] } });
	expect(register.asked).toEqual(["alice", "bob"]);
	expect(register.logins).toHaveLength(1);
	expect(register.logins[0]).toMatchObject({ user: "asker", database: "d", search_path: "pg_catalog, pg_temp" });
});

test("log-ins of one name at the same moment ask once", async () => {
	using main = stage({ auth_query_ttl: 0 });
	main.register.hold = true;
	const asked = Array.from({ length: 20 }, () => main.learning.lookUp("alice", "d"));
	await until(() => main.register.asked.length > 0, "the question");
	main.register.goOn();
	for (const found of await Promise.all(asked)) expect(found).toMatchObject(ALICE);
	expect(main.register.asked).toEqual(["alice"]);
	// Nothing is kept: whoever comes afterwards asks again.
	await main.learning.lookUp("alice", "d");
	expect(main.register.asked).toEqual(["alice", "alice"]);
});

test.each([
	["no row", [], NOBODY],
	["no secret", [["alice", null]], NOBODY],
	["an empty secret", [["alice", ""]], NOBODY],
	["the row of another user", [["bob", "secret"]], NOBODY],
	["a password", [["alice", "secret"]], ALICE],
	[
		"an MD5 hash",
		[["alice", `md5${"0a".repeat(16)}`]],
		{ found: { passwords: [], password_hash: `md5${"0a".repeat(16)}` } },
	],
	[
		"two rows",
		[
			["alice", "secret"],
			["alice", "other"],
		],
		{ sqlstate: "58000", message: CANNOT_SAY },
	],
	["one column", [["alice"]], { sqlstate: "58000", message: CANNOT_SAY }],
] as [string, Rows, object][])("%s is understood", async (_, rows, expected) => {
	using main = stage();
	main.register.rows = { alice: rows };
	expect(await main.learning.lookUp("alice", "d")).toMatchObject(expected);
});

test("nobody is asked for a database that there is not, nor where auth_query is off", async () => {
	using main = stage();
	expect(await main.learning.lookUp("alice", "elsewhere")).toEqual(NOBODY);
	const { auth_query_user: _, ...general } = main.snapshot.general;
	main.learning.reach({ ...main.snapshot, general: general as General });
	expect(await main.learning.lookUp("alice", "d")).toEqual(NOBODY);
	expect(main.register.logins).toEqual([]);
});

test("an error of the server is told as one text and logged with its own, and is not kept", async () => {
	using main = stage();
	main.register.error = "42501";
	expect(await main.learning.lookUp("alice", "d")).toEqual({ sqlstate: "58000", message: CANNOT_SAY });
	expect(main.lines).toHaveLength(1);
	expect(main.lines[0]).toContain("auth_query failed: 42501 refused (the detail) [d]");
	main.register.error = "";
	expect(await main.learning.lookUp("alice", "d")).toMatchObject(ALICE);
	// Its connection was none the worse for it.
	expect(main.register.logins).toHaveLength(1);
});

test("a connection that was lost meanwhile is opened anew for the question that finds it so", async () => {
	using main = stage();
	const { learning, register } = main;
	await learning.lookUp("alice", "d");
	register.drop();
	await until(() => register.connections === 0, "the connection to be gone");
	expect(await learning.lookUp("bob", "d")).toMatchObject({ found: { passwords: ["geheim"] } });
	expect(register.logins).toHaveLength(2);
});

test("a server that lets nobody in is tried again by whoever asks next", async () => {
	using main = stage();
	main.register.closed = true;
	expect(await main.learning.lookUp("alice", "d")).toMatchObject({ message: CANNOT_SAY });
	expect(main.lines.join()).toContain("57P03");
	main.register.closed = false;
	expect(await main.learning.lookUp("alice", "d")).toMatchObject(ALICE);
});

test("of several servers of a database the first that lets us in is asked", async () => {
	using closed = new Register();
	closed.closed = true;
	using main = stage();
	const [entry] = main.snapshot.databases;
	const primary = { ...entry!, role: "primary" as const, port: closed.port };
	const replica = { ...entry!, role: "replica" as const };
	main.learning.reach({ ...main.snapshot, databases: [replica, primary] });
	expect(await main.learning.lookUp("alice", "d")).toMatchObject(ALICE);
	expect([closed.logins.length, main.register.logins.length]).toEqual([1, 1]);
});

test("who does not answer in time is not waited for, neither by this question nor by the next", async () => {
	using main = stage({ client_login_timeout: 60 });
	const { learning, register } = main;
	register.hold = true;
	expect(await learning.lookUp("alice", "d")).toEqual({ sqlstate: "08006", message: CANNOT_SAY });
	expect(main.lines[0]).toContain("no answer within 30 ms");
	register.hold = false;
	await until(() => register.connections === 0, "the connection to be closed");
});

test("after a log-in that failed an answer is asked again, unless it is quite new", async () => {
	using main = stage();
	const { learning, register } = main;
	await learning.lookUp("alice", "d");
	learning.doubt("alice", "d");
	learning.doubt("nobody", "d");
	await learning.lookUp("alice", "d");
	expect(register.asked).toEqual(["alice"]);
});

test("a reload forgets the answers and closes the connection, once what was asked is answered", async () => {
	using main = stage();
	const { learning, register, snapshot } = main;
	register.hold = true;
	const asked = learning.lookUp("alice", "d");
	await until(() => register.asked.length === 1, "the question");
	learning.reach(snapshot);
	register.goOn();
	expect(await asked).toMatchObject(ALICE);
	await until(() => register.connections === 0, "the connection to be closed");
	// What came afterwards was an answer of the configuration before.
	await learning.lookUp("alice", "d");
	expect(register.asked).toEqual(["alice", "alice"]);
	expect(register.logins).toHaveLength(2);
});

test("auth_query_database is asked for the users of all others", async () => {
	using main = stage({ auth_query_database: "central" }, (port) => [`postgres://u:p@127.0.0.1:${port}/central`]);
	expect(await main.learning.lookUp("alice", "d")).toMatchObject(ALICE);
	expect(await main.learning.lookUp("alice", "central")).toMatchObject(ALICE);
	expect(main.register.logins.map(({ database }) => database)).toEqual(["central"]);
	expect(main.register.asked).toEqual(["alice"]);
});

test("who has logged in by what was found gets pools, once, and others when that has changed", () => {
	using main = stage();
	const { learning } = main;
	const first = learning.join("alice", "d", { passwords: ["secret"] });
	expect(first).toMatchObject({ database: "d", user: { name: "alice", learned: true } });
	expect(first!.pools.map(({ user, server_passwords }) => [user, server_passwords])).toEqual([["alice", ["secret"]]]);
	const after = learning.replace([], [first!]);
	expect(after.clusters.map(({ user }) => user.name)).toEqual(["u", "alice"]);
	expect(learning.join("alice", "d", { passwords: ["secret"] })).toBe(null);
	const second = learning.join("alice", "d", { passwords: ["changed"] });
	expect(second!.pools[0]!.server_passwords).toEqual(["changed"]);
	const last = learning.replace([{ user: "alice", database: "d" }], [second!]);
	expect(last.clusters.map(({ user }) => user.passwords)).toEqual([["p"], ["changed"]]);
	const joining = (name: string, database: string) => () => learning.join(name, database, { passwords: ["x"] });
	expect(joining("u", "d")).toThrow("the user was reconfigured");
	expect(joining("alice", "elsewhere")).toThrow("the database has left the configuration");
});

test("a reload keeps users who were learned as far as their database is there, and auth_query on", () => {
	using main = stage();
	const { learning, snapshot } = main;
	learning.replace([], [learning.join("alice", "d", { passwords: ["secret"] })!]);
	const names = (of: Snapshot) => learning.with(of).clusters.map(({ user }) => user.name);
	expect(names(snapshot)).toEqual(["u", "alice"]);
	expect(names({ ...snapshot, databases: [] })).toEqual(["u"]);
	const { auth_query_user: _, ...general } = snapshot.general;
	expect(names({ ...snapshot, general: general as General })).toEqual(["u"]);
	// The configuration has got a user of the name: it is that one's.
	const own = { ...snapshot.clusters[0]!, user: { ...snapshot.clusters[0]!.user, name: "alice" } };
	expect(learning.with({ ...snapshot, clusters: [own] }).clusters).toEqual([own]);
	learning.reach({ ...snapshot, clusters: [own] });
	expect(names(snapshot)).toEqual(["u"]);
});

test("users who have no clients and have not come for long are forgotten, each once", async () => {
	using main = stage({ idle_timeout: 60_000, client_login_timeout: 1_000 });
	const { learning } = main;
	learning.replace(
		[],
		["alice", "bob"].map((name) => learning.join(name, "d", { passwords: ["secret"] })!),
	);
	const gone = (later: number, clients: Record<string, number> = {}) =>
		learning.idle(now() + later, (user) => clients[user] ?? 0).map(({ name }) => name);
	expect(gone(50_000)).toEqual([]);
	expect(gone(70_000, { alice: 1 })).toEqual(["bob"]);
	expect(gone(70_000, { alice: 1 })).toEqual([]);
	expect(gone(70_000)).toEqual(["alice"]);
});

// ---- passwords that only the server can judge ------------------------------------------------------------------------

function passing(settings: Partial<General> = {}) {
	const main = stage({ passthrough_auth: "enabled_plain", ...settings });
	main.register.password = "right";
	const said = (password: string, user = "alice") => main.learning.lookUp(user, "d", password);
	return { ...main, said };
}

const RIGHT = { found: { passwords: ["right"], passed: true } };

test("a password is right when the server takes it, and believed for a while; a wrong one is asked about each time", async () => {
	using main = passing();
	const { said, register } = main;
	register.hold = true;
	const asked = Array.from({ length: 10 }, () => said("right"));
	await until(() => register.said.length > 0, "the password");
	register.goOn();
	for (const answer of await Promise.all(asked)) expect(answer).toMatchObject(RIGHT);
	expect(await said("right")).toMatchObject(RIGHT);
	expect(register.said).toEqual(["right"]);
	expect(register.logins[0]).toMatchObject({ user: "alice", database: "d" });
	for (let i = 0; i < 2; i++) expect(await said("wrong")).toEqual({ found: null, reason: "wrong" });
	// As long as there are no pools by it, the server alone decides.
	register.password = "other";
	expect(await said("other")).toMatchObject({ found: { passwords: ["other"] } });
	expect(register.said).toEqual(["right", "wrong", "wrong", "other"]);
	await until(() => register.connections === 0, "the connections to be closed");
});

test("it is asked about again when it is old, and after a reload; and then no longer believed when it is refused", async () => {
	using main = passing({ passthrough_auth_ttl: 0 });
	const { said, register, learning, snapshot } = main;
	expect(await said("right")).toMatchObject(RIGHT);
	expect(await said("right")).toMatchObject(RIGHT);
	expect(register.said).toHaveLength(2);
	learning.reach({ ...snapshot, general: { ...snapshot.general, passthrough_auth_ttl: 60_000 } });
	expect(await said("right")).toMatchObject(RIGHT);
	expect(await said("right")).toMatchObject(RIGHT);
	expect(register.said).toHaveLength(3);
	learning.reach(snapshot);
	register.password = "new";
	expect(await said("right")).toMatchObject({ found: null });
	expect(await said("new")).toMatchObject({ found: { passwords: ["new"] } });
});

for (const way of ["enabled_plain", "enabled_plain_allow_change"] as const)
	test(`while there are pools by another password, ${way}`, async () => {
		using main = passing({ passthrough_auth: way });
		const { said, register, learning, snapshot } = main;
		expect(await said("right")).toMatchObject(RIGHT);
		learning.replace([], [learning.join("alice", "d", RIGHT.found)!]);
		register.password = "new";
		if (way === "enabled_plain") {
			expect(await said("new")).toMatchObject({ found: null, reason: expect.stringContaining("another password") });
			expect(register.said).toEqual(["right"]);
			learning.reach(learning.with(snapshot));
			expect(await said("right")).toEqual({ found: null, reason: "wrong" });
		}
		expect(await said("new")).toMatchObject({ found: { passwords: ["new"], passed: true } });
		expect(learning.join("alice", "d", { passwords: ["new"], passed: true })!.pools[0]!.server_passwords).toEqual([
			"new",
		]);
		// Somebody was let in by the old one a moment ago: the pools would log in by it, and nobody get in.
		expect(() => learning.join("alice", "d", RIGHT.found)).toThrow("the password was changed meanwhile");
	});

// Nobody says the old password any more: as long as the user tried, he was refused.
test("a new password need not wait for somebody to try the old one", async () => {
	using main = passing({ passthrough_auth_ttl: 0 });
	const { said, register, learning } = main;
	expect(await said("right")).toMatchObject(RIGHT);
	learning.replace([], [learning.join("alice", "d", RIGHT.found)!]);
	expect(await said("wrong")).toMatchObject({ found: null, reason: expect.stringContaining("another password") });
	register.password = "new";
	expect(await said("new")).toMatchObject({ found: { passwords: ["new"] } });
	expect(register.said).toEqual(["right", "right", "right", "new"]);
});

test("a password that is tried while a reload comes is not believed after it, and lets nobody in who may not pass", async () => {
	using main = passing();
	const { said, register, learning, snapshot } = main;
	register.hold = true;
	const asked = said("right");
	await until(() => register.said.length > 0, "the password");
	learning.reach(snapshot);
	register.goOn();
	expect(await asked).toMatchObject(RIGHT);
	expect(await said("right")).toMatchObject(RIGHT);
	expect(register.said).toHaveLength(2);
	learning.reach({ ...snapshot, general: { ...snapshot.general, passthrough_auth: "disabled" } });
	expect(() => learning.join("alice", "d", RIGHT.found)).toThrow("the password was changed meanwhile");
});

test("where the user's pools leave no room on the server a password is right once it has let it in", async () => {
	using main = passing({ passthrough_auth_ttl: 0 });
	const { said, register, learning } = main;
	const FULL = { sqlstate: "53300", message: "wrong" };
	register.errorAfter = "53300";
	expect(await said("right")).toEqual(FULL);
	register.errorAfter = "";
	expect(await said("right")).toMatchObject(RIGHT);
	learning.replace([], [learning.join("alice", "d", RIGHT.found)!]);
	register.errorAfter = "53300";
	expect(await said("right")).toMatchObject(RIGHT);
	register.errorAfter = "28000";
	expect(await said("right")).toMatchObject({ found: null });
	// That may be said before the password was looked at.
	register.errorAfter = "";
	register.error = "53300";
	expect(await said("right")).toEqual(FULL);
});

test("a server that does not answer keeps nobody of another waiting", async () => {
	using other = new Register();
	const urls = () => ["away", "also"].map((name) => `postgres://u:p@127.0.0.1:${other.port}/${name}`);
	using main = stage({ passthrough_auth: "enabled_plain" }, urls);
	const { learning, register } = main;
	[register.password, other.password, other.hold] = ["right", "right", true];
	// Its databases have so many together: of those named by "*" there may be any number.
	const asked = Array.from({ length: 20 }, (_, i) => learning.lookUp("alice", i % 2 === 0 ? "away" : "also", `${i}`));
	await until(() => other.said.length === 16, "those who may");
	expect(await learning.lookUp("alice", "d", "right")).toMatchObject(RIGHT);
	expect(other.said).toHaveLength(16);
	other.goOn();
	for (const answer of await Promise.all(asked)) expect(answer).toMatchObject({ found: null });
});

test("a server that lets in whoever comes has judged nothing", async () => {
	using main = passing();
	main.register.password = null;
	expect(await main.said("right")).toEqual({
		found: null,
		reason: "the server asked for no password, so it has checked none",
	});
});

test("what the server says but of the password is no verdict, and is told or logged", async () => {
	using main = passing({ client_login_timeout: 10_000 });
	const { said, register, lines } = main;
	register.error = "3D000";
	expect(await said("right")).toEqual({ sqlstate: "3D000", message: "wrong" });
	register.error = "57P03";
	expect(await said("right")).toEqual({ sqlstate: "58000", message: "the password could not be checked" });
	expect(lines.join()).toContain("passthrough_auth failed: 57P03 wrong [d]");
	register.error = "";
	register[Symbol.dispose]();
	expect(await said("right")).toMatchObject({ sqlstate: "08006" });
});

test("so many are tried at once, and who waits for his turn too long is told so", async () => {
	using main = passing({ client_login_timeout: 20_000 });
	const { said, register, learning, snapshot } = main;
	register.hold = true;
	const first = Array.from({ length: 16 }, (_, i) => said(`${i}`));
	await until(() => register.said.length === 16, "those who may");
	// Only the one who waits has little time: a busy machine may take long until the others have said what they have to say.
	learning.reach({ ...snapshot, general: { ...snapshot.general, client_login_timeout: 40 } });
	const last = said("16");
	const began = now();
	await until(() => now() - began > 40, "the end of his time");
	register.drop();
	expect(await last).toEqual({ sqlstate: "08006", message: "the password could not be checked" });
	expect(register.said).toHaveLength(16);
	for (const answer of await Promise.all(first)) expect(answer).toMatchObject({ sqlstate: "08006" });
	learning.reach(snapshot);
	register.goOn();
	expect(await said("right")).toMatchObject(RIGHT);
});

test("what users.toml says of a user counts but for what lets it in, and those go with the setting", async () => {
	using main = passing();
	const { learning, snapshot } = main;
	const base = { ...snapshot, passwordless: [{ name: "alice", database: "d", passwords: [], pool_size: 3 }] };
	learning.reach(base);
	expect(await main.said("right")).toMatchObject(RIGHT);
	const spec = learning.join("alice", "d", RIGHT.found)!;
	expect(spec.pools[0]).toMatchObject({ pool_size: 3, server_passwords: ["right"] });
	learning.replace([], [spec]);
	const pools = (of: Snapshot) =>
		learning.with(of).clusters.flatMap(({ pools }) => pools.map((pool) => pool.pool_size));
	expect(pools(base)).toEqual([10, 3]);
	expect(pools(snapshot)).toEqual([10, 10]);
	expect(pools({ ...base, general: { ...base.general, passthrough_auth: "disabled" } })).toEqual([10]);
	learning.reach({ ...base, general: { ...base.general, passthrough_auth: "disabled" } });
	expect(await main.said("right")).toEqual({ found: null });
});

// ---- databases by wildcard ---------------------------------------------------------------------------------------------

function wild(settings: Partial<General> = {}) {
	const main = passing({ auth_query_user: undefined, ...settings });
	const any = { ...main.snapshot.databases[0]!, name: "*", database_name: "*" };
	const bob = { name: "bob", database: "*", passwords: ["bobs"], pool_size: 2 };
	const all: Snapshot = {
		...main.snapshot,
		databases: [...main.snapshot.databases, any],
		users: [...main.snapshot.users, bob],
		passwordless: [{ name: "alice", database: "*", passwords: [], pool_size: 3 }],
	};
	main.learning.reach(all);
	return { ...main, all, bob };
}

test("an entry for any database is for those that no other names, but not the admin's, or one that is cut off", async () => {
	using main = wild();
	const { learning, register } = main;
	expect(await learning.lookUp("bob", "x")).toEqual({ found: { passwords: ["bobs"], listed: true } });
	expect(register.logins).toHaveLength(0);
	for (const database of ["d", "admin", "*", "y".repeat(64)])
		expect(await learning.lookUp("bob", database, undefined)).toMatchObject({ found: null });
	expect(await learning.lookUp("alice", "x", "right")).toMatchObject(RIGHT);
	expect(register.logins.at(-1)).toMatchObject({ user: "alice", database: "x" });
	expect(await learning.lookUp("a".repeat(64), "x", "right")).toEqual({ found: null });
	expect(learning.join("alice", "x", RIGHT.found)!.pools[0]).toMatchObject({
		pool_size: 3,
		database: "x",
		database_name: "x",
		server_passwords: ["right"],
	});
	const listed = learning.join("bob", "x", { passwords: ["bobs"], listed: true })!;
	expect(listed).toMatchObject({
		user: { learned: true, listed: true },
		pools: [{ pool_size: 2, database_name: "x" }],
	});
});

test("such a database is logged in to before it has pools, as its pools would", async () => {
	using main = wild();
	const { learning, register, lines } = main;
	register.password = "bobs";
	const spec = learning.join("bob", "x", { passwords: ["bobs"], listed: true })!;
	expect(await learning.tryOut(spec, spec.user, null)).toBe(null);
	expect([register.said, register.logins.at(-1)]).toMatchObject([["bobs"], { user: "bob", database: "x" }]);
	register.error = "3D000";
	expect(await learning.tryOut(spec, spec.user, null)).toEqual({ sqlstate: "3D000", message: "wrong" });
	// That it was logged in to for its password is enough.
	expect(await learning.tryOut(spec, RIGHT.found, null)).toBe(null);
	const named = learning.join("alice", "d", { passwords: ["secret"] })!;
	expect(await learning.tryOut(named, { passwords: ["secret"] }, null)).toBe(null);
	expect(register.said).toHaveLength(2);
	for (const error of ["28P01", "57P03"]) {
		register.error = error;
		expect(await learning.tryOut(spec, spec.user, null)).toEqual({
			sqlstate: "58000",
			message: 'connection pool for user "bob" and database "x" is down',
		});
	}
	expect(lines.join()).toContain("database by wildcard failed: 28000 wrong [x]");
});

test("of several passwords the server's may be any, as for pools", async () => {
	using main = wild();
	const { learning, register } = main;
	register.password = "theirs";
	const found = { passwords: ["first", "theirs", "last"], listed: true };
	const several = { ...main.all, users: [{ ...main.bob, passwords: found.passwords }] };
	learning.reach(several);
	const spec = learning.join("bob", "x", found)!;
	expect(await learning.tryOut(spec, found, null)).toBe(null);
	expect(register.said).toEqual(["first", "theirs"]);
	register.password = "another";
	expect(await learning.tryOut(spec, found, null)).toMatchObject({ sqlstate: "58000" });
	expect(register.said.slice(2)).toEqual(found.passwords);
	register.error = "3D000";
	expect(await learning.tryOut(spec, found, null)).toEqual({ sqlstate: "3D000", message: "wrong" });
	expect(register.said).toHaveLength(6);
});

// It had logged in, and its pools were being tried out while the reload came.
test("a user whom a reload has taken away, or given another password, gets no pools by what was found before", () => {
	using main = wild();
	const { learning, all, bob } = main;
	const join = () => learning.join("bob", "x", { passwords: ["bobs"], listed: true });
	expect(join()).not.toBe(null);
	for (const users of [[], [{ ...bob, passwords: ["other"] }]]) {
		learning.reach({ ...all, users });
		expect(join).toThrow("the user was reconfigured");
	}
});

test("a reload keeps users of users.toml in databases by wildcard for as long as it has them, with what it says", () => {
	using main = wild();
	const { learning, all, bob } = main;
	learning.replace([], [learning.join("bob", "x", { passwords: ["bobs"], listed: true })!]);
	const sizes = (of: Snapshot) =>
		learning
			.with(of)
			.clusters.filter(({ database }) => database === "x")
			.flatMap(({ pools }) => pools.map(({ pool_size, server_passwords }) => [pool_size, ...server_passwords]));
	expect(sizes(all)).toEqual([[2, "bobs"]]);
	const changed = { ...bob, passwords: ["other"], pool_size: 5 };
	expect(sizes({ ...all, users: [changed] })).toEqual([[5, "other"]]);
	expect(sizes({ ...all, users: [] })).toEqual([]);
	expect(sizes({ ...all, databases: all.databases.slice(0, 1) })).toEqual([]);
	// It has got an entry of its own, which this user is not for.
	expect(sizes({ ...all, databases: [...all.databases, { ...all.databases[0]!, name: "x" }] })).toEqual([]);
});

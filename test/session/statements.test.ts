// What a client says of its prepared statements, and what its server is sent of it: names of ours for the client's own, and the
// statement itself where the server at hand does not have it.

import { describe, expect, test } from "bun:test";
import { Reply } from "../../src/backend/books.ts";
import { ServerState } from "../../src/backend/server-state.ts";
import { StatementCache } from "../../src/parser/cache.ts";
import { SqlParser } from "../../src/parser/parse.ts";
import { Reading } from "../../src/parser/reading.ts";
import { Dirty, Reads } from "../../src/parser/session.ts";
import { Router } from "../../src/router/router.ts";
import { bringBack } from "../../src/session/ours.ts";
import { STALE } from "../../src/session/preparing.ts";
import { Said } from "../../src/session/said.ts";
import { rig } from "../backend/support.ts";
import { backend as b, concat, frontend as f } from "../support/wire-frames.ts";
import { TestClient, thread } from "./support.ts";

const INTEGER = [b.parameterDescription(23), b.rowDescription("a")];
const BIGINT = [b.parameterDescription(20), b.rowDescription("a")];
const NOTHING = [b.parameterDescription(), b.noData()];
const SYNC = f.sync();
const error = (code = "42601", message = "no") => b.errorResponse({ S: "ERROR", V: "ERROR", C: code, M: message });
const run = (statement = "") => [f.bind({ statement }), f.execute()];
const RAN = [b.bindComplete(), b.commandComplete("SELECT 1")];

/** The client has parsed `sql` as `name`, and the server has answered that it is `description`. */
function parse(client: TestClient, name: string, sql: string, description = INTEGER): void {
	client.say(f.parse(sql, name), SYNC);
	client.done(b.parseComplete(), ...description);
}

describe("a named statement", () => {
	test("goes by a name of ours, and the server is asked what it is", () => {
		const client = new TestClient(thread());
		expect(client.say(f.parse("SELECT $1", "mine"), f.describe("S", "mine"), ...run("mine"), SYNC)).toEqual([
			'Parse __pgdog_1 "SELECT $1"',
			"Describe S __pgdog_1",
			"Describe S __pgdog_1",
			"Bind __pgdog_1",
			"Execute",
			"Sync",
		]);
		// The answer to our Describe is not the client's.
		expect(client.done(b.parseComplete(), ...INTEGER, ...INTEGER, ...RAN)).toEqual([
			"ParseComplete",
			"ParameterDescription [23]",
			'RowDescription ["a" attribute=0 type=25 size=-1 modifier=-1 format=0]',
			"BindComplete",
			'CommandComplete "SELECT 1"',
			"ReadyForQuery I",
		]);
		expect(client.statements.size).toBe(1);
	});

	test("is parsed once for all clients of the thread that read it alike", () => {
		const all = thread();
		const [one, other] = [new TestClient(all), new TestClient(all)];
		parse(one, "mine", "SELECT $1");
		other.take(one.rig);
		expect(other.say(f.parse("SELECT $1", "theirs"), ...run("theirs"), SYNC)).toEqual([
			"Bind __pgdog_1",
			"Execute",
			"Sync",
		]);
		expect(other.done(...RAN)).toEqual([
			"ParseComplete",
			"BindComplete",
			'CommandComplete "SELECT 1"',
			"ReadyForQuery I",
		]);
	});

	test("parsed while the server is being asked what it is, is what the server says", () => {
		const client = new TestClient(thread());
		const said = client.say(
			f.parse("SELECT $1", "one"),
			f.parse("SELECT $1", "two"),
			f.bind({ statement: "two" }),
			SYNC,
		);
		expect(said).toEqual(['Parse __pgdog_1 "SELECT $1"', "Describe S __pgdog_1", "Bind __pgdog_1", "Sync"]);
		client.done(b.parseComplete(), ...INTEGER, b.bindComplete());
		expect(client.say(f.describe("S", "two"), SYNC)).toEqual(["Describe S __pgdog_1", "Sync"]);
	});

	test("is prepared on another server with the types that it has, and waited for", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT $1");
		client.take(rig());
		expect(client.say(...run("mine"), SYNC)).toEqual([
			'Parse __pgdog_1 "SELECT $1" 23',
			"Describe S __pgdog_1",
			"Flush",
			"later",
		]);
		expect(client.hear(b.parseComplete(), ...INTEGER)).toEqual([]);
		expect(client.say(...run("mine"), SYNC)).toEqual(["Bind __pgdog_1", "Execute", "Sync"]);
		client.done(...RAN);
	});

	test("that is another on another server is refused there, and taken away", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT * FROM t");
		client.take(rig());
		const parsed = ['Parse __pgdog_1 "SELECT * FROM t" 23', "Describe S __pgdog_1", "Flush", "later"];
		expect(client.say(...run("mine"), SYNC)).toEqual(parsed);
		client.hear(b.parseComplete(), b.parameterDescription(23), b.rowDescription("b"));
		expect(client.say(...run("mine"), SYNC)).toEqual(["Close S __pgdog_1", "refused"]);
		expect(STALE.sqlstate).toBe("0A000");
		// The next attempt finds out whether it is so still.
		expect(client.say(...run("mine"), SYNC)).toEqual(parsed);
		client.hear(b.closeComplete(), b.parseComplete(), ...INTEGER);
		expect(client.say(...run("mine"), SYNC)).toEqual(["Bind __pgdog_1", "Execute", "Sync"]);
	});

	test("that nobody was told of need not be waited for elsewhere", () => {
		const all = thread();
		const client = new TestClient(all);
		client.say(f.parse("SELECT $1", "mine"), SYNC);
		// A server that does not know Describe.
		client.done(b.parseComplete());
		client.take(rig());
		expect(client.say(...run("mine"), SYNC)).toEqual([
			'Parse __pgdog_1 "SELECT $1"',
			"Describe S __pgdog_1",
			"Bind __pgdog_1",
			"Execute",
			"Sync",
		]);
	});

	test("waits where the server is being asked what another name's Parse of the text comes to", () => {
		const client = new TestClient(thread());
		parse(client, "old", "SELECT $1");
		client.take(rig());
		const said = ['Parse __pgdog_1 "SELECT $1"', "Describe S __pgdog_1"];
		expect(client.say(f.parse("SELECT $1", "new"), ...run("old"), SYNC)).toEqual([...said, "Flush", "later"]);
		expect(client.hear(b.parseComplete(), ...INTEGER)).toEqual(["ParseComplete"]);
		expect(client.say(...run("old"), SYNC)).toEqual(["Bind __pgdog_1", "Execute", "Sync"]);
	});

	test("on a server that stays with its client is nobody else's, and need not be known", () => {
		const all = thread();
		const client = new TestClient(all).take(rig(), true);
		expect(client.say(f.parse("SELECT $1", "mine"), ...run("mine"), SYNC)).toEqual([
			'Parse __pgdog_1 "SELECT $1"',
			"Bind __pgdog_1",
			"Execute",
			"Sync",
		]);
		const other = new TestClient(all);
		expect(other.say(f.parse("SELECT $1", "mine"), SYNC)[0]).toBe('Parse __pgdog_2 "SELECT $1"');
	});

	test("stays on the server when the client closes it, and is asked about when it is parsed again", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT $1");
		expect(client.say(f.close("S", "mine"), SYNC)).toEqual(["Sync"]);
		expect(client.done()).toEqual(["CloseComplete", "ReadyForQuery I"]);
		expect(client.statements.size).toBe(0);
		expect(client.say(f.parse("SELECT $1", "mine"), SYNC)).toEqual([
			"Close S __pgdog_1",
			'Parse __pgdog_1 "SELECT $1"',
			"Describe S __pgdog_1",
			"Sync",
		]);
	});

	test("is found to be another when the catalogue has changed: by who parses it again, while others are held to the first", () => {
		const all = thread();
		const [one, other] = [new TestClient(all), new TestClient(all)];
		parse(one, "mine", "SELECT * FROM t");
		all.catalogue++;
		other.take(one.rig);
		expect(other.say(f.parse("SELECT * FROM t", "theirs"), SYNC)).toEqual([
			"Close S __pgdog_1",
			'Parse __pgdog_1 "SELECT * FROM t"',
			"Describe S __pgdog_1",
			"Sync",
		]);
		other.done(b.closeComplete(), b.parseComplete(), ...BIGINT);
		// A statement of its own from now on, that the server does not have by that name.
		expect(other.say(...run("theirs"), SYNC)).toEqual([
			'Parse __pgdog_2 "SELECT * FROM t" 20',
			"Describe S __pgdog_2",
			"Flush",
			"later",
		]);
		other.hear(b.parseComplete(), ...BIGINT);
		expect(other.say(...run("theirs"), SYNC)).toEqual(["Bind __pgdog_2", "Execute", "Sync"]);
		other.done(...RAN);
		one.take(other.rig);
		expect(one.say(...run("mine"), SYNC).slice(0, 2)).toEqual([
			"Close S __pgdog_1",
			'Parse __pgdog_1 "SELECT * FROM t" 23',
		]);
	});

	test("is closed when the server has too many", () => {
		const all = thread();
		all.limit = 1;
		const client = new TestClient(all);
		parse(client, "one", "SELECT 1");
		expect(client.say(f.parse("SELECT 2", "two"), SYNC)).toEqual([
			"Close S __pgdog_1",
			'Parse __pgdog_2 "SELECT 2"',
			"Describe S __pgdog_2",
			"Sync",
		]);
		client.done(b.closeComplete(), b.parseComplete(), ...INTEGER);
		expect(client.say(...run("one"), SYNC).slice(0, 2)).toEqual(["Close S __pgdog_2", 'Parse __pgdog_1 "SELECT 1" 23']);
	});

	test("of another thread is closed first when the server has too many", () => {
		const all = thread();
		all.limit = 1;
		const client = new TestClient(all);
		const moving = { name: "__pgdog_77", description: null, asDescribed: false, catalogue: 0, dueAt: 0 };
		client.server.statements.arrive([moving], all.statements);
		expect(client.say(f.parse("SELECT 1", "one"), SYNC)[0]).toBe("Close S __pgdog_77");
	});

	test("is prepared anew when its time has come (prepared_statements_ttl)", () => {
		const all = thread();
		all.ttl = 100;
		const client = new TestClient(all);
		parse(client, "mine", "SELECT 1");
		all.time += 99;
		expect(client.say(...run("mine"), SYNC)).toEqual(["Bind __pgdog_1", "Execute", "Sync"]);
		client.done(...RAN);
		all.time += 1;
		client.take(client.rig);
		expect(client.say(...run("mine"), SYNC)).toEqual([
			"Close S __pgdog_1",
			'Parse __pgdog_1 "SELECT 1" 23',
			"Describe S __pgdog_1",
			"Flush",
			"later",
		]);
	});
});

describe("a name", () => {
	test("that is given is refused as PostgreSQL refuses it, behind what is wrong with the text", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT 1");
		expect(client.say(f.parse("SELECT 2", "mine"), SYNC)).toEqual([
			'Parse "SELECT 2"',
			'Parse "refused by pgdog"',
			"Sync",
		]);
		expect(client.done(b.parseComplete(), error())).toEqual([
			'ErrorResponse S="ERROR" V="ERROR" C="42P05" M="prepared statement \\"mine\\" already exists"',
			"ReadyForQuery I",
		]);
		expect(client.statements.textOf("mine")).toBe("SELECT 1");
	});

	test("that nobody has given goes as it is: SQL's PREPARE may have", () => {
		const client = new TestClient(thread());
		expect(client.say(...run("sql"), f.describe("S", "sql"), f.close("S", "sql"), SYNC)).toEqual([
			"Bind sql",
			"Execute",
			"Describe S sql",
			"Close S sql",
			"Sync",
		]);
	});

	test("like those that are ours ends the connection", () => {
		const client = new TestClient(thread());
		expect(() => client.say(...run("__pgdog_1"))).toThrow(/are the proxy's/);
	});

	test("beyond what may be kept is refused, unless others have the statement too", () => {
		const all = thread();
		const client = new TestClient(all);
		parse(client, "one", "SELECT 1");
		all.statements.hasRoom = () => false;
		expect(client.say(f.parse("SELECT 2", "two"), SYNC)).toEqual(['Parse "refused by pgdog"', "Sync"]);
		expect(client.done(error())[0]).toContain('C="53200"');
		expect(client.say(f.parse("SELECT 1", "two"), SYNC)).toEqual(["Sync"]);
	});

	test("of a portal is none of ours", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT 1");
		expect(client.say(f.describe("P", "mine"), f.close("P", "mine"), SYNC)).toEqual([
			"Describe P mine",
			"Close P mine",
			"Sync",
		]);
		expect(client.statements.size).toBe(1);
	});
});

describe("an error", () => {
	test("gives back the names that the batch has taken and takes those that it has given", () => {
		const client = new TestClient(thread());
		parse(client, "old", "SELECT 1");
		client.say(...run("old"), f.close("S", "old"), f.parse("SELECT 2", "new"), SYNC);
		expect([client.statements.textOf("old"), client.statements.textOf("new")]).toEqual([null, "SELECT 2"]);
		client.done(error());
		expect([client.statements.textOf("old"), client.statements.textOf("new")]).toEqual(["SELECT 1", null]);
	});

	test("names statements as the client does, those that it has closed meanwhile, too", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT 1");
		client.say(...run("mine"), f.close("S", "mine"), SYNC);
		expect(client.done(error("26000", 'prepared statement "__pgdog_1" does not exist'))[0]).toContain('\\"mine\\"');
		expect(client.statements.clientName("__pgdog_1")).toBe("mine");
		expect(client.statements.clientName("__pgdog_2")).toBeNull();
	});

	test("before the unnamed Parse leaves the statement that was there", () => {
		const client = new TestClient(thread());
		client.say(f.parse("SELECT 1"), SYNC);
		client.done(b.parseComplete());
		client.say(...run("nothing"), f.parse("SELECT 2"), SYNC);
		client.done(error());
		expect(client.statements.textOf("")).toBe("SELECT 1");
	});

	test("in a failed transaction the server says what a Parse comes to, which depends on its text", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "ROLLBACK", NOTHING);
		client.say(f.query("BEGIN"));
		client.hear(b.commandComplete("BEGIN"), b.readyForQuery("T"));
		client.say(f.query("x"));
		client.hear(error(), b.readyForQuery("E"));
		expect(client.say(f.parse("ROLLBACK", "again"), SYNC)).toEqual(['Parse "ROLLBACK"', "Sync"]);
	});
});

describe("the unnamed statement", () => {
	test("goes as it is, and is parsed again where the server has another client's", () => {
		const all = thread();
		const [one, other] = [new TestClient(all), new TestClient(all)];
		expect(one.say(f.parse("SELECT 1"), ...run(), SYNC)).toEqual(['Parse "SELECT 1"', "Bind", "Execute", "Sync"]);
		one.done(b.parseComplete(), ...RAN);
		expect(one.say(...run(), SYNC)).toEqual(["Bind", "Execute", "Sync"]);
		one.done(...RAN);
		other.take(one.rig);
		other.say(f.parse("SELECT 2"), SYNC);
		other.done(b.parseComplete());
		one.take(other.rig);
		expect(one.say(...run(), SYNC)).toEqual(['Parse "SELECT 1"', "Bind", "Execute", "Sync"]);
		expect(one.done(b.parseComplete(), ...RAN)).toEqual([
			"BindComplete",
			'CommandComplete "SELECT 1"',
			"ReadyForQuery I",
		]);
	});

	test("that the client has asked about must be the same elsewhere", () => {
		const client = new TestClient(thread());
		client.say(f.parse("SELECT $1"), f.describe("S"), SYNC);
		client.done(b.parseComplete(), ...INTEGER);
		const again = ['Parse "SELECT $1" 23', "Describe S", "Flush", "later"];
		client.take(rig());
		expect(client.say(...run(), SYNC)).toEqual(again);
		expect(client.hear(b.parseComplete(), ...INTEGER)).toEqual([]);
		expect(client.say(...run(), SYNC)).toEqual(["Bind", "Execute", "Sync"]);
		client.done(...RAN);
		client.take(rig());
		expect(client.say(...run(), SYNC)).toEqual(again);
		client.hear(b.parseComplete(), ...BIGINT);
		expect(client.say(...run(), SYNC)).toEqual(["refused"]);
	});

	test("of another client is taken from the server when this one has none, and so it is refused", () => {
		const all = thread();
		const [one, other] = [new TestClient(all), new TestClient(all)];
		one.say(f.parse("SELECT 1"), SYNC);
		one.done(b.parseComplete());
		other.take(one.rig);
		expect(other.say(f.bind(), SYNC)).toEqual(["Close S", "Bind", "Sync"]);
		expect(other.say(f.describe("S"), SYNC)).toEqual(["Close S", "Describe S", "Sync"]);
	});

	test("ends with a simple query, with Close, and when it is forgotten", () => {
		const client = new TestClient(thread());
		const { statements } = client;
		const ends: (() => void)[] = [
			() => client.say(f.query("SELECT 1")),
			() => client.say(f.close("S")),
			() => statements.forgetUnnamed(),
			() => statements.closeAlone(Buffer.from(f.close("S")), 0, 7),
		];
		for (const end of ends) {
			client.say(f.parse("SELECT 1"));
			expect([statements.textOf(""), statements.namesOf(() => true)]).toEqual(["SELECT 1", [""]]);
			end();
			expect([statements.textOf(""), statements.namesOf(() => true)]).toEqual([null, []]);
		}
	});
});

describe("DEALLOCATE", () => {
	test("of a statement of the protocol names it as the server does, in a Query and in a batch", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT 1");
		expect(client.say(f.query("DEALLOCATE mine"))).toEqual(['Query "DEALLOCATE __pgdog_1"']);
		client.done(b.commandComplete("DEALLOCATE"));
		expect(client.statements.size).toBe(0);
		parse(client, "mine", "SELECT 2");
		expect(client.say(f.parse("DEALLOCATE mine"), ...run(), SYNC)).toEqual([
			'Parse "DEALLOCATE __pgdog_2"',
			"Bind",
			"Execute",
			"Sync",
		]);
		expect(client.statements.size).toBe(0);
	});

	test("that is not run leaves the statement, to its client and to those who share it", () => {
		const all = thread();
		const [client, other] = [new TestClient(all), new TestClient(all)];
		parse(client, "mine", "SELECT 1");
		client.say(f.bind({ statement: "nobody" }), f.parse("DEALLOCATE mine"), ...run(), SYNC);
		client.done(error("26000"));
		expect(client.statements.textOf("mine")).toBe("SELECT 1");
		other.take(client.rig);
		// It may have been taken away to be parsed anew.
		expect(other.say(f.parse("SELECT 1", "theirs")).slice(0, 2)).toEqual([
			"Close S __pgdog_1",
			'Parse __pgdog_1 "SELECT 1"',
		]);
	});

	test("of one that the server does not have is of an empty text, which is no error", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT 1");
		client.take(rig());
		expect(client.say(f.query("DEALLOCATE mine"))).toEqual(['Parse __pgdog_1 ""', 'Query "DEALLOCATE __pgdog_1"']);
	});

	test("of what SQL has prepared goes as it is; ALL takes all names", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT 1");
		expect(client.say(f.query("DEALLOCATE other"))).toEqual(['Query "DEALLOCATE other"']);
		client.done(b.commandComplete("DEALLOCATE"));
		client.say(f.query("DEALLOCATE ALL"));
		client.done(b.commandComplete("DEALLOCATE ALL"));
		expect(client.statements.size).toBe(0);
	});
});

describe("a text whose constants depend on settings", () => {
	const TEXT = "SELECT '2024-01-01'::timestamptz";

	test("that the transaction has changed is the client's alone; they are asked for", () => {
		const client = new TestClient(thread());
		client.server.session.traces.noteSets(["timezone"]);
		const said = client.say(f.parse(TEXT, "mine"), SYNC);
		expect(said.slice(0, 3)).toEqual([
			`Parse __pgdog_1 "${TEXT}"`,
			"Describe S __pgdog_1",
			'Parse "SHOW standard_conforming_strings"',
		]);
		expect(said.filter((line) => line.includes("SHOW"))).toHaveLength(14);
	});

	test("is parsed by the client's settings on a server, which has others then", () => {
		const all = thread();
		const client = new TestClient(all);
		client.wanted = all.sets.of(new Map([["timezone", "UTC"]]));
		parse(client, "mine", TEXT);
		// The session reads otherwise now: the statement becomes its own, and is parsed as it was read at first.
		client.wanted = all.sets.empty;
		const said = client.say(...run("mine"), SYNC);
		const ours = ["Bind __pgdog", "Execute __pgdog", "Close P __pgdog"];
		expect(said[0]).toContain("pg_catalog.set_config('timezone', 'UTC'");
		expect(said.slice(1, 6)).toEqual([...ours, `Parse __pgdog_2 "${TEXT}" 23`, "Describe S __pgdog_2"]);
		expect(said[6]).toContain("set_config('timezone', pg_catalog.current_setting('pgdog.was_timezone')");
		expect(said.slice(7)).toEqual([...ours, "Flush", "later"]);
	});

	test("that nobody can read again as it was read is refused elsewhere", () => {
		const client = new TestClient(thread());
		client.server.session.traces.noteSets(["timezone"]);
		client.say(f.parse(TEXT, "mine"), SYNC);
		client.take(rig());
		client.server.session.traces.noteUnknown();
		expect(client.say(...run("mine"), SYNC)).toEqual(["refused"]);
	});
});

describe("what a Bind runs", () => {
	test("sets what its parameters name", () => {
		const client = new TestClient(thread());
		const set = "SELECT set_config($1, $2, false)";
		parse(client, "set", set);
		client.say(f.bind({ statement: "set", values: ["Work_Mem", "1MB"] }), f.execute(), SYNC);
		expect([...(client.server.session.traces.sets ?? [])]).toEqual(["work_mem"]);
		client.done(...RAN);
		client.say(f.parse(set), f.bind({ values: ["a.b", null] }), f.execute(), SYNC);
		expect([...(client.server.session.traces.sets ?? [])]).toEqual(["work_mem", "a.b"]);
	});

	test("is not known while its parameters are not here", () => {
		const client = new TestClient(thread());
		parse(client, "set", "SELECT set_config($1, $2, false)");
		const { server, statements } = client;
		const bind = Buffer.from(f.bind({ statement: "set", values: ["work_mem", "1MB"] }));
		const next = bind.length + 1000;
		statements.onBind(server, bind, 0, 0, next, bind.length - 8);
		expect(server.session.traces.isUnknown).toBe(true);
		expect(server.session.traces.reads & Reads.Everything).toBe(Reads.Everything);
	});

	test("may commit, which a CancelRequest must not take back", () => {
		const client = new TestClient(thread());
		parse(client, "c", "COMMIT", NOTHING);
		expect(client.server.books.mayCommit).toBe(false);
		client.say(...run("c"), SYNC);
		expect(client.server.books.mayCommit).toBe(true);
	});
});

describe("malformed messages", () => {
	const malformed = (code: string, ...body: number[]) =>
		concat(Uint8Array.of(code.charCodeAt(0), 0, 0, 0, 4 + body.length), Uint8Array.from(body));

	test.each([
		["Parse", malformed("P", 0, 65), Reply.Parse],
		["Bind", malformed("B", 65), Reply.Bind],
		["Describe of nothing", malformed("D", 65, 0), Reply.Describe],
		["Describe without an end", malformed("D", 83, 65), Reply.Describe],
		["Close with something behind its name", malformed("C", 83, 65, 0, 0), Reply.Close],
	])("%s: the server finds fault with it", (_, message, mark) => {
		const client = new TestClient(thread());
		const chunk = Buffer.from(message);
		expect(client.sayOne(chunk, 0, 0, chunk.length)).toBe(Said.AsIs);
		expect([client.server.books.front, client.server.stream.out.fill]).toEqual([mark, 0]);
	});
});

describe("prepared_statements = disabled", () => {
	const own = (routed = true) => new TestClient(thread(), { shared: false, routed });

	test("names go as they are, and leave something to clean", () => {
		const client = own();
		const said = ['Parse mine "SELECT 1"', "Describe S mine", "Bind mine", "Execute", "Close S mine", "Sync"];
		expect(
			client.say(f.parse("SELECT 1", "mine"), f.describe("S", "mine"), ...run("mine"), f.close("S", "mine"), SYNC),
		).toEqual(said);
		expect(client.server.session.traces.dirty & Dirty.Prepared).toBe(Dirty.Prepared);
		expect(client.statements.mayDeclare("other")).toBe(false);
	});

	test("the unnamed statement is closed for other servers, too", () => {
		const client = own();
		client.say(f.parse("SELECT 1"), f.close("S"), SYNC);
		client.done(b.parseComplete(), b.closeComplete());
		client.take(rig());
		expect(client.say(...run(), SYNC)).toEqual(["Close S", "Bind", "Execute", "Sync"]);
	});

	test("a server may have statements by the protocol that have such a name", () => {
		const client = own();
		client.say(f.parse("SELECT 1", "mine"));
		const { statements } = client;
		expect([statements.hasByProtocol("mine"), statements.hasByProtocol("other")]).toEqual([true, false]);
		expect(statements.hasByProtocol("__pgdog_1")).toBe(true);
		expect(statements.namesOf(() => true)).toEqual(["mine"]);
		client.say(f.query("DEALLOCATE mine"));
		expect(statements.hasByProtocol("mine")).toBe(false);
	});

	test("what gives settings their default does so when it is bound", () => {
		const client = own();
		const startup = client.rig.sets.of(new Map([["work_mem", "1MB"]]));
		Object.assign(client.server.client!, { startup });
		client.say(f.parse("RESET work_mem", "mine"));
		expect(client.server.session.restoring).toBeNull();
		client.say(...run("mine"));
		expect(client.server.session.restoring).not.toBeNull();
	});
});

describe("settings that come back in the middle of a batch", () => {
	/** A client whose StartupMessage asked for work_mem, in a batch that has reset it. */
	function reset(): TestClient {
		const client = new TestClient(thread());
		Object.assign(client.server.client!, { startup: client.rig.sets.of(new Map([["work_mem", "1MB"]])) });
		client.say(f.parse("RESET work_mem"), ...run());
		return client;
	}

	const behind = (client: TestClient, message: Uint8Array): string[] => {
		const chunk = Buffer.from(message);
		client.statements.bringBack(client.server, client.server.client!.startup, chunk, 0, 0);
		return client.say(message);
	};

	test("do so before what may find them", () => {
		const client = reset();
		const said = behind(client, f.parse("SHOW work_mem"));
		expect(said[0]).toStartWith('Parse "SELECT FROM (VALUES');
		expect(said.slice(1)).toEqual(["Bind __pgdog", "Execute __pgdog", "Close P __pgdog", 'Parse "SHOW work_mem"']);
	});

	test("wait while a transaction's modes are chosen, which a query would fix", () => {
		const client = reset();
		expect(behind(client, f.parse("BEGIN"))).toEqual(['Parse "BEGIN"']);
		expect(behind(client, f.bind())).toEqual(["Bind"]);
		expect(behind(client, f.bind({ statement: "named" }))).toHaveLength(5);
	});

	test("are none where nothing was given its default", () => {
		const client = new TestClient(thread());
		bringBack(client.server, client.rig.sets.empty, Buffer.from(f.parse("SHOW work_mem")), 0);
		expect(client.say(SYNC)).toEqual(["Sync"]);
	});
});

describe("what happens where the client has no server", () => {
	const note = (client: TestClient, message: Uint8Array, serial = 1) => {
		const chunk = Buffer.from(message);
		client.statements.note(chunk, 0, chunk.length, serial);
	};

	test("counts all the same", () => {
		const client = new TestClient(thread());
		const { statements } = client;
		note(client, f.parse("SELECT 1", "mine"));
		note(client, f.parse("SELECT 2"), 7);
		expect([statements.textOf("mine"), statements.textOf("")]).toEqual(["SELECT 1", "SELECT 2"]);
		expect(statements.namesOf(() => true)).toEqual(["mine", ""]);
		note(client, f.close("S"));
		note(client, f.close("S", "mine"));
		expect(statements.namesOf(() => true)).toEqual([]);
		note(client, f.parse("SELECT 1", "mine"));
		note(client, f.parse("DEALLOCATE mine"), 8);
		expect(statements.namesOf(() => true)).toEqual(["mine", ""]);
		note(client, f.bind());
		expect(statements.namesOf(() => true)).toEqual([""]);
		note(client, f.parse("SELECT 1", "mine"));
		note(client, f.query("DEALLOCATE mine"));
		expect(statements.namesOf(() => true)).toEqual([]);
	});

	test("a Close is known to all who parse the text again", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT 1");
		const close = Buffer.from(f.close("S", "mine"));
		client.statements.closeAlone(close, 0, close.length);
		client.statements.closeAlone(close, 0, close.length);
		expect(client.statements.size).toBe(0);
		expect(client.say(f.parse("SELECT 1", "mine"), SYNC)[0]).toBe("Close S __pgdog_1");
	});
});

test("a message waits when a batch that is not answered decides what it means", () => {
	const client = new TestClient(thread());
	const isUncertain = (message: Uint8Array) =>
		client.statements.isUncertain(client.server, Buffer.from(message), 0, message.length);
	client.say(f.parse("SELECT 1", "mine"), SYNC);
	expect([isUncertain(f.bind({ statement: "mine" })), isUncertain(f.bind({ statement: "x" }))]).toEqual([true, false]);
	client.done(b.parseComplete(), ...INTEGER);
	expect(isUncertain(f.bind({ statement: "mine" }))).toBe(false);
});

describe("what routing asks", () => {
	const cache = new StatementCache(new SqlParser());
	const router = new Router({ shards: 1, hasPrimary: true, hasReplicas: true }, cache, null);
	const routed = (client: TestClient, name: string, reading = Reading.Standard) =>
		client.statements.routed(Buffer.from(name), 0, name.length, router, reading);

	test("are the facts of the statement by that name, found once", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "INSERT INTO t VALUES (1)");
		client.say(f.parse("SELECT 1"));
		expect(routed(client, "mine")?.facts?.writes).toBe(true);
		expect(routed(client, "mine")).toBe(routed(client, "mine")!);
		expect(routed(client, "")?.facts?.writes).toBe(false);
		expect(routed(client, "other")).toBeNull();
		expect(routed(client, "mine", Reading.Escapes)?.facts?.writes).toBe(true);
	});

	test("are those of texts by the client's own names, too", () => {
		const client = new TestClient(thread(), { shared: false, routed: true });
		client.say(f.parse("INSERT INTO t VALUES (1)", "mine"));
		expect([routed(client, "mine")?.facts?.writes, routed(client, "other")]).toEqual([true, null]);
		expect(routed(client, "")).toBeNull();
	});
});

test("a client that leaves lets go of its statements; the server has them still", () => {
	const all = thread();
	const client = new TestClient(all);
	parse(client, "mine", "SELECT 1");
	client.statements.clear();
	expect(client.statements.size).toBe(0);
	client.leave();
	expect(client.server.state).toBe(ServerState.Idle);
	expect(all.statements.size).toBe(1);
});

// Recovery before servers that have prepared what the test wants. With real ones: test/faults/two-phase.test.ts.

import { afterEach, expect, test } from "bun:test";
import { Keyring } from "../../src/auth/keyring.ts";
import { type Tcp, tcp as tcpTable } from "../../src/config/settings.ts";
import { type Snapshot, TwoPhase } from "../../src/config/snapshot.ts";
import { Contain } from "../../src/contain.ts";
import type { Log } from "../../src/log.ts";
import { Descriptors } from "../../src/net/descriptors.ts";
import { Names } from "../../src/net/names.ts";
import { socketHandlers } from "../../src/net/stream.ts";
import { Recovery } from "../../src/two-phase/recovery.ts";
import { defaults, ScriptedServer } from "../pool/support.ts";
import { until } from "../support/until.ts";

const NAME = "__pgdog_2pc_12345678_0123456789abcdef_0";

class FakeShard extends ScriptedServer {
	/** `pg_prepared_xacts`, one row: gid, owner, age. */
	prepared: [string, string, string] | null = null;
	/** A row of the table: name, decision, shards, age. */
	decided: [string, string, string, string] | null = null;
	/** SQLSTATEs of what fails, by its beginning. */
	readonly errors = new Map<string, string>();
	maxPrepared = "10";

	override answer(): void {
		const sql = this.queries.at(-1)!;
		this.row = null;
		this.fails = [...this.errors].find(([text]) => sql.includes(text))?.[1] ?? "";
		if (this.fails === "") this.run(sql);
		super.answer();
	}

	private run(sql: string): void {
		if (sql.includes("pg_is_in_recovery")) this.row = ["f", this.maxPrepared];
		else if (sql.startsWith("SELECT name")) this.row = this.decided;
		else if (sql.includes("WHERE database")) this.row = this.prepared;
		else if (sql.startsWith("SELECT owner")) this.row = [this.prepared?.[1] ?? "u", "none"];
		else if (sql.includes("INSERT INTO")) {
			this.decided ??= [NAME, "rollback", "0,1", "0"];
			this.row = [this.decided[1]];
		} else if (/^(COMMIT|ROLLBACK) PREPARED/.test(sql)) this.prepared = null;
		else if (sql.includes("DELETE FROM")) this.decided = null;
	}

	said(text: string): boolean {
		return this.queries.some((sql) => sql.includes(text));
	}
}

const open: { stop(): void }[] = [];
const shards: FakeShard[] = [];
afterEach(() => {
	for (const each of open.splice(0)) each.stop();
	for (const shard of shards.splice(0)) shard[Symbol.dispose]();
});

function scene(prepare: (home: FakeShard, other: FakeShard) => void) {
	const log: string[] = [];
	const note = (message: string) => void log.push(message);
	const [home, other] = [new FakeShard(), new FakeShard()];
	shards.push(home, other);
	prepare(home, other);
	const pools = [home, other].map(({ port }, shard) => ({
		user: "u",
		database: "d",
		database_name: "d",
		server_user: "u",
		server_passwords: [],
		server_tls: null,
		host: "127.0.0.1",
		port,
		shard,
		role: "primary",
		startup: {},
	}));
	const clusters = [{ database: "d", twoPhase: TwoPhase.Transactions, pools }];
	const contain = new Contain(
		(error) => note(String(error)),
		() => {},
	);
	const handlers = socketHandlers((error, stream) => contain.failed(error, stream));
	const dialling = { handlers, keepAlive: defaults<Tcp>(tcpTable), descriptors: new Descriptors() };
	const context = { contain, names: new Names(() => 1000), keyring: new Keyring(), dialling };
	const recovery = new Recovery(context, { warn: note } as unknown as Log);
	recovery.reach({ clusters } as unknown as Snapshot);
	open.push(recovery);
	return { recovery, home, other, log };
}

test("what is decided is done, and then forgotten", async () => {
	const { home, other, log } = scene((home, other) => {
		home.decided = [NAME, "commit", "0,1", "5"];
		other.prepared = [`${NAME}_1`, "u", "5"];
	});
	await until(() => home.said("DELETE FROM"), "the row to go");
	expect(other.said(`COMMIT PREPARED '${NAME}_1'`)).toBe(true);
	expect(log).toEqual([`two-phase commit: ${NAME} was unfinished, and is committed on shards 1 [database "d"]`]);
});

test("what is not decided for long is given up on its first shard; what is young, and another's, is left", async () => {
	const { home, other, recovery, log } = scene((home, other) => {
		home.errors.set("FROM pgdog", "42P01");
		other.prepared = [`${NAME}_1`, "u", "20"];
		home.prepared = ["__pgdog_2pc_12345678_0000000000000000_0_7", "u", "90"];
	});
	home.errors.set("CREATE TABLE", "3F000");
	await until(() => home.said("CREATE SCHEMA"), "the table");
	home.errors.clear();
	await until(() => other.said(`ROLLBACK PREPARED '${NAME}_1'`), "the rollback", 20_000);
	expect(home.decided?.[1]).toBe("rollback");
	expect(home.said("PREPARED '")).toBe(false);
	other.prepared = [`${NAME}_1`, "u", "1"];
	home.decided = null;
	const [stranger] = home.prepared!;
	expect(log.filter((text) => text.includes(stranger))).toHaveLength(1);
	expect(await recovery.rows()).toEqual([
		{
			database: "d",
			user: "u",
			name: stranger,
			state: "left alone: prepared where shards have other numbers",
			shards: "0",
			age: 90,
		},
		{ database: "d", user: "u", name: NAME, state: "prepared", shards: "1", age: 1 },
	]);
	other.queries.length = 0;
	// This process has left it: nobody goes on with it.
	recovery.unfinished("d", NAME);
	recovery.unfinished("nobody's", NAME);
	await until(() => other.said("ROLLBACK PREPARED"), "the rollback");
});

test("it is finished as whoever has prepared it; what is somebody else's doing is no error", async () => {
	const { other } = scene((home, other) => {
		home.decided = [NAME, "commit", "0,1", "5"];
		other.prepared = [`${NAME}_1`, "o", "5"];
		other.errors.set("COMMIT PREPARED", "42501");
	});
	await until(() => other.said('SET ROLE "o"'), "its role");
	await until(() => other.said("SET ROLE NONE"), "the role to go");
	other.errors.set("COMMIT PREPARED", "42704");
	other.queries.length = 0;
	await until(() => other.said("COMMIT PREPARED"), "another look", 20_000);
});

test("a shard that cannot be asked, or cannot prepare, is told of once, and shown", async () => {
	const { recovery, home, other, log } = scene((home, other) => {
		home.maxPrepared = "0";
		other.refuse = "28000";
	});
	await until(() => log.length === 2, "the log");
	expect(log.sort()).toEqual([
		'two-phase commit: shard 0 has max_prepared_transactions = 0: COMMIT fails there [database "d"]',
		'two-phase commit: shard 1 cannot be asked for what it has prepared: refused [database "d"]',
	]);
	other.refuse = "";
	home.drop();
	home.refuse = "28000";
	other.prepared = [`${NAME}_1`, "u", "90"];
	expect(await recovery.rows()).toEqual([
		{
			database: "d",
			user: null,
			name: null,
			state: "unknown: shard 0 cannot be asked: refused",
			shards: "0",
			age: null,
		},
		{ database: "d", user: "u", name: NAME, state: "prepared", shards: "1", age: 90 },
	]);
	recovery.reach({ clusters: [] });
	expect(await recovery.rows()).toEqual([]);
});

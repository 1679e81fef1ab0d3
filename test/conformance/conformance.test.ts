// The same script straight to PostgreSQL and through the proxy: what comes back must be the same messages in the same order.
// Through the proxy alone; while another client uses the one server connection between any two requests and leaves on it all
// that a client can leave; before a primary and its replica, with both strategies, where BEGIN is held back; in the other
// pooler modes; and before three shards, on one of which the session has put its statements.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { transcript } from "../support/transcript.ts";
import { frontend as f } from "../support/wire-frames.ts";
import type { Script, Talk } from "./script.ts";
import { COPY } from "./scripts/copy.ts";
import { CURSORS } from "./scripts/cursors.ts";
import { DEALLOCATE } from "./scripts/deallocate.ts";
import { EXTENDED } from "./scripts/extended.ts";
import { REST } from "./scripts/rest.ts";
import { SETTINGS } from "./scripts/settings.ts";
import { SIMPLE } from "./scripts/simple.ts";
import { TRANSACTIONS } from "./scripts/transactions.ts";

setDefaultTimeout(60_000);

const SCRIPTS: Script[] = [
	...SIMPLE,
	...EXTENDED,
	...DEALLOCATE,
	...COPY,
	...CURSORS,
	...SETTINGS,
	...TRANSACTIONS,
	...REST,
];

/** What the scripts find in their database. */
const SCHEMA = `
	CREATE TABLE t (id int PRIMARY KEY, name text);
	INSERT INTO t SELECT i, 'name ' || i FROM generate_series(1, 20) i;
	CREATE TABLE parent (id int PRIMARY KEY);
	CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
	CREATE FUNCTION noisy(n int) RETURNS int LANGUAGE plpgsql AS
		$$ BEGIN RAISE NOTICE 'noisy %', n; RAISE WARNING 'very noisy' USING DETAIL = 'd', HINT = 'h'; RETURN n; END $$;
	CREATE FUNCTION sets_application_name(v text) RETURNS void LANGUAGE plpgsql AS
		$$ BEGIN EXECUTE format('SET application_name = %L', v); END $$;
	CREATE PROCEDURE commits() LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO t VALUES (900, 'c'); COMMIT; DELETE FROM t WHERE id = 900; COMMIT; END $$;
`;

/** Each has a database of its own. */
const DATABASES = ["straight", "alone", "shared", "conservative", "aggressive", "session", "statement"] as const;
const SHARDS = ["shard0", "shard1", "shard2"];
type Way = (typeof DATABASES)[number] | "sharded";

let cluster: Cluster;
/** The one server alone; the others have a choice. */
let single: Proxy;
let conservative: Proxy;
let aggressive: Proxy;

beforeAll(async () => {
	cluster = await startPostgres({ replicas: 1, databases: [...DATABASES, ...SHARDS] });
	for (const database of [...DATABASES, ...SHARDS]) await cluster.primary.sql(SCHEMA, { user: "pgdog", database });
	await cluster.replicated();
	const server = (name: string, more: Record<string, unknown> = {}) => ({
		name,
		host: "127.0.0.1",
		port: cluster.port,
		...more,
	});
	const both = (name: string, more: Record<string, unknown> = {}) => [
		server(name, { role: "primary", ...more }),
		server(name, { role: "replica", port: cluster.replicas[0]!.port, ...more }),
	];
	const start = (general: Record<string, unknown>, names: Way[], databases: Record<string, unknown>[]) =>
		startProxy({
			// Two clients share the one server, whatever the intruder locks.
			config: { general: { default_pool_size: 1, workers: 1, pin_session_locks: false, ...general }, databases },
			users: names.map((database) => ({ name: "pgdog", database, password: "pgdog" })),
		});
	// A script reads what it has written.
	const routed = {
		load_balancing_strategy: "round_robin",
		read_after_write: "primary",
		read_after_write_window: 600_000,
	};
	single = await start(
		{},
		["alone", "shared"],
		["alone", "shared"].map((name) => server(name)),
	);
	conservative = await start(
		routed,
		["conservative", "session", "statement"],
		[
			...both("conservative"),
			...both("session", { pooler_mode: "session" }),
			...both("statement", { pooler_mode: "statement" }),
		],
	);
	aggressive = await start(
		{ ...routed, read_write_strategy: "aggressive" },
		["aggressive", "sharded"],
		[...both("aggressive"), ...SHARDS.flatMap((database_name, shard) => both("sharded", { database_name, shard }))],
	);
}, 60_000);

afterAll(async () => {
	for (const proxy of [single, conservative, aggressive]) await proxy?.stop("SIGKILL");
	await cluster?.stop();
});

function portOf(way: Way): number {
	switch (way) {
		case "straight":
			return cluster.port;
		case "alone":
		case "shared":
			return single.port;
		case "aggressive":
		case "sharded":
			return aggressive.port;
		default:
			return conservative.port;
	}
}

function connect(database: Way): Promise<RawClient> {
	const parameters = database === "sharded" ? { options: "-c pgdog.shard=1" } : undefined;
	return RawClient.connect({
		port: portOf(database),
		user: "pgdog",
		password: "pgdog",
		database,
		...(parameters && { parameters }),
	});
}

/** What another client does to the server between two requests, in turn. */
const INTRUSIONS: Uint8Array[][] = [
	[f.query("SET application_name = 'intruder'; SET work_mem = '77MB'; SET DateStyle = 'German'; SET app.tenant = 'x'")],
	[f.parse("SELECT 'intruder'"), f.sync()],
	[f.query("SET search_path = pg_catalog; SET app.odd = 'intruder'; SET ROLE pg_monitor")],
	[
		...["s1", "c", "d", "d1", "dup", "kept", "swap", "bad", "star"].flatMap((name) => [
			f.close("S", name),
			f.parse(`SELECT 'intruder ${name}'`, name),
		]),
		f.sync(),
	],
	[f.query("RESET ALL; RESET ROLE")],
	[f.query("CREATE TEMP TABLE IF NOT EXISTS t (intruder int)")],
	[
		f.query("BEGIN"),
		f.query("SET LOCAL TimeZone = 'Asia/Tokyo'"),
		f.query("DECLARE h CURSOR WITH HOLD FOR SELECT 1"),
		f.query("COMMIT"),
	],
	[f.query("LISTEN ch; SELECT pg_advisory_lock(42)")],
	[f.query("PREPARE proto AS SELECT 'intruder'; PREPARE sqlp AS SELECT 'intruder'")],
	[f.query("SELEC"), f.parse("SELEC", "s1"), f.sync()],
];

class Speaker implements Talk {
	readonly client: RawClient;
	private readonly intruder: RawClient | null;
	private turn = 0;
	private readonly from: number;

	constructor(client: RawClient, intruder: RawClient | null) {
		this.client = client;
		this.intruder = intruder;
		this.from = client.received.length;
	}

	transcript(script: Script): string {
		const text = transcript(this.client.received.slice(this.from), {
			...(script.parameters === undefined ? {} : { parameters: script.parameters }),
			...(script.mask === undefined ? {} : { mask: script.mask }),
		});
		// In which order PostgreSQL reports several settings depends on the order in which they were first changed.
		return text.replace(
			/(?:^ParameterStatus .*\n)+/gm,
			(lines) => `${lines.trimEnd().split("\n").sort().join("\n")}\n`,
		);
	}

	async say(...frames: Uint8Array[]): Promise<void> {
		await this.intrude();
		this.client.send(...frames);
		await this.ready(frames);
	}

	async upTo(code: string, ...frames: Uint8Array[]): Promise<void> {
		await this.intrude();
		this.client.send(...frames);
		await this.client.until(code);
	}

	async split(at: number, ...frames: Uint8Array[]): Promise<void> {
		await this.intrude();
		await this.client.sendSplit(Buffer.concat(frames), at, 3);
		await this.ready(frames);
	}

	async end(...frames: Uint8Array[]): Promise<void> {
		this.client.send(...frames);
		await this.client.closed;
	}

	private async ready(frames: Uint8Array[]): Promise<void> {
		const asked = frames.filter((frame) => "QSF".includes(String.fromCharCode(frame[0] ?? 0))).length;
		for (let i = Math.max(1, asked); i > 0; i--) await this.client.until("Z");
	}

	private async intrude(): Promise<void> {
		const last = this.client.received.at(-1);
		if (this.intruder === null || last?.code !== "Z" || last.body[0] !== 73) return;
		const frames = INTRUSIONS[this.turn++ % INTRUSIONS.length] ?? [];
		this.intruder.send(...frames);
		for (const frame of frames) if ("QS".includes(String.fromCharCode(frame[0] ?? 0))) await this.intruder.until("Z");
	}
}

async function play(script: Script, database: Way): Promise<string> {
	await using client = await connect(database);
	await using intruder = database === "shared" ? await connect(database) : null;
	const speaker = new Speaker(client, intruder);
	try {
		await script.run(speaker);
	} catch (error) {
		return `${speaker.transcript(script)}\nSTOPPED: ${(error as Error).message.split("\n")[0]}`;
	}
	return speaker.transcript(script);
}

/** A transaction block, which `pooler_mode = "statement"` refuses. */
const BLOCK = /CommandComplete "(BEGIN|START|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)|ReadyForQuery [TE]/;

for (const script of SCRIPTS) {
	test(script.name, async () => {
		await cluster.replicated();
		const straight = await play(script, "straight");
		expect(straight).not.toContain("STOPPED");
		const check = async (way: Way, reason: string | undefined) => {
			const through = expect(await play(script, way));
			if (script.differs ?? reason) through.not.toBe(straight);
			else through.toBe(straight);
		};
		await check("alone", undefined);
		await check("shared", script.differsShared);
		await check("conservative", undefined);
		await check("aggressive", undefined);
		await check("sharded", script.differsSharded);
		await check("session", undefined);
		if (BLOCK.test(straight) || script.differs) return;
		const statement = await play(script, "statement");
		if (!statement.includes("not supported in statement pooler mode")) expect(statement).toBe(straight);
	});
}

test("the login tells the same settings", async () => {
	const login = async (database: Way) => {
		await using client = await connect(database);
		const codes = client.received.filter((m) => "SKZ".includes(m.code)).map((m) => m.code);
		return { parameters: client.parameters, codes };
	};
	const straight = await login("straight");
	for (const way of ["alone", "shared", "conservative", "session"] as const) {
		const { parameters, codes } = await login(way);
		// Which server serves, the client need not know.
		expect<Record<string, string>>({ ...parameters, in_hot_standby: "off" }).toEqual(straight.parameters);
		expect(codes).toEqual(straight.codes);
	}
});

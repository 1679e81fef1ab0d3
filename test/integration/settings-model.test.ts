// Random sessions of SET, RESET and all that has to do with them, through the proxy and straight: after each statement both
// have the same settings, were answered alike and told alike. Clients share few servers, so that whoever RESETs has often a
// server on which another has set something else. In transaction mode, without advisory locks and with them, in
// session mode and over two shards.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { shardedOptions } from "./sharded.ts";
import { connect } from "./support.ts";

setDefaultTimeout(120_000);

const proxies: Record<string, Proxy> = {};
let cluster: Cluster;

beforeAll(async () => {
	cluster = await startPostgres({ databases: ["s0", "s1"] });
	await cluster.primary.sql("CREATE ROLE one; CREATE ROLE two; GRANT one, two TO pgdog");
	const simple = (general: Record<string, unknown>) => startProxy(simpleConfig(cluster.primary, general));
	const [transaction, pinned, session, sharded] = await Promise.all([
		simple({ workers: 1, default_pool_size: 1 }),
		// Whoever has locks keeps its server (session-locks.test.ts).
		simple({ workers: 1, default_pool_size: 2 }),
		simple({ workers: 1, default_pool_size: 5, pooler_mode: "session" }),
		startProxy(shardedOptions(cluster, { shards: 2 })),
	]);
	Object.assign(proxies, { transaction, pinned, session, sharded });
});
afterAll(async () => {
	await Promise.all(Object.values(proxies).map((proxy) => proxy.stop("SIGKILL")));
	await cluster?.stop();
});

/** Values of each setting; the first is the server's default. */
const SETTINGS: Record<string, string[]> = {
	work_mem: ["4MB", "10MB", "64kB"],
	datestyle: ["ISO, MDY", "German", "SQL, DMY"],
	timezone: ["UTC", "Asia/Tokyo"],
	intervalstyle: ["postgres", "iso_8601"],
	application_name: ["", "an app", "it's \\ "],
	search_path: ['"$user", public', 'a, "B c"', "public"],
	"app.x": ["", "1", "two"],
};
const NAMES = Object.keys(SETTINGS);
/** They are reported under these names. */
const REPORTED = ["DateStyle", "TimeZone", "IntervalStyle", "application_name", "session_authorization"];

const quote = (value: string) => `E'${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;
/** SET takes a list in parts. */
const valueOf = (name: string, value: string) =>
	name === "search_path"
		? value
				.split(", ")
				.map((part) => quote(part.replaceAll('"', "")))
				.join(", ")
		: quote(value);

const setting = fc
	.constantFrom(...NAMES)
	.chain((name) => fc.tuple(fc.constant(name), fc.constantFrom(...SETTINGS[name]!)));
const anyName = fc.constantFrom(...NAMES);

const change = fc.oneof(
	{ weight: 5, arbitrary: setting.map(([name, value]) => `SET ${name} TO ${valueOf(name, value)}`) },
	{ weight: 2, arbitrary: setting.map(([name, value]) => `SET LOCAL ${name} TO ${valueOf(name, value)}`) },
	{ weight: 2, arbitrary: setting.map(([name, value]) => `SELECT set_config('${name}', ${quote(value)}, false)`) },
	{ weight: 1, arbitrary: setting.map(([name, value]) => `SELECT set_config('${name}', ${quote(value)}, true)`) },
	{ weight: 4, arbitrary: anyName.map((name) => `RESET ${name}`) },
	{ weight: 3, arbitrary: anyName.map((name) => `SET ${name} TO DEFAULT`) },
	{ weight: 2, arbitrary: anyName.map((name) => `SET LOCAL ${name} TO DEFAULT`) },
	{
		weight: 3,
		arbitrary: fc.constantFrom("RESET ALL", "RESET TIME ZONE", "SET TIME ZONE DEFAULT", "SET TIME ZONE LOCAL"),
	},
	{ weight: 1, arbitrary: fc.constantFrom("SET ROLE one", "SET ROLE two", "SET ROLE none", "RESET ROLE") },
	{ weight: 1, arbitrary: fc.constantFrom("RESET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION DEFAULT") },
	{ weight: 1, arbitrary: anyName.map((name) => `DO $$ BEGIN RESET ${name}; END $$`) },
	{ weight: 1, arbitrary: anyName.map((name) => `SELECT set_config('${name}', NULL, false)::text IS NULL`) },
	{ weight: 1, arbitrary: anyName.map((name) => `SELECT set_config('${name}', NULL, true)::text IS NULL`) },
);
const control = fc.constantFrom(
	"BEGIN",
	"COMMIT",
	"ROLLBACK",
	"SAVEPOINT s",
	"ROLLBACK TO s",
	"RELEASE s",
	"SELECT 1/0",
);
const statement = fc.oneof(
	{ weight: 8, arbitrary: change },
	{ weight: 6, arbitrary: control },
	{ weight: 1, arbitrary: fc.constant("DISCARD ALL") },
	{ weight: 2, arbitrary: fc.tuple(change, change).map((both) => both.join("; ")) },
);
/** In which messages a statement is said, and what is said with it. */
const HOW = ["query", "batch", "prepared", "unnamed", "looked at", "pipelined"] as const;
interface Step {
	client: number;
	sql: string;
	how: (typeof HOW)[number];
}
const how = fc.constantFrom(...HOW, "query" as const, "batch" as const);
const step: fc.Arbitrary<Step> = fc.record({ client: fc.nat(1), sql: statement, how });
const locking = fc.constantFrom(
	"SELECT pg_advisory_lock_shared(1) IS NULL",
	"SELECT pg_try_advisory_lock_shared(2)",
	"SELECT pg_advisory_unlock_all() IS NULL",
);
const pinnedStep: fc.Arbitrary<Step> = fc.record({
	client: fc.nat(1),
	sql: fc.oneof({ weight: 3, arbitrary: statement }, { weight: 1, arbitrary: locking }),
	how,
});
const parameters = fc.record(
	{
		work_mem: fc.constantFrom(...SETTINGS.work_mem!),
		datestyle: fc.constantFrom(...SETTINGS.datestyle!),
		timezone: fc.constantFrom(...SETTINGS.timezone!),
		application_name: fc.constantFrom(...SETTINGS.application_name!),
		options: fc.constantFrom("", "-c intervalstyle=iso_8601", "-c search_path=a -c app.x=start", "-c role=one"),
	},
	{ requiredKeys: [] },
);

const LOOK = `SELECT current_user, session_user, current_setting('role'), ${NAMES.map(
	(name) => `COALESCE(current_setting('${name}', true), '')`,
).join(", ")}`;

async function ask(client: RawClient, { sql, how }: Pick<Step, "sql" | "how">): Promise<QueryResult> {
	if (how === "query" || (how !== "pipelined" && sql.includes(";"))) return client.query(sql);
	const run = (name = "") => [f.bind({ statement: name }), f.execute()];
	switch (how) {
		case "batch":
			client.send(f.parse(sql), ...run(), f.sync());
			break;
		case "prepared":
		case "unnamed": {
			// As a driver does that wants to know first what it is.
			const name = how === "prepared" ? "s" : "";
			client.send(f.close("S", name), f.parse(sql, name), f.describe("S", name), f.sync());
			const prepared = await client.result();
			if (prepared.errors.length > 0) return prepared;
			client.send(...run(name), f.sync());
			break;
		}
		case "looked at":
			client.send(f.parse(sql), ...run(), f.parse(LOOK), ...run(), f.sync());
			break;
		case "pipelined":
			client.send(f.query("SELECT 1"), f.query(`${sql}; ${LOOK}`));
			await client.result();
	}
	return client.result();
}

/** What both say to a statement, and what they have after it. */
async function observe(client: RawClient, asked: Pick<Step, "sql" | "how">): Promise<unknown> {
	const { tags, errors, status, rows } = await ask(client, asked);
	const told = REPORTED.map((name) => client.parameters[name]);
	const settings = status === "E" ? [] : (await client.query(LOOK)).rows;
	// Each shard answers.
	const counted = tags.map((tag) => tag.replace(/^SELECT \d+$/, "SELECT"));
	return { tags: counted, errors: errors.map(({ C }) => C), status, rows: rows.at(-1), told, settings: settings[0] };
}

interface Pair {
	proxied: RawClient;
	straight: RawClient;
	status: string;
}

async function run(mode: string, startups: readonly Record<string, string>[], steps: readonly Step[]): Promise<void> {
	const proxy = proxies[mode]!;
	const pairs: Pair[] = [];
	for (const startup of startups) {
		const [proxied, straight] = await Promise.all([
			connect(proxy, { parameters: startup }),
			connect(proxy, { parameters: startup, port: cluster.port }),
		]);
		pairs.push({ proxied, straight, status: "I" });
	}
	try {
		for (const each of [{ client: 0, sql: "SELECT 1", how: "query" as const }, ...steps]) {
			// Of the one server whoever is in a transaction has it.
			const pair = pairs.find(({ status }) => mode !== "session" && status !== "I") ?? pairs[each.client]!;
			const name = `client ${pairs.indexOf(pair)}: ${each.sql} (${each.how})`;
			const [got, wanted] = await Promise.all([observe(pair.proxied, each), observe(pair.straight, each)]);
			expect([name, got]).toEqual([name, wanted]);
			pair.status = (wanted as { status: string }).status;
		}
	} finally {
		for (const { proxied, straight } of pairs) {
			proxied.send(f.terminate());
			proxied.close();
			straight.close();
		}
	}
}

/** What was found once: a custom setting has its default until the end of the statement's own transaction, and is then set to ''. */
const FOUND: [Record<string, string>[], Step[]] = [
	[{ options: "-c search_path=a -c app.x=start" }, {}],
	[
		{
			client: 0,
			sql: "SELECT set_config('app.x', NULL, true)::text IS NULL; SELECT set_config('app.x', E'', false)",
			how: "query",
		},
	],
];
const RUNS = Number(process.env.RUNS ?? 40);

for (const mode of ["transaction", "pinned", "session", "sharded"]) {
	test(`${mode}: settings are what PostgreSQL says, after each statement`, async () => {
		await fc.assert(
			fc.asyncProperty(
				fc.tuple<Record<string, string>[]>(parameters, parameters),
				fc.array(mode === "pinned" ? pinnedStep : step, { minLength: 3, maxLength: 14 }),
				(startups, steps) => run(mode, startups, steps),
			),
			{ numRuns: RUNS, examples: [FOUND], ...(process.env.SEED ? { seed: Number(process.env.SEED) } : {}) },
		);
	});
}

// What clients of the fault run do, and how each answer is checked; and how they leave. After a deed the connection is idle, and
// its session is as it was.

import { inSession } from "../../test/faults/malformed.ts";
import { CLEAN, INSPECT } from "../../test/faults/stage.ts";
import { Body, errorFields } from "../../test/support/message.ts";
import { type QueryResult, RawClient } from "../../test/support/raw-client.ts";
import { concat, frontend } from "../../test/support/wire-frames.ts";
import type { Member } from "./member.ts";
import { Wrong } from "./tally.ts";

const { parse, bind, describe, execute, sync, flush, query, close } = frontend;

type Deed = (m: Member) => Promise<void>;

const NOTHING: QueryResult = { columns: [], rows: [], tags: [], errors: [], notices: [], status: "", messages: [] };

/** Before anything is done: the session is nobody's. */
export async function inspect(m: Member): Promise<void> {
	const { rows } = await m.query(m.hint() + INSPECT);
	CLEAN.forEach(([what, clean], i) => {
		if (rows[0]?.[i] !== clean) throw new Wrong("dirty", `(${m.door.name}) finds ${what} = ${rows[0]?.[i]}`);
	});
}

const asks: Deed = async (m) => {
	const value = m.value();
	m.expect(await m.query(`${m.hint()}SELECT '${value}'`), [value], "asks");
};

const asksTwice: Deed = async (m) => {
	const values = [m.value(), m.value()];
	m.expect(await m.query(`${m.hint()}SELECT '${values[0]}'; SELECT '${values[1]}'`), values, "asks twice");
};

const binds: Deed = async (m) => {
	const value = m.value();
	m.expect(await m.extended(`${m.hint()}SELECT $1::text`, [value]), [value], "binds");
};

/** The same name and one of three texts with every client: names must not mix. */
const names: Deed = async (m) => {
	const kind = m.dice(3);
	const sql = `${m.hint(0)}SELECT $1::text || '-${kind}'`;
	await m.batch("prepares", [close("S", "shared"), parse(sql, "shared"), sync()]);
	for (let i = m.dice(3); i >= 0; i--) {
		const value = m.value();
		const bound = [bind({ statement: "shared", values: [value] }), execute(), sync()];
		m.expect(await m.batch("binds a named statement", bound), [`${value}-${kind}`], "binds a named statement");
	}
};

/** A text whose meaning is fixed at Parse, under the session's DateStyle, that all clients share. */
const dates: Deed = async (m) => {
	const day = m.dice(2) === 0;
	await m.query(`SET datestyle = 'ISO, ${day ? "DMY" : "MDY"}'`);
	const result = await m.extended(`${m.hint(0)}SELECT (date '02/01/2003' - date '2003-01-01')::text`);
	m.expect(result, [day ? "1" : "31"], "reads a date");
	await m.query("RESET datestyle");
};

const pipelines: Deed = async (m) => {
	const values = Array.from({ length: 6 }, () => m.value());
	const bad = m.dice(6);
	const hint = m.hint(0);
	m.client.send(
		...values.map((value, i) => {
			const sql = i === bad ? "SELECT 1/0, $1::text" : "SELECT $1::text";
			return concat(parse(hint + sql), bind({ values: [value] }), execute(), sync());
		}),
	);
	for (const [i, value] of values.entries()) {
		const result = await m.next("pipelines", i === bad ? ["22012"] : []);
		if (i !== bad) m.expect(result, [value], "pipelines");
		else if (result.errors.length === 0)
			throw new Wrong("foreign", `pipelines: an answer for 1/0: ${JSON.stringify(result.rows)}`);
	}
};

/** Its error comes without a Sync, as PostgreSQL sends it. */
const failsEarly: Deed = async (m) => {
	m.client.send(parse("SELEC"), flush());
	const messages = await m.client.until("E");
	m.tally.settle({ ...NOTHING, errors: [errorFields(messages.at(-1)!.body)], status: "E" }, "fails early", ["42601"]);
	await m.batch("syncs", [sync()]);
};

const fails: Deed = async (m) => {
	const { errors, status } = await m.query(`${m.hint()}SELECT 1 FROM nowhere_${m.dice(9)}`, ["42P01"]);
	if (errors.length === 0 || status !== "I") throw new Wrong("foreign", `fails: ${JSON.stringify(errors)} '${status}'`);
};

const manyRows: Deed = async (m) => {
	const value = m.value();
	const many = 1 + m.dice(3000);
	const { rows } = await m.query(`${m.hint()}SELECT '${value}' FROM generate_series(1, ${many})`);
	if (rows.length !== many) throw new Wrong("foreign", `reads ${many} rows and gets ${rows.length}`);
	for (const row of rows)
		if (row[0] !== value) throw new Wrong("foreign", `reads rows: ${row[0]} in place of ${value}`);
};

const insert = (m: Member, n: number) =>
	`${m.hint(n % 2)}INSERT INTO kept (who, n, customer_id) VALUES ('${m.who}', ${n}, ${n % 2})`;

const writes: Deed = async (m) => {
	const n = m.number();
	const way = m.dice(3);
	if (way === 0) await m.query(insert(m, n));
	else if (way === 1) {
		const sql = `${m.hint(n % 2)}INSERT INTO kept (who, n, customer_id) VALUES ($1, $2::bigint, $3::bigint)`;
		await m.extended(sql, [m.who, String(n), String(n % 2)]);
	} else {
		await m.query("BEGIN");
		await m.query(insert(m, n));
		const { tags } = await m.query("COMMIT");
		if (tags[0] !== "COMMIT") throw new Wrong("unexpected", `commits and is told ${tags[0]}`);
	}
	m.acknowledge(n);
	const own = await m.query(
		`${m.hint(n % 2)}SELECT n FROM kept WHERE who = '${m.who}' AND n = ${n} AND customer_id = ${n % 2}`,
	);
	if (own.rows.length !== 1)
		throw new Wrong("unseen", `(${m.door.name}) has written ${n} and reads ${JSON.stringify(own.rows)}`);
};

/** Both shards in one transaction. */
const writesBoth: Deed = async (m) => {
	const numbers = [m.number(), m.number()];
	await m.query("BEGIN");
	for (const n of numbers) await m.query(insert(m, n));
	const { tags } = await m.query("COMMIT");
	if (tags[0] !== "COMMIT") throw new Wrong("unexpected", `commits on both and is told ${tags[0]}`);
	m.acknowledge(...numbers);
	const { rows } = await m.query(`SELECT n FROM kept WHERE who = '${m.who}' AND n IN (${numbers})`);
	const read = rows.map((row) => Number(row[0])).sort((a, b) => a - b);
	if (String(read) !== String(numbers))
		throw new Wrong("unseen", `has written ${numbers} on both shards and reads ${read}`);
};

const rollsBack: Deed = async (m) => {
	const n = m.number();
	const k = n % 2;
	await m.query("BEGIN");
	await m.query(`${m.hint(k)}INSERT INTO kept (who, n, customer_id) VALUES ('${m.who}', -${n}, ${k})`);
	await m.query("SAVEPOINT s");
	await m.query(`${m.hint(k)}SELECT 1/0`, ["22012"]);
	await m.query("ROLLBACK TO s");
	const value = m.value();
	m.expect(await m.query(`${m.hint(k)}SELECT '${value}'`), [value], "goes on after ROLLBACK TO");
	await m.query(`SET LOCAL app.who = 'local'`);
	if (m.dice(2) === 0) {
		await m.query("ROLLBACK");
	} else {
		await m.query(`${m.hint(k)}SELECT 1/0`, ["22012"]);
		const { tags } = await m.query("COMMIT");
		if (tags[0] !== "ROLLBACK") throw new Wrong("unexpected", `commits what has failed and is told ${tags[0]}`);
	}
	m.expect(
		await m.query(`${m.hint(k)}SELECT current_setting('app.who')`),
		[m.who],
		"reads its setting after SET LOCAL",
	);
};

const settings: Deed = async (m) => {
	const size = `${1 + m.dice(3)}MB`;
	const hint = m.hint();
	await m.query(`SET work_mem = '${size}'`);
	const shown = await m.query(`${hint}SELECT current_setting('work_mem')`);
	if (shown.rows[0]?.[0] !== size) throw new Wrong("dirty", `sets work_mem to ${size} and finds ${shown.rows[0]?.[0]}`);
	await m.query("RESET work_mem");
	const { rows } = await m.query(`${hint}SELECT current_setting('work_mem'), current_setting('app.who')`);
	if (rows[0]?.[0] !== "4MB") throw new Wrong("dirty", `resets work_mem and finds ${rows[0]?.[0]}`);
	if (rows[0]?.[1] !== m.who) throw new Wrong("dirty", `is told that it is ${rows[0]?.[1]}`);
};

/** What the startup packet asked for comes back, whatever was SET before. */
const resets: Deed = async (m) => {
	const ways = ["RESET app.who", "SET app.who TO DEFAULT", "RESET ALL", "DISCARD ALL"];
	const way = ways[m.dice(ways.length)]!;
	await m.query("SET app.who = 'for a moment'");
	await m.query(way);
	const back = m.early ? m.who : "";
	const { rows } = await m.query(`${m.hint()}SELECT current_setting('app.who', true)`);
	// A setting that was made by SET is '' afterwards, or is not there at all.
	if ((rows[0]?.[0] ?? "") !== back)
		throw new Wrong("dirty", `${way} brings back ${rows[0]?.[0]} in place of '${back}'`);
	if (!m.early) await m.query(`SET app.who = '${m.who}'`);
};

const copiesIn: Deed = async (m) => {
	const numbers = [m.number(), m.number(), m.number()];
	const shard = m.dice(2);
	m.client.send(query(`${m.hint(shard)}COPY kept (who, n, customer_id) FROM STDIN`));
	for (;;) {
		const { code, body } = await m.client.next("CopyInResponse");
		if (code === "G") break;
		if (code !== "E") continue;
		const error = errorFields(body);
		m.tally.settle({ ...NOTHING, errors: [error], status: "E" }, "copies in");
	}
	for (const n of numbers) m.client.send(frontend.copyData(`${m.who}\t${n}\t${shard}\n`));
	m.client.send(frontend.copyDone());
	const { tags } = await m.next("copies in");
	if (tags[0] !== "COPY 3") throw new Wrong("unexpected", `copies 3 rows and is told ${tags[0]}`);
	m.acknowledge(...numbers);
};

const copiesOut: Deed = async (m) => {
	const value = m.value();
	const many = 1 + m.dice(2000);
	const { messages } = await m.query(`${m.hint()}COPY (SELECT '${value}' FROM generate_series(1, ${many})) TO STDOUT`);
	const lines = messages.filter(({ code }) => code === "d").map(({ body }) => body.toString());
	if (lines.length !== many) throw new Wrong("foreign", `copies ${many} rows out and gets ${lines.length}`);
	for (const line of lines)
		if (line !== `${value}\n`) throw new Wrong("foreign", `copies out: ${line} in place of ${value}`);
};

const readsInParts: Deed = async (m) => {
	const value = m.value();
	await m.query("BEGIN");
	const sql = `${m.hint(0)}SELECT $1::text || g FROM generate_series(1, 25) g`;
	m.client.send(
		parse(sql),
		bind({ portal: "part", values: [value] }),
		execute("part", 10),
		execute("part", 10),
		sync(),
	);
	const { rows } = await m.next("reads in parts");
	if (rows.length !== 20 || rows.some((row, i) => row[0] !== `${value}${i + 1}`))
		throw new Wrong("foreign", `reads in parts: ${rows.length} rows, ${rows[0]?.[0]}`);
	await m.query("COMMIT");
};

/** Another's cancel must not be felt; one's own may. */
const cancels: Deed = async (m) => {
	const value = m.value();
	m.client.send(query(`${m.hint()}SELECT '${value}', pg_sleep(0.00${m.dice(10)})`));
	const { port } = m.door.proxy;
	const messenger = await RawClient.open({ port });
	messenger.send(frontend.cancelRequest(m.client.backendPid, m.client.backendKey));
	const result = await m.next("cancels", ["57014"]);
	if (result.errors.length === 0) m.expect(result, [value], "cancels");
	// Its end says that it has been passed on. It may still be on its way: a harmless query takes it.
	await messenger.closed;
	await m.query(`${m.hint()}SELECT pg_sleep(0.005)`, ["57014"]);
};

/** A statement whose table is altered all the time: its rows are as they were described, or 0A000 tells to prepare anew. */
const readsWhatShifts: Deed = async (m) => {
	await m.query(`DELETE FROM shifting WHERE who = '${m.who}'`);
	await m.query(`INSERT INTO shifting (who, a) VALUES ('${m.who}', 7)`);
	const sql = "SELECT * FROM shifting WHERE who = $1 LIMIT 1";
	for (let tries = 0; tries < 4; tries++) {
		const prepared = await m.batch(
			"describes",
			[close("S", "shift"), parse(sql, "shift"), describe("S", "shift"), sync()],
			["0A000"],
		);
		const columns = prepared.columns;
		if (prepared.errors.length > 0) continue;
		for (let i = 0; i < 3; i++) {
			const bound = [bind({ statement: "shift", values: [m.who] }), execute(), sync()];
			const { rows, errors } = await m.batch("reads what shifts", bound, ["0A000"]);
			if (errors.length > 0) break;
			const row = rows[0];
			if (row === undefined) throw new Wrong("unseen", "has written a row that shifts and does not see it");
			if (row.length !== columns.length)
				throw new Wrong("shape", `was described ${columns} and gets ${JSON.stringify(row)}`);
			if (row[columns.indexOf("who")] !== m.who)
				throw new Wrong("foreign", `reads what shifts: ${JSON.stringify(row)}`);
			if (row[columns.indexOf("a")] !== "7")
				throw new Wrong("shape", `reads what shifts: ${columns} ${JSON.stringify(row)}`);
		}
	}
};

const COMMON: Deed[] = [
	...[
		asks,
		asksTwice,
		binds,
		names,
		dates,
		pipelines,
		failsEarly,
		fails,
		manyRows,
		writes,
		writes,
		rollsBack,
		settings,
		resets,
	],
	...[copiesIn, copiesOut, readsInParts, cancels],
];

const SESSION: Deed[] = [
	async (m) => {
		const value = m.value();
		await m.query(`CREATE TEMP TABLE IF NOT EXISTS mine (v text); TRUNCATE mine; INSERT INTO mine VALUES ('${value}')`);
		m.expect(await m.query("SELECT v FROM mine"), [value], "reads its temporary table");
	},
	async (m) => {
		const value = m.value();
		await m.query(`PREPARE own AS SELECT '${value}'`);
		m.expect(await m.query("EXECUTE own"), [value], "executes what it has PREPAREd");
		await m.query("DEALLOCATE own");
	},
	async (m) => {
		const value = m.value();
		await m.query(`BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT '${value}'; COMMIT`);
		m.expect(await m.query("FETCH held"), [value], "fetches from its cursor");
		await m.query("CLOSE held");
	},
	async (m) => {
		const value = m.value();
		const channel = `c_${m.who.replaceAll(/\W/g, "_")}`;
		await m.query(`LISTEN ${channel}`);
		const from = m.client.received.length;
		await m.query(`NOTIFY ${channel}, '${value}'`);
		await m.query("SELECT 1");
		const told = m.client.received.slice(from).filter(({ code }) => code === "A");
		const payloads = told.map(({ body }) => {
			const reader = new Body(body);
			reader.int32();
			reader.cstring();
			return reader.cstring();
		});
		if (payloads.length !== 1 || payloads[0] !== value)
			throw new Wrong("foreign", `notifies ${value} and hears ${payloads}`);
		await m.query("UNLISTEN *");
	},
];

const GUARDED: Deed[] = [
	async (m) => {
		const tenant = 1 + m.dice(1000);
		const value = m.value();
		await m.query(`INSERT INTO guarded (tenant_id, who) VALUES (${tenant}, '${value}')`);
		const { rows } = await m.query(`SELECT who FROM guarded WHERE tenant_id = ${tenant} AND who = '${value}'`);
		if (rows.length !== 1)
			throw new Wrong("unseen", `has written ${value} for tenant ${tenant} and reads ${rows.length} rows`);
	},
	async (m) => {
		const sql = m.dice(2) === 0 ? "SELECT who FROM guarded" : "DELETE FROM guarded WHERE who = 'x'";
		const result = m.dice(2) === 0 ? await m.client.query(sql) : await m.client.extended(sql);
		m.tally.statements++;
		const [error] = result.errors;
		if (error === undefined && result.status !== "") throw new Wrong("unguarded", `${sql}: ${result.rows.length} rows`);
		if (error !== undefined && !/tenant_guard/.test(`${error.M} ${error.D}`)) m.tally.settle(result, sql);
	},
];

export function deedsOf(door: Member["door"]): Deed[] {
	// The plugin that shards refuses a COPY: its rows may be anybody's.
	const common = door.plugins && door.shards > 1 ? COMMON.filter((deed) => deed !== copiesIn) : COMMON;
	return [
		...common,
		...(door.session ? SESSION : []),
		...(door.shards > 1 ? [writesBoth, writesBoth] : [readsWhatShifts, readsWhatShifts]),
		...(door.plugins && door.shards === 1 ? GUARDED : []),
	];
}

/** Last words, of which nothing may be left: then the connection is ended in one of two ways. */
export const ENDS: ((m: Member) => Uint8Array)[] = [
	() => new Uint8Array(0),
	() => frontend.terminate(),
	(m) => inSession[m.dice(inSession.length)]!.send,
	(m) => inSession[m.dice(inSession.length)]!.send,
	(m) => concat(query(`SELECT '${m.value()}'`), inSession[m.dice(inSession.length)]!.send),
	(m) => query(`BEGIN; INSERT INTO kept VALUES ('${m.who}', -${m.number()}, 0); SET app.who = '${m.who} gone'`),
	(m) => concat(parse(`INSERT INTO kept VALUES ('${m.who}', -${m.number()}, 0)`), bind(), execute(), flush()),
	(m) => query(`SET app.who = '${m.who} gone'; SELECT repeat('x', 5000000)`),
	() => query("SELECT pg_sleep(0.05)"),
	() => concat(query("COPY kept FROM STDIN"), frontend.copyData("gone\t-1\t0\n")),
	() => query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 5000)) TO STDOUT"),
	() => query("CREATE TEMP TABLE mine (id int); LISTEN soak; SELECT pg_advisory_lock_shared(5)"),
	() => concat(...Array.from({ length: 50 }, () => concat(parse("SELECT 1"), bind(), execute(), sync()))),
	() => concat(parse("SELEC"), flush()),
	// Broken off in the middle of a message.
	(m) => {
		const whole = concat(parse(`SELECT '${m.value()}'`), bind(), execute(), sync());
		return whole.subarray(0, 1 + m.dice(whole.length - 1));
	},
];

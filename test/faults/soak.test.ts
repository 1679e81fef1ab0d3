// A crowd that does valid and invalid things at random over a few server connections and disconnects at random. Every answer
// carries a value that only its own client knows: nobody may ever see another's rows, settings or transaction.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { RawClient } from "../support/raw-client.ts";
import { concat, frontend, liar, message, text } from "../support/wire-frames.ts";
import { Stage } from "./stage.ts";

/** Seconds of the crowd; `SOAK=300` for a longer one. */
const SECONDS = Number(process.env.SOAK ?? 8);
const CLIENTS = 24;
const POOL = 4;

setDefaultTimeout((SECONDS + 60) * 1000);

let stage: Stage;
beforeAll(async () => {
	stage = await Stage.start({
		pool: POOL,
		general: { log_connections: false, log_disconnections: false, checkout_timeout: 20_000 },
	});
	await stage.look("CREATE TABLE soaked (who text); ALTER TABLE soaked OWNER TO pgdog; SELECT 1");
});
afterAll(() => stage?.[Symbol.asyncDispose]());

/** A small generator (mulberry32), so that a failure can be repeated with its seed. */
function random(seed: number): (below: number) => number {
	let state = seed;
	return (below) => {
		state = (state + 0x6d2b79f5) | 0;
		let t = Math.imul(state ^ (state >>> 15), 1 | state);
		t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
		return ((t ^ (t >>> 14)) >>> 0) % below;
	};
}

const { parse, bind, execute, sync, flush, query } = frontend;

interface Member {
	client: RawClient;
	/** Unique to this connection. */
	who: string;
	/** How often something was asked, so that an answer to an earlier question is seen as such. */
	asked: number;
	dice: (below: number) => number;
}

class Foreign extends Error {}

/** Throws unless all rows are `expected`, and there is at least one. */
function own(member: Member, rows: (string | null)[][], expected: string, doing: string): void {
	for (const row of rows)
		if (row[0] !== expected) throw new Foreign(`${member.who} ${doing}: ${row[0]} instead of ${expected}`);
	if (rows.length === 0) throw new Foreign(`${member.who} ${doing}: no rows instead of ${expected}`);
}

/** What a member may do; after each the connection is idle and its session has `app.who` as it was. */
const DEEDS: ((member: Member) => Promise<void>)[] = [
	async (m) => {
		const value = `${m.who}/${++m.asked}`;
		own(m, (await m.client.query(`SELECT '${value}'`)).rows, value, "asks");
	},
	async (m) => own(m, (await m.client.query("SELECT current_setting('app.who')")).rows, m.who, "asks for its setting"),
	async (m) => {
		const value = `${m.who}/${++m.asked}`;
		own(
			m,
			(await m.client.extended("SELECT $1::text || coalesce('', current_setting('app.who'))", [value])).rows,
			value,
			"binds",
		);
	},
	async (m) => {
		// The same name and one of three texts with every client: names must not mix.
		const kind = m.dice(3);
		m.client.send(frontend.close("S", "shared"), parse(`SELECT $1::text || '-${kind}'`, "shared"), sync());
		await m.client.result();
		const value = `${m.who}/${++m.asked}`;
		m.client.send(bind({ statement: "shared", values: [value] }), execute(), sync());
		own(m, (await m.client.result()).rows, `${value}-${kind}`, "binds a named statement");
	},
	async (m) => {
		await m.client.query("BEGIN");
		await m.client.query(`INSERT INTO soaked VALUES ('${m.who}')`);
		own(m, (await m.client.query("SELECT DISTINCT who FROM soaked")).rows, m.who, "reads its transaction");
		await m.client.query(`SET LOCAL app.who = 'local'; SELECT 1`);
		await m.client.query("ROLLBACK");
	},
	async (m) => {
		await m.client.query("BEGIN");
		await m.client.query("SELECT 1/0");
		const { status } = await m.client.query("COMMIT");
		if (status !== "I") throw new Foreign(`${m.who} ends a failed transaction with '${status}'`);
	},
	async (m) => {
		const { errors, status } = await m.client.query(`SELECT ${"x".repeat(1 + m.dice(9))} FROM nowhere`);
		if (errors[0]?.C !== "42P01" || status !== "I")
			throw new Foreign(`${m.who} makes an error: ${JSON.stringify(errors)}`);
	},
	async (m) => {
		// A pipeline with an error in its midst.
		const values = Array.from({ length: 6 }, () => `${m.who}/${++m.asked}`);
		const bad = m.dice(6);
		m.client.send(
			...values.map((value, i) =>
				concat(
					parse(i === bad ? "SELECT 1/0, $1::text" : "SELECT $1::text"),
					bind({ values: [value] }),
					execute(),
					sync(),
				),
			),
		);
		for (const [i, value] of values.entries()) {
			const { rows, errors } = await m.client.result();
			if (i === bad) {
				if (errors[0]?.C !== "22012") throw new Foreign(`${m.who} pipelines: ${JSON.stringify(errors)}`);
			} else own(m, rows, value, "pipelines");
		}
	},
	async (m) => {
		m.client.send(query("COPY soaked FROM STDIN"));
		await m.client.until("G");
		m.client.send(frontend.copyData(`${m.who}\n`), frontend.copyFail("no"));
		await m.client.result();
	},
	async (m) => {
		const many = 1 + m.dice(2000);
		const { rows, errors } = await m.client.query(`SELECT '${m.who}' FROM generate_series(1, ${many})`);
		if (rows.length !== many)
			throw new Foreign(`${m.who} got ${rows.length} of ${many} rows: ${JSON.stringify(errors)}`);
		own(m, rows, m.who, "reads many rows");
	},
	async (m) => {
		await m.client.query("CREATE TEMP TABLE IF NOT EXISTS mine AS SELECT 1");
		await m.client.query("DROP TABLE IF EXISTS mine");
	},
	async (m) => {
		await m.client.query("SET work_mem = '1MB'; SET application_name = 'soaking'");
		await m.client.query("RESET work_mem; RESET application_name");
	},
	async (m) => {
		// Another's cancel must not be felt; one's own may.
		m.client.send(query(`SELECT pg_sleep(0.00${m.dice(10)}), '${m.who}'`));
		const messenger = await RawClient.open(stage.door);
		messenger.send(frontend.cancelRequest(m.client.backendPid, m.client.backendKey));
		const { errors } = await m.client.result();
		if (errors.length > 0 && errors[0]?.C !== "57014") throw new Foreign(`${m.who} cancels: ${JSON.stringify(errors)}`);
		// Until then it may be on its way, and the next query would be what it finds under way.
		await messenger.closed;
		// And PostgreSQL's signal may be: a harmless query takes it.
		await m.client.query("SELECT pg_sleep(0.005)");
	},
];

/** Last words; then the connection is ended in one of two ways. */
const ENDS: ((member: Member) => Uint8Array)[] = [
	() => new Uint8Array(0),
	() => frontend.terminate(),
	() => message("z", text("?")),
	() => liar("Q", 2),
	() => liar("Q", 5000, text("SELECT")),
	() => new Uint8Array(100).fill(255),
	(m) => query(`BEGIN; INSERT INTO soaked VALUES ('${m.who}'); SET app.who = '${m.who} gone'`),
	(m) => concat(parse(`INSERT INTO soaked VALUES ('${m.who}')`), bind(), execute(), flush()),
	(m) => query(`SET app.who = '${m.who} gone'; SELECT repeat('x', 5000000)`),
	() => query("SELECT pg_sleep(0.05)"),
	() => concat(query("COPY soaked FROM STDIN"), frontend.copyData("gone\n")),
	() => query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 5000)) TO STDOUT"),
	() => concat(query("CREATE TEMP TABLE mine (id int); LISTEN soak; SELECT pg_advisory_lock_shared(5)")),
	() => concat(...Array.from({ length: 50 }, () => concat(parse("SELECT 1"), bind(), execute(), sync()))),
	() => concat(parse("SELEC"), flush()),
];

interface Tally {
	deeds: number;
	connections: number;
	failures: string[];
}

async function member(id: number, until: number, tally: Tally): Promise<void> {
	const dice = random(id * 7919 + 1);
	for (let life = 0; performance.now() < until && tally.failures.length === 0; life++) {
		const who = `m${id}.${life}`;
		// Half of them say who they are as they connect, half by SET.
		const early = dice(2) === 0;
		const client = await stage.client({ timeout: 25_000, ...(early ? { parameters: { "app.who": who } } : {}) });
		tally.connections++;
		const m: Member = { client, who, asked: 0, dice };
		try {
			if (!early) await client.query(`SET app.who = '${who}'`);
			for (let left = 1 + dice(25); left > 0 && performance.now() < until; left--) {
				await DEEDS[dice(DEEDS.length)]!(m);
				tally.deeds++;
			}
			client.send(ENDS[dice(ENDS.length)]!(m));
			if (dice(2) === 0) await Bun.sleep(dice(4));
		} catch (error) {
			tally.failures.push(`${who}: ${(error as Error).message}`);
		} finally {
			if (dice(2) === 0) client.reset();
			else client.close();
		}
	}
}

test(`a crowd of ${CLIENTS} over ${POOL} server connections: everybody sees their own`, async () => {
	const tally: Tally = { deeds: 0, connections: 0, failures: [] };
	const until = performance.now() + SECONDS * 1000;
	let most = 0;
	const memory: number[] = [];
	// From the side: never more servers than the pool has, however quickly clients come and go.
	const watch = (async () => {
		while (performance.now() < until) {
			const [servers] = await stage.look("SELECT count(*) FROM pg_stat_activity WHERE usename = 'pgdog'");
			most = Math.max(most, Number(servers));
			memory.push(stage.memory());
			await Bun.sleep(50);
		}
	})();
	await Promise.all(Array.from({ length: CLIENTS }, (_, id) => member(id, until, tally)));
	await watch;
	expect(tally.failures).toEqual([]);
	stage.sane();
	await stage.intact("the crowd");
	expect(await stage.look("SELECT count(*) FROM soaked")).toEqual(["0"]);
	// A server that was closed in the middle of a query lives in PostgreSQL until that ends: a few may overlap, but not pile up.
	expect(most).toBeLessThanOrEqual(POOL * 3);
	// From a quarter of the way on, when everything has been warmed, it does not climb.
	const mean = (part: number[]) => part.reduce((sum, each) => sum + each, 0) / part.length;
	const quarter = memory.length >> 2;
	const early = mean(memory.slice(quarter, quarter * 2));
	const late = mean(memory.slice(-quarter));
	expect(late).toBeLessThan(early * 1.5 + (32 << 20));
	expect(tally.deeds).toBeGreaterThan(SECONDS * 20);
	console.log(
		`soak: ${tally.deeds} deeds of ${tally.connections} connections, at most ${most} servers, ` +
			`memory ${Math.round(early / 1e6)} → ${Math.round(late / 1e6)} MB`,
	);
});

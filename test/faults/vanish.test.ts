// A client that vanishes (by FIN or by reset) at every message boundary and in the middle of every message of every exchange.
// After each one another client gets the only server connection of the pool, in a clean session, and nothing has leaked.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { RawClient, type RawClientOptions } from "../support/raw-client.ts";
import { until, within } from "../support/until.ts";
import { frontend } from "../support/wire-frames.ts";
import { cuts, type Exchange, logins, PREPARATION, sessions, settings } from "./exchanges.ts";
import { Broken, Stage } from "./stage.ts";

setDefaultTimeout(120_000);

/** When the client goes. */
const MOMENTS = ["at once", "when all was answered", "while the server is frozen"] as const;
type Moment = (typeof MOMENTS)[number];

let stage: Stage;

beforeAll(async () => {
	stage = await Stage.start({ general: { auth_type: "trust", log_connections: false, log_disconnections: false } });
	await stage.look(`${PREPARATION}; ALTER TABLE kept OWNER TO pgdog; ALTER TABLE copied OWNER TO pgdog; SELECT 1`);
});
afterAll(() => stage?.[Symbol.asyncDispose]());

interface Case {
	exchange: Exchange;
	/** The step in which it goes, and how many bytes of it were sent. */
	step: number;
	bytes: number;
	moment: Moment;
	reset: boolean;
}

/** Each cut once for each moment, turn by turn with FIN and reset; the moments that cost time only at some of the cuts. */
function cases(exchanges: Exchange[], moments: readonly Moment[]): Case[] {
	const all: Case[] = [];
	let turn = 0;
	for (const exchange of exchanges) {
		exchange.steps.forEach((step, i) => {
			// A login without a password sends a Query behind its packets.
			const packets = exchange.parameters === null && !(step.send[0] === 81 || step.send[0] === 112);
			for (const bytes of cuts(step.send, packets)) {
				for (const moment of moments) {
					const whole = bytes === step.send.length;
					if (moment === "when all was answered" && !(whole && step.await)) continue;
					if (moment === "while the server is frozen" && !whole) continue;
					const both = whole && moment === "at once";
					for (const reset of both ? [true, false] : [turn++ % 2 === 0])
						all.push({ exchange, step: i, bytes, moment, reset });
				}
			}
		});
	}
	return all;
}

/** Its COMMIT was sent whole. A reset may overtake it on the way, but PostgreSQL carries out the one that it gets. */
function mayCommit({ exchange, step, bytes }: Case): boolean {
	const { commits, steps } = exchange;
	return commits !== undefined && (step > commits || (step === commits && bytes === steps[commits]!.send.length));
}

async function vanish(door: RawClientOptions, { exchange, step, bytes, moment, reset }: Case): Promise<void> {
	const client =
		exchange.parameters === null
			? await RawClient.open(door)
			: await RawClient.connect({ ...door, parameters: exchange.parameters });
	try {
		for (const { send, await: code } of exchange.steps.slice(0, step)) {
			client.send(send);
			if (send.length === 8 && exchange.parameters === null) await client.nextByte();
			else if (code) await client.until(code);
		}
		const last = exchange.steps[step]!;
		const frozen = moment === "while the server is frozen";
		if (frozen) stage.cluster.primary.pause();
		client.send(last.send.subarray(0, bytes));
		if (moment === "when all was answered" && last.await) await client.until(last.await);
		// What was sent has to leave this process, or it would vanish unsaid; the proxy gets it before the end, or with it.
		else await Bun.sleep(frozen ? 5 : 0);
		if (reset) client.reset();
		else client.close();
		if (frozen) await Bun.sleep(5);
	} finally {
		stage.cluster.primary.resume();
		client.reset();
	}
}

async function each(all: Case[], door: () => RawClientOptions): Promise<void> {
	const failures: string[] = [];
	let broken = 0;
	for (const one of all) {
		const { exchange, step, bytes, moment, reset } = one;
		const of = `${bytes} of ${exchange.steps[step]!.send.length} bytes of step ${step + 1} of ${exchange.name}`;
		const name = `${of}, ${reset ? "reset" : "FIN"} ${moment}`;
		try {
			await within(vanish(door(), one), name);
			await stage.intact(name);
			stage.sane();
			const rows = await stage.look("SELECT (SELECT count(*) FROM kept), (SELECT count(*) FROM copied)");
			if (rows[0] === "1" && mayCommit(one)) expect(rows).toEqual(["1", "1"]);
			else expect(rows).toEqual(["0", "0"]);
			if (rows[0] === "1") await stage.look("TRUNCATE kept, copied; SELECT 1");
		} catch (error) {
			failures.push(`* ${name}: ${(error as Error).message}`);
			if (++broken === 6) break;
			if (error instanceof Broken) await stage.renew();
			await stage.look("TRUNCATE kept, copied; SELECT 1");
		}
	}
	if (failures.length > 0) throw new Error(`${failures.length} of ${all.length}:\n${failures.join("\n\n")}`);
}

for (const exchange of [...sessions, ...settings]) {
	test(`a client that vanishes anywhere in ${exchange.name} leaves nothing behind`, async () => {
		await each(cases([exchange], MOMENTS), () => stage.door);
	});
}

for (const [auth_type, exchanges] of Object.entries(logins)) {
	test(`a client that vanishes anywhere in a login (${auth_type}) leaves nothing behind`, async () => {
		await using other = await Stage.start({
			cluster: stage.cluster,
			general: { auth_type, log_connections: false, log_disconnections: false },
		});
		// Both proxies have one server connection of the user, and the invariants count for one.
		const shared = stage;
		await shared.retire();
		try {
			stage = other;
			await each(cases(exchanges, MOMENTS), () => ({ ...other.door, password: "pgdog" }));
		} finally {
			stage = shared;
			await shared.renew();
		}
	});
}

test("clients that vanish while they wait in the queue lose their place, and those behind them are served", async () => {
	const door = stage.door;
	for (const reset of [true, false]) {
		await using holder = await RawClient.connect(door);
		const gone = await Promise.all(Array.from({ length: 10 }, () => RawClient.connect(door)));
		await using behind = await RawClient.connect(door);
		await holder.query("BEGIN");
		for (const client of gone) client.send(frontend.query("INSERT INTO kept VALUES ('gone')"));
		await Bun.sleep(20);
		behind.send(frontend.query("SELECT 'served'"));
		for (const client of gone) reset ? client.reset() : client.close();
		await Bun.sleep(20);
		await holder.query("COMMIT");
		expect((await behind.result()).rows).toEqual([["served"]]);
		await stage.intact("clients that vanished in the queue");
		expect(await stage.look("SELECT count(*) FROM kept")).toEqual(["0"]);
	}
	stage.sane();
});

test("a CancelRequest that is cut off anywhere, or whose client goes at the same time, harms no one", async () => {
	const door = stage.door;
	const whole = frontend.cancelRequest(0, 0).length;
	for (let bytes = 1; bytes <= whole; bytes += bytes < whole - 1 ? 5 : 1) {
		for (const both of [false, true]) {
			await using client = await RawClient.connect(door);
			const request = frontend.cancelRequest(client.backendPid, client.backendKey);
			client.send(frontend.query("SELECT pg_sleep(0.3)"));
			await Bun.sleep(3);
			const messenger = await RawClient.open(door);
			messenger.send(request.subarray(0, bytes));
			await Bun.sleep(0);
			messenger.reset();
			if (both) client.reset();
			else expect((await client.result()).status).toBe("I");
			await stage.intact(`${bytes} bytes of a CancelRequest`);
		}
	}
	stage.sane();
});

test("a cancel of a query that is just ending never hits the next client's query", async () => {
	const door = stage.door;
	for (let i = 0; i < 40; i++) {
		const client = await RawClient.connect(door);
		client.send(frontend.query(`SELECT pg_sleep(${(i % 8) / 1000})`));
		const messenger = await RawClient.open(door);
		messenger.send(frontend.cancelRequest(client.backendPid, client.backendKey));
		if (i % 2 === 0) client.reset();
		const next = await (await stage.witness()).query("SELECT pg_sleep(0.004), 'mine'");
		expect(next.errors).toEqual([]);
		client.reset();
		messenger.reset();
	}
	await until(() => stage.proxy.running, "the proxy");
	await stage.intact("cancels");
	stage.sane();
});

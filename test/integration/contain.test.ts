// A bug in what is done for one client, whichever way the event comes that it is in: it costs that client. The worker runs on the
// test's own thread, where a method can be given a bug; the server is real, and there is one connection to it.

import { afterAll, afterEach, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "smol-toml";
import { Checkout } from "../../src/client/checkout.ts";
import { Client } from "../../src/client/client.ts";
import { Link } from "../../src/client/link.ts";
import { Walk } from "../../src/client/walk.ts";
import { firstUpdate } from "../../src/config/diff.ts";
import { load } from "../../src/config/load.ts";
import { problemText } from "../../src/config/problem.ts";
import { Startup } from "../../src/login/startup.ts";
import { Ledger } from "../../src/pool/ledger.ts";
import { Vitals } from "../../src/pool/vitals.ts";
import { ShardedClient } from "../../src/shards/sharded-client.ts";
import { Attendance } from "../../src/stats/attendance.ts";
import { Counters } from "../../src/stats/counters.ts";
import { Loads } from "../../src/stats/loads.ts";
import { Worker } from "../../src/worker.ts";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { until, within } from "../support/until.ts";
import { concat, frontend } from "../support/wire-frames.ts";
import { untilRunning } from "./support.ts";

setDefaultTimeout(60_000);

const folder = mkdtempSync(join(tmpdir(), "pgdog-contain-"));
let cluster: Cluster;
let worker: Worker;
let reload: () => void;
let port = 0;
let keys: string[] = [];

beforeAll(async () => {
	cluster = await startPostgres();
	port = freePort();
	const [configPath, usersPath] = [join(folder, "pgdog.toml"), join(folder, "users.toml")];
	const server = { host: "127.0.0.1", port: cluster.port, database_name: "pgdog" };
	const databases = [{ name: "one", ...server }, ...[0, 1].map((shard) => ({ name: "two", shard, ...server }))];
	const general = { port, host: "127.0.0.1", default_pool_size: 1, min_pool_size: 0, workers: 0, log_level: "off" };
	writeFileSync(configPath, stringify({ general, databases }));
	const users = ["pgdog", "fresh"].map((name) => ({ name, password: name, all_databases: true }));
	writeFileSync(usersPath, stringify({ users }));
	const loaded = load({ configPath, usersPath, databaseUrls: [], overrides: {}, env: {} });
	if (!loaded.ok) throw new Error(loaded.problems.map(problemText).join("\n"));
	// Each reload says that all of it is new.
	const update = firstUpdate(loaded.snapshot);
	const slots = new Map(update.clusters.flatMap(({ pools }) => pools).map(({ key }, slot) => [key, slot]));
	keys = [...slots.keys()];
	const capacity = slots.size;
	const memory = {
		ledger: new Ledger(capacity, 1).memory,
		counters: new Counters(capacity, 1).memory,
		vitals: new Vitals(capacity).memory,
		attendance: new Attendance(1).memory,
		loads: new Loads(1).memory,
	};
	const plugins = { bridge: [], plugins: [] };
	const scramSecret = new Uint8Array(32);
	const setup = {
		index: 0,
		workers: 1,
		version: "test",
		update,
		plugins,
		slots,
		capacity,
		scramSecret,
		sockets: [],
		isSuccessor: false,
		instance: "1234abcd",
		...memory,
	};
	worker = new Worker(setup as ConstructorParameters<typeof Worker>[0], () => {});
	worker.start(false);
	reload = () => worker.onMessage({ type: "reload", update, slots, paused: new Set() });
});
afterAll(async () => {
	worker?.onMessage({ type: "close" });
	await cluster?.[Symbol.asyncDispose]();
	rmSync(folder, { recursive: true, force: true });
});

const undo: (() => void)[] = [];
afterEach(() => {
	for (const work of undo.splice(0)) work();
});

/** Gives a method a bug that only clients called "bug" meet. @returns how often it was met */
function bug(kind: { prototype: object }, method: string, isBug: (self: never) => boolean): { met: number } {
	const methods = kind.prototype as Record<string, (...args: unknown[]) => unknown>;
	const right = methods[method]!;
	expect(right).toBeFunction();
	const count = { met: 0 };
	methods[method] = function (this: never, ...args: unknown[]) {
		if (!isBug(this)) return right.apply(this, args);
		count.met++;
		throw new TypeError("a bug of ours");
	};
	undo.push(() => {
		methods[method] = right;
	});
	return count;
}

/** Whose a Walk, a Link or a Checkout is. */
function clientOf(self: { client?: never }): never {
	return self.client === undefined ? (self as never) : clientOf(self.client);
}

const isBug = (self: { setting(name: string): string | undefined }) => self.setting("application_name") === "bug";
const connectAs = (password: string) => RawClient.connect({ port, user: "pgdog", password, database: "one" });
const connect = (application_name: string, database = "one") =>
	RawClient.connect({ port, user: "pgdog", password: "pgdog", database, parameters: { application_name } });

/** Others go on, on the one connection that there is: nothing was lost with the client. */
async function othersGoOn(innocent: RawClient, database = "one"): Promise<void> {
	expect((await within(innocent.query("SELECT 'hello'"), "the other client's answer")).rows.at(0)).toEqual(["hello"]);
	await using another = await connect("another", database);
	expect((await within(another.query("SELECT 'new'"), "a new client's answer")).rows.at(0)).toEqual(["new"]);
}

const CASES: [string, { prototype: object }, string, (client: RawClient, innocent: RawClient) => Promise<unknown>][] = [
	["an event of its socket", Walk, "read", async (client) => client.send(frontend.query("SELECT 1"))],
	["the answer of its server", Link, "onReady", async (client) => client.send(frontend.query("SELECT 1"))],
	["the janitor's tick", Client, "check", async () => {}],
	["a reload", Client, "reach", async () => reload()],
	[
		"a CancelRequest that another thread hands on",
		Client,
		"cancel",
		async (client) =>
			worker.onMessage({
				type: "cancel",
				pid: client.backendPid,
				secret: Uint8Array.from(client.backendKey),
				id: 1,
				by: 0,
			}),
	],
	[
		"its turn in the queue of a pool",
		Checkout,
		"acquire",
		async (client, innocent) => {
			await innocent.query("BEGIN");
			client.send(frontend.query("SELECT 1"));
			await until(() => worker.ledger.waitingIn(0, 0) > 0 || isQueued(), "the client to wait");
			await innocent.query("COMMIT");
		},
	],
	[
		"the end of its server",
		Link,
		"onServerGone",
		async (client) => {
			await client.query("BEGIN");
			const { rows } = await client.query("SELECT pg_backend_pid()");
			await cluster.primary.sql(`SELECT pg_terminate_backend(${rows[0]![0]})`);
		},
	],
];

function isQueued(): boolean {
	return worker.clients.all().some(({ stateName }) => stateName === "waiting");
}

test.each(CASES)("a bug in %s costs that client alone", async (_, kind, method, provoke) => {
	await using innocent = await connect("innocent");
	await using client = await connect("bug");
	await client.query("SELECT 1");
	const count = bug(kind, method, (self: never) => isBug(clientOf(self)));
	await provoke(client, innocent);
	await within(client.closed, "the end of the client that met the bug");
	expect(count.met).toBeGreaterThan(0);
	await othersGoOn(innocent);
});

// Nobody waits for a promise of one client: this one took the thread with it, and the process with that.
test("a bug in a login that goes on by a promise costs that login alone", async () => {
	await using innocent = await connect("innocent");
	const parametersOf = (self: never) =>
		(self as unknown as { said: { parameters: Map<string, string> } }).said.parameters;
	const count = bug(Startup, "letIn", (self) => parametersOf(self).get("application_name") === "bug");
	// A user that this worker has not seen: its keys are derived first, by a promise.
	const login = { port, user: "fresh", password: "fresh", database: "one", parameters: { application_name: "bug" } };
	await rejects(within(RawClient.connect(login), "an end of the login"));
	expect(count.met).toBe(1);
	await othersGoOn(innocent);
});

test("a bug in a microtask of a client of several shards costs that client alone", async () => {
	await using innocent = await connect("innocent", "two");
	await using client = await connect("bug", "two");
	const count = bug(ShardedClient, "resume", isBug as (self: never) => boolean);
	// The second request waits for the end of the first.
	const batch = [frontend.parse("SELECT 1"), frontend.bind(), frontend.execute(), frontend.sync()];
	client.send(concat(...batch, ...batch));
	await within(client.closed, "the end of the client that met the bug");
	expect(count.met).toBeGreaterThan(0);
	await othersGoOn(innocent, "two");
});

// One that is counted and never given back is one client fewer for as long as the process lives.
test("a descriptor is counted until its connection is closed, however that ends", async () => {
	const open = () => worker.descriptors.connections;
	const pools = (order: "pause" | "resume") => worker.onMessage({ type: "order", order, keys });
	pools("pause");
	await until(() => open() === 0, "all that was before to be closed");
	pools("resume");
	const knock = () => RawClient.open({ port });
	for (let round = 0; round < 5; round++) {
		(await knock()).reset();
		(await knock()).close();
		const rubbish = await knock();
		rubbish.send(Buffer.from("GET / HTTP/1.1\r\n\r\n"));
		await rubbish.closed;
		await connectAs("wrong").catch(() => {});
		for (const database of ["one", "two"]) {
			const client = await connect("counted", database);
			await client.query("SELECT 1");
			expect(open()).toBeGreaterThan(1);
			client.send(frontend.query("SELECT pg_sleep(30)"));
			await untilRunning(cluster, "pg_sleep");
			const cancel = await knock();
			cancel.send(frontend.cancelRequest(client.backendPid, client.backendKey));
			await cancel.closed;
			await client.result();
			// One that loses its server in a transaction, and one that leaves it.
			await client.query("BEGIN");
			const { rows } = await client.query("SELECT pg_backend_pid()");
			if (round % 2 === 0) {
				await cluster.primary.sql(`SELECT pg_terminate_backend(${rows[0]![0]})`);
				await client.closed;
			} else client.reset();
		}
	}
	pools("pause");
	await until(() => open() === 0, "the last to be closed");
	pools("resume");
});

/** What may set something going for later without `contain.ts`, and why that is no client's. */
const ELSEWHERE: Record<string, string> = {
	"src/admin/session.ts": "its promise ends in a catch that closes the session",
	"src/auth/scram-keys.ts": "derives keys, and hands a promise to whoever asked",
	"src/auth/server-login.ts": "a step of a login: its promise is that of the login",
	"src/backend/login.ts": "an attempt to log in: whatever goes wrong is its outcome",
	"src/backend/cancel.ts": "closes the connection of a CancelRequest, which is nobody's",
	"src/net/connect.ts": "closes a connection that comes too late, which is nobody's",
	"src/net/names.ts": "rejects a promise of its own",
	"src/net/standard-error.ts": "the log's own",
	"src/proxy.ts": "the start of the process",
	"src/main.ts": "the process",
	"src/admin/health-endpoint.ts": "the process",
	"src/two-phase/commit.ts": "its promises are awaited by the commit, which runs by contain.ts",
	"src/two-phase/decisions.ts": "its promises are awaited by whoever asked",
	"src/two-phase/recovery.ts": "its promises are awaited by the look at all shards, which runs by contain.ts",
	"src/two-phase/survey.ts": "its promises are awaited by whoever asked",
};

test("nothing is set going for later but through contain.ts", () => {
	const glob = new Bun.Glob("src/**/*.ts");
	const root = join(import.meta.dir, "../..");
	const pattern = /\b(queueMicrotask|setTimeout|setInterval)\(|\.(then|catch)\(|\bvoid [a-z.]+\(/;
	const found = [...glob.scanSync({ cwd: root })].filter((file) => {
		if (file === "src/contain.ts") return false;
		const code = readFileSync(join(root, file), "utf8").replace(/^\s*(\*|\/\/|\/\*).*$/gm, "");
		return pattern.test(code);
	});
	expect(found.filter((file) => !(file in ELSEWHERE)).sort()).toEqual([]);
});

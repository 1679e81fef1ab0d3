// The ground that other tests stand on: PostgreSQL starts, is told apart by its logins, freezes, dies, comes back, replicates
// and leaves nothing behind; the raw client and the printer show what a real server says.

import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type PostgresServer, startPostgres } from "./postgres.ts";
import { RawClient } from "./raw-client.ts";
import { rejects } from "./rejects.ts";
import { transcript } from "./transcript.ts";
import { until } from "./until.ts";
import { concat, frontend } from "./wire-frames.ts";

test("a replica follows its primary, survives its death and can be promoted", async () => {
	await using cluster = await startPostgres({ replicas: 1, databases: ["shard_0"] });
	const { primary } = cluster;
	const [replica] = cluster.replicas;
	await primary.sql("CREATE TABLE t AS SELECT 1 AS a", { user: "pgdog" });
	await cluster.replicated();
	expect(await replica?.sql("SELECT a, pg_is_in_recovery() AS recovery FROM t")).toEqual([{ a: 1, recovery: true }]);
	expect(await primary.sql("SELECT current_database() AS d", { database: "shard_0" })).toEqual([{ d: "shard_0" }]);
	const { port } = primary;
	await primary.kill();
	expect(primary.running).toBe(false);
	await primary.start();
	expect(primary.port).toBe(port);
	expect(await primary.sql("SELECT a FROM t")).toEqual([{ a: 1 }]);
	await primary.stop();
	await replica?.promote();
	await replica?.sql("INSERT INTO t VALUES (2)");
	await cluster.stop();
	expect(existsSync(cluster.folder)).toBe(false);
});

test("servers start with fewer connections than usual, replicas, too, and have no more", async () => {
	await using few = await startPostgres({ replicas: 1, settings: { max_connections: 5, max_worker_processes: 2 } });
	await few.primary.sql("CREATE TABLE t AS SELECT 1 AS id");
	await few.replicated();
	for (const server of [few.primary, few.replicas[0]!]) {
		const [row] = await server.sql("SELECT id, current_setting('max_connections') AS most FROM t");
		expect(row).toEqual({ id: 1, most: "5" });
	}
});

test("a killed primary comes back as a second one beside the replica that was promoted and that the other one follows", async () => {
	await using cluster = await startPostgres({ replicas: 2 });
	const { primary } = cluster;
	const [next, other] = cluster.replicas as [PostgresServer, PostgresServer];
	await primary.sql("CREATE TABLE t (a int)");
	await cluster.replicated();
	await primary.kill();
	await next.promote();
	other.follow(next);
	await primary.start();
	await primary.sql("INSERT INTO t VALUES (1)");
	await next.sql("INSERT INTO t VALUES (2), (3)");
	const held = async (server: PostgresServer) => {
		const [row] = await server.sql("SELECT string_agg(a::text, ' ') AS held, pg_is_in_recovery() AS recovery FROM t");
		return row;
	};
	await until(async () => (await held(other))?.held === "2 3", "the other replica to follow");
	expect(await held(other)).toEqual({ held: "2 3", recovery: true });
	expect(await held(next)).toEqual({ held: "2 3", recovery: false });
	expect(await held(primary)).toEqual({ held: "1", recovery: false });
});

test("a frozen server answers when it is thawed", async () => {
	await using cluster = await startPostgres();
	await using client = await RawClient.connect({ port: cluster.port, user: "pgdog_trust", database: "pgdog" });
	cluster.primary.pause();
	client.send(frontend.query("SELECT 1"));
	await Bun.sleep(50);
	expect(client.pending()).toEqual([]);
	cluster.primary.resume();
	expect((await client.result()).rows).toEqual([["1"]]);
});

test("each role logs in by its own method, with the right password only", async () => {
	await using cluster = await startPostgres();
	for (const [user, method] of [
		["pgdog", "10"],
		["pgdog_md5", "5"],
		["pgdog_plain", "3"],
	] as const) {
		await using client = await RawClient.connect({ port: cluster.port, user, password: "pgdog", database: "pgdog" });
		const first = transcript(client.received).split("\n")[0] ?? "";
		expect(first).toStartWith(`Authentication ${method}`);
		expect(client.parameters.server_version).toStartWith("17.");
		expect(client.backendPid).toBeGreaterThan(0);
		const refused = RawClient.connect({ port: cluster.port, user, password: "wrong", database: "pgdog" });
		await rejects(refused, "28P01");
	}
	await using local = await RawClient.connect({ unix: cluster.primary.socketPath, user: "pgdog", database: "pgdog" });
	expect((await local.query("SELECT current_user")).rows).toEqual([["pgdog"]]);
});

test("the raw client sorts what a query answers, and says what it saw when it waits in vain", async () => {
	await using cluster = await startPostgres();
	const client = await RawClient.open({ port: cluster.port, timeout: 300 });
	client.send(frontend.sslRequest());
	expect(await client.nextByte()).toBe("N");
	await client.login({ user: "postgres", database: "pgdog" });
	const both = await client.query("SELECT 1 AS a, NULL AS b; BEGIN");
	expect(both).toMatchObject({ columns: ["a", "b"], rows: [["1", null]], tags: ["SELECT 1", "BEGIN"], status: "T" });
	const failed = await client.extended("SELECT $1::int / 0", ["7"]);
	expect(failed.errors[0]).toMatchObject({ S: "ERROR", C: "22012", M: "division by zero" });
	expect(failed.status).toBe("E");
	expect((await client.query("ROLLBACK")).status).toBe("I");
	await client.sendSplit(concat(frontend.query("SELECT 5")), 3);
	expect((await client.result()).rows).toEqual([["5"]]);
	await rejects(client.next(), /waited 300 ms for a message; received \d+ messages.*ReadyForQuery I/s);
	client.send(frontend.query("SELECT pg_terminate_backend(pg_backend_pid())"));
	expect(transcript(await client.closed)).toContain('C="57P01"');
});

test("the printer names every message of a COPY and a function call", async () => {
	await using cluster = await startPostgres();
	await using client = await RawClient.connect({ port: cluster.port, database: "pgdog" });
	client.send(frontend.query("COPY (VALUES (1), (NULL)) TO STDOUT"));
	expect(transcript((await client.result()).messages).split("\n")).toEqual([
		"CopyOutResponse 0 [0]",
		'CopyData "1\\n"',
		'CopyData "\\\\N\\n"',
		"CopyDone",
		'CommandComplete "COPY 2"',
		"ReadyForQuery I",
	]);
	// 1219 is int8inc in every PostgreSQL.
	client.send(frontend.functionCall(1219, ["41"]));
	expect(transcript((await client.result()).messages)).toBe(
		'FunctionCallResponse "\\u0000\\u0000\\u0000\\u000242"\nReadyForQuery I',
	);
});

// It went round without the event loop: a run hung for good, and no time limit ended it.
test("whoever asks on and on where the connection has ended lets others go on", async () => {
	await using cluster = await startPostgres();
	const client = await RawClient.connect({ port: cluster.port, user: "pgdog", password: "pgdog", database: "pgdog" });
	client.send(frontend.terminate());
	await client.closed;
	let over = false;
	setTimeout(() => {
		over = true;
	}, 0);
	while (!over) expect((await client.query("SELECT 1")).messages).toEqual([]);
});

// Without the watcher, every test run that is killed leaves a postmaster and 25 MB in the temporary folder.
test("servers and folders go away when the process that started them is killed", async () => {
	const script = `
		import { startPostgres } from ${JSON.stringify(join(import.meta.dir, "postgres.ts"))};
		const cluster = await startPostgres();
		console.log(JSON.stringify([cluster.folder, cluster.primary.pid]));
		cluster.primary.pause();
		process.kill(process.pid, "SIGKILL");
	`;
	const child = Bun.spawnSync([process.execPath, "-e", script], { cwd: import.meta.dir, stderr: "inherit" });
	const [folder, pid] = JSON.parse(child.stdout.toString()) as [string, number];
	const parent = join(folder, "..");
	await until(() => !existsSync(parent), `${parent} to be removed`);
	expect(() => process.kill(pid, 0)).toThrow();
});

test("nothing here waits by expect(…).rejects (rejects.ts says why)", () => {
	const root = join(import.meta.dir, "..");
	const files = [...new Bun.Glob("**/*.ts").scanSync({ cwd: root })];
	const offenders = files.filter((file) => /\)\s*\.rejects\s*\./.test(readFileSync(join(root, file), "utf8")));
	expect(offenders).toEqual([]);
});

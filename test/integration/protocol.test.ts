// The versions of the protocol as real clients ask for them, and the first packets of a connection.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { runTool, testWithTool } from "../support/tools.ts";
import { transcript } from "../support/transcript.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { connect, one } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let proxy: Proxy;
beforeAll(async () => {
	cluster = await startPostgres();
	proxy = await startProxy(simpleConfig(cluster.primary, { workers: 1, min_pool_size: 0 }));
});
afterAll(async () => {
	await proxy?.stop("SIGKILL");
	await cluster?.stop();
});

const VERSIONS: [
	asked: string,
	version: number,
	options: Record<string, string>,
	negotiated: string | null,
	key: number,
][] = [
	["3.0", 0x30000, {}, null, 4],
	["3.1, which never was", 0x30001, {}, null, 4],
	["3.2", 0x30002, {}, null, 32],
	["3.9", 0x30009, {}, "NegotiateProtocolVersion 3.2 []", 32],
	["3.9999, libpq's grease", 0x3270f, {}, "NegotiateProtocolVersion 3.2 []", 32],
	["3.0 with an option", 0x30000, { "_pq_.some": "on" }, 'NegotiateProtocolVersion 3.0 ["_pq_.some"]', 4],
	[
		"3.2 with two options",
		0x30002,
		{ "_pq_.a": "1", "_pq_.b": "2" },
		'NegotiateProtocolVersion 3.2 ["_pq_.a","_pq_.b"]',
		32,
	],
];

for (const [asked, version, parameters, negotiated, key] of VERSIONS) {
	test(`${asked}: a session in the version that was agreed on`, async () => {
		await using client = await connect(proxy, { version, parameters });
		const lines = transcript(client.received).split("\n");
		expect(lines.filter((line) => line.startsWith("Negotiate"))).toEqual(negotiated === null ? [] : [negotiated]);
		expect(client.backendKey.length).toBe(key);
		expect(await one(client, "SELECT 'agreed'")).toBe("agreed");
	});
}

test("2.0 and 4.0 are refused in PostgreSQL's words", async () => {
	for (const version of [0x20000, 0x40000]) {
		const client = await RawClient.open({ port: proxy.port });
		client.send(f.startupMessage({ user: "pgdog" }, version));
		const lines = transcript(await client.closed);
		expect(lines).toStartWith('ErrorResponse S="FATAL"');
		expect(lines).toContain(`unsupported frontend protocol ${version >>> 16}.0: server supports 3.0 to 3.`);
	}
});

test("SSLRequest and GSSENCRequest are answered N, and the login goes on in plain text", async () => {
	const client = await RawClient.open({ port: proxy.port });
	client.send(f.gssencRequest());
	expect(await client.nextByte()).toBe("N");
	client.send(f.sslRequest());
	expect(await client.nextByte()).toBe("N");
	await client.login({ user: "pgdog", password: "pgdog", database: "pgdog" });
	expect(await one(client, "SELECT 1")).toBe("1");
	client.close();
});

test("replication connections are refused, as nothing here could serve them", async () => {
	await rejects(connect(proxy, { parameters: { replication: "database" } }), "0A000");
});

testWithTool("psql", "psql with sslmode=prefer goes on without, with require it gives up", async (psql) => {
	const env = {
		PGHOST: "127.0.0.1",
		PGPORT: String(proxy.port),
		PGUSER: "pgdog",
		PGPASSWORD: "pgdog",
		PGDATABASE: "pgdog",
	};
	expect((await runTool([psql, "-XAtc", "SELECT 1"], { ...env, PGSSLMODE: "prefer" })).stdout).toBe("1\n");
	const required = await runTool([psql, "-XAtc", "SELECT 1"], { ...env, PGSSLMODE: "require" });
	expect(required.code).toBe(2);
	expect(required.stderr).toContain("server does not support SSL");
	expect((await runTool([psql, "-XAtc", "SELECT 2"], { ...env, PGGSSENCMODE: "prefer" })).stdout).toBe("2\n");
});

// A verifier alone, as the server keeps it, is enough for both ends: what a client's SCRAM proof reveals logs in to the server.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type ProxyOptions, startProxy } from "../support/proxy.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";
import { admin, backends, connect, connectToBothWorkers, one, untilBackends } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let verifier: string;

beforeAll(async () => {
	cluster = await startPostgres();
	verifier = await verifierOf("pgdog");
});

afterAll(() => cluster?.stop());

async function verifierOf(role: string): Promise<string> {
	const rows = await cluster.primary.sql(`SELECT rolpassword FROM pg_authid WHERE rolname = '${role}'`);
	return (rows as { rolpassword: string }[])[0]!.rolpassword;
}

function options(general: Record<string, unknown> = {}, user: Record<string, unknown> = {}): ProxyOptions {
	const { host, port } = cluster.primary;
	return {
		config: {
			general: { workers: 2, ...general },
			admin: { password: "pgdog" },
			databases: [{ name: "pgdog", host, port }],
		},
		users: [{ name: "pgdog", database: "pgdog", password_hash: verifier, ...user }],
	};
}

for (const auth_type of ["scram", "plain"])
	test(`auth_type = ${auth_type}: clients of both workers get through with the server's own verifier`, async () => {
		await using proxy = await startProxy(options({ auth_type }));
		await rejects(connect(proxy, { password: "wrong" }), "28000");
		await rejects(connect(proxy, { password: verifier }), "28000");
		expect(await backends(cluster)).toEqual([]);
		for (const clients of await connectToBothWorkers(proxy, 2))
			for (const client of clients) {
				expect(await one(client, "SELECT session_user")).toBe("pgdog");
				client.close();
			}
		await rejects(connect(proxy, { password: "wrong" }), "28000");
	});

test("min_pool_size waits for the first client, which is said once, and is then kept by both workers", async () => {
	await using proxy = await startProxy(options({ min_pool_size: 3, default_pool_size: 3 }));
	await proxy.waitForLog(/min_pool_size has to wait for the first client/);
	// Long enough for several attempts, were there any.
	await Bun.sleep(1_500);
	expect(await backends(cluster)).toEqual([]);
	expect(proxy.lines.filter((line) => /min_pool_size has to wait/.test(line)).length).toBe(1);
	expect(proxy.log).not.toMatch(/WARN|ERROR|banned/i);
	{
		await using client = await connect(proxy);
		expect(await one(client, "SELECT 1")).toBe("1");
	}
	await untilBackends(cluster, 3);
	// A server that is lost comes back without a client.
	await cluster.primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pgdog'");
	await untilBackends(cluster, 3);
});

test("a reload with another verifier takes the keys away, and the next client brings new ones", async () => {
	await using proxy = await startProxy(options());
	{
		await using client = await connect(proxy);
		expect(await one(client, "SELECT 1")).toBe("1");
	}
	await cluster.primary.sql("ALTER ROLE pgdog PASSWORD 'another'");
	try {
		proxy.writeUsers([{ name: "pgdog", database: "pgdog", password_hash: await verifierOf("pgdog") }]);
		await using console = await admin(proxy);
		await console.query("RELOAD");
		await console.query("RECONNECT");
		await until(async () => (await backends(cluster)).length === 0, "no connection of the old verifier");
		await rejects(connect(proxy), "28000");
		await using client = await connect(proxy, { password: "another" });
		expect(await one(client, "SELECT session_user")).toBe("pgdog");
	} finally {
		await cluster.primary.sql(`ALTER ROLE pgdog PASSWORD '${verifier}'`);
	}
});

test("a verifier that is not the server's: the client is told so, and the server sees no wrong proof", async () => {
	// The same password, another salt.
	await cluster.primary.sql("CREATE ROLE twin LOGIN PASSWORD 'pgdog'");
	await using proxy = await startProxy(options({}, { password_hash: await verifierOf("twin") }));
	const refused = await connect(proxy).catch((error) => error);
	expect(refused.fields).toMatchObject({ S: "FATAL", D: "the server has another SCRAM verifier than password_hash" });
});

// The plugins of plugins/ and the one of its README, doing their work in the compiled proxy before real servers.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Client } from "pg";
import {
	BUILD_TIMEOUT,
	buildExample,
	describeWithCargo,
	folder,
	knownVersions,
	run,
	withoutLibclang,
} from "../plugin/support.ts";
import { type Cluster, freePort } from "../support/postgres.ts";
import { proxyCommand, startProxy } from "../support/proxy.ts";
import type { RawClient } from "../support/raw-client.ts";
import { adopt } from "../support/reaper.ts";
import { until } from "../support/until.ts";
import { errorOf, PORT, placesOf, routedOptions, startRouted, startServers, TRIES } from "./routed.ts";
import { connect, one } from "./support.ts";

const PLUGINS = join(import.meta.dir, "../../plugins");

describeWithCargo("the example plugins before PostgreSQL", () => {
	let cluster: Cluster;

	beforeAll(async () => {
		buildExample("tenant_guard");
		cluster = await startServers();
		await cluster.primary.sql(
			"CREATE TABLE orders (id int, tenant_id int, customer_id int); CREATE TABLE users (id int); CREATE SCHEMA audit; CREATE TABLE audit.events (id int)",
			{ user: "pgdog" },
		);
		await cluster.replicated();
	}, BUILD_TIMEOUT);

	afterAll(() => cluster?.stop());

	const places = (client: RawClient, from: string, how: "query" | "extended" = "query") =>
		placesOf(cluster, TRIES, () => client[how](`SELECT ${PORT} FROM (SELECT count(*) FROM ${from}) a`));
	const BOTH = ["primary", "replica"] as ("primary" | "replica")[];
	const PRIMARY = ["primary"] as ("primary" | "replica")[];

	test("read-after-write: anybody's reads of a table go to the primary for five seconds after a write to it", async () => {
		await using proxy = await startRouted(cluster, [{ name: buildExample("read_after_write") }], { workers: 2 });
		await using client = await connect(proxy);
		await using other = await connect(proxy);
		expect(await places(client, "users")).toEqual(BOTH);
		let written = 0;
		let writes = 0;
		const write = async () => {
			written = performance.now();
			writes++;
			expect(errorOf(await client.extended("INSERT INTO users VALUES ($1)", ["1"]))).toBeNull();
		};
		/** Where reads behind a new write go, of which those count that are answered in its five seconds. */
		const behindWrite = async (who: RawClient, from: string, how: "query" | "extended" = "query") => {
			await write();
			const found = new Set<string>();
			for (let i = 0; i < TRIES; i++) {
				const [place] = await placesOf(cluster, 1, () =>
					who[how](`SELECT ${PORT} FROM (SELECT count(*) FROM ${from}) a`),
				);
				if (performance.now() - written < 5_000) found.add(place as string);
			}
			return [...found];
		};
		for (const who of [client, other])
			for (const how of ["query", "extended"] as const) expect(await behindWrite(who, "users", how)).toEqual(PRIMARY);
		expect(await behindWrite(client, "orders JOIN users USING (id)")).toEqual(PRIMARY);
		expect(await places(client, "orders")).toEqual(BOTH);
		// The write is there for every read, which is what it is for.
		await write();
		expect(await one(other, "SELECT count(*) FROM users")).toBe(String(writes));
		const found = new Set<string>();
		await until(async () => {
			for (const place of await placesOf(cluster, 1, () => other.query(`SELECT ${PORT}, (SELECT max(id) FROM users)`)))
				found.add(place);
			return found.has("replica");
		}, "reads to come to the replica again");
		expect(performance.now() - written).toBeGreaterThan(4_900);
	}, 30_000);

	test("primary-only-tables: what names a table of the list is read from the primary", async () => {
		const list = join(folder(), "tables");
		writeFileSync(list, "# never late\norders\naudit.events # only there\n");
		const env = { PRIMARY_ONLY_TABLES: list };
		await using proxy = await startRouted(cluster, [{ name: buildExample("primary_only_tables") }], {}, undefined, {
			env,
		});
		await using client = await connect(proxy);
		for (const how of ["query", "extended"] as const) {
			expect(await places(client, "orders", how)).toEqual(PRIMARY);
			expect(await places(client, "users WHERE EXISTS (SELECT 1 FROM audit.events)", how)).toEqual(PRIMARY);
			expect(await places(client, "users", how)).toEqual(BOTH);
		}
	});

	test("tenant-guard: a statement without its tenant is an error, and its transaction fails", async () => {
		const env = { TENANT_TABLES: "orders" };
		const plugins = [{ name: buildExample("tenant_guard"), required: true }];
		await using proxy = await startRouted(cluster, plugins, {}, undefined, { env });
		const pg = new Client({ connectionString: proxy.url() });
		await pg.connect();
		const refused = async (text: string, values?: unknown[]) => {
			const error = await pg.query({ text, ...(values && { values }) }).catch((e: unknown) => e);
			return (error as { code?: string }).code;
		};
		expect(await refused("INSERT INTO orders (id, tenant_id) VALUES (1, 7), (2, 8)")).toBeUndefined();
		expect(await refused("SELECT * FROM orders")).toBe("42601");
		expect(await refused("SELECT * FROM orders WHERE id = $1", [1])).toBe("42601");
		expect(await refused("SELECT 1; DELETE FROM orders")).toBe("42601");
		expect(await refused("TRUNCATE orders")).toBe("42601");
		expect((await pg.query("DELETE FROM orders WHERE tenant_id = $1 RETURNING id", [8])).rows).toEqual([{ id: 2 }]);
		await pg.query("BEGIN");
		await pg.query("DELETE FROM orders WHERE tenant_id = 7");
		expect(await refused("DELETE FROM orders")).toBe("42601");
		expect(await refused("SELECT 1")).toBe("25P02");
		expect((await pg.query("COMMIT")).command).toBe("ROLLBACK");
		expect(await cluster.primary.sql("SELECT id FROM orders")).toEqual([{ id: 1 }]);
		expect((await pg.query("SELECT count(*)::int AS n FROM users")).rows).toHaveLength(1);
		await pg.end();
	});

	test("shard-by-customer: with one shard it does nothing", async () => {
		await using proxy = await startRouted(cluster, [{ name: buildExample("shard_by_customer"), required: true }]);
		await using client = await connect(proxy);
		expect(await places(client, "orders WHERE customer_id = 7")).toEqual(BOTH);
		expect(errorOf(await client.extended("SELECT * FROM orders WHERE customer_id = $1", ["7"]))).toBeNull();
	});

	test("shard-by-customer: each statement goes to its customer's shard", async () => {
		for (const name of ["shard_0", "shard_1"]) {
			await cluster.primary.sql(`CREATE DATABASE ${name} OWNER pgdog`);
			await cluster.primary.sql("CREATE TABLE orders (id int, customer_id bigint)", { database: name, user: "pgdog" });
		}
		const { host, port } = cluster.primary;
		const databases = [0, 1].map((shard) => ({ name: "pgdog", host, port, shard, database_name: `shard_${shard}` }));
		await using proxy = await startProxy({
			config: {
				general: { min_pool_size: 0, workers: 1 },
				databases,
				plugins: [{ name: buildExample("shard_by_customer"), required: true }],
			},
			users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }],
		});
		await using client = await connect(proxy);
		for (let customer = 0; customer < 6; customer++) {
			const insert = "INSERT INTO orders (id, customer_id) VALUES ($1, $2)";
			expect(errorOf(await client.extended(insert, ["1", `${customer}`]))).toBeNull();
			expect(errorOf(await client.query(`INSERT INTO orders (id, customer_id) VALUES (2, ${customer})`))).toBeNull();
			const where = "SELECT current_database() FROM orders WHERE customer_id =";
			const rows = [[`shard_${customer % 2}`], [`shard_${customer % 2}`]];
			expect((await client.query(`${where} ${customer}`)).rows).toEqual(rows);
			expect((await client.extended(`${where} $1`, [`${customer}`])).rows).toEqual(rows);
		}
		const held = (database: string) =>
			cluster.primary.sql("SELECT DISTINCT customer_id::int AS c FROM orders ORDER BY c", { database });
		expect(await held("shard_0")).toEqual([{ c: 0 }, { c: 2 }, { c: 4 }]);
		expect(await held("shard_1")).toEqual([{ c: 1 }, { c: 3 }, { c: 5 }]);
	});

	test(
		"the README's plugin is built, found and run as the README says",
		async () => {
			const place = folder();
			const guide = readFileSync(join(PLUGINS, "README.md"), "utf8");
			const build = ["set -e"];
			const proxied: string[] = [];
			let table = "";
			for (const [, head, body] of guide.matchAll(/^```([^\n]*)\n([\s\S]*?)^```$/gm)) {
				const [language, what] = (head as string).split(" ");
				const text = body as string;
				if (language === "sh") {
					if (what === undefined) build.push(text);
					else if (what === "proxy") proxied.push(text.trim());
				} else if (what !== undefined) {
					const kept = join(place, ".guide", what);
					mkdirSync(dirname(kept), { recursive: true });
					writeFileSync(kept, text);
					build.push(`mkdir -p '${dirname(join(place, what))}' && cp '${kept}' '${join(place, what)}'`);
				} else if (language === "toml" && text.includes('"my_plugin"')) table = text;
			}
			// The dependencies are built already for the other plugins; the library comes to where cargo would put it.
			const target = join(PLUGINS, "target/outside");
			const manifest = join(place, "my_plugin/Cargo.toml");
			const patch = join(place, ".guide/patch.toml");
			writeFileSync(patch, withoutLibclang());
			// Behind the manifest, before it is built.
			const at = build.findIndex((line) => /cargo build/.test(line));
			expect(at).toBeGreaterThan(0);
			knownVersions(dirname(patch));
			build.splice(
				at,
				0,
				`cat '${patch}' >> '${manifest}' && cp '${dirname(patch)}/Cargo.lock' '${dirname(manifest)}'`,
			);
			run(["bash", "-c", build.join("\n")], place, { CARGO_TARGET_DIR: target });
			mkdirSync(join(place, "my_plugin/target/release"), { recursive: true });
			const library = "my_plugin/target/release/libmy_plugin.so";
			cpSync(join(target, "release/libmy_plugin.so"), join(place, library));

			expect(proxied).toHaveLength(2);
			const [info, start] = proxied as [string, string];
			symlinkSync(proxyCommand()[0] as string, join(place, "pgdog"));
			const rustc = Bun.spawnSync(["rustc", "--version"]).stdout.toString().trim();
			const said = run(["bash", "-c", info], place);
			expect(said).toContain(rustc);
			const pgQuery = /pg_query (\S+)/.exec(said)?.[1];
			expect(guide).toContain(`pg_query = "=${pgQuery}"`);
			expect(guide).toContain(`PGDOG_PGQUERY_VERSION = "${pgQuery}"`);

			const port = freePort();
			const { primary, replicas } = cluster;
			const database = (role: string, at: number) =>
				`[[databases]]\nname = "pgdog"\nhost = "127.0.0.1"\nport = ${at}\nrole = "${role}"\n`;
			const servers = database("primary", primary.port) + database("replica", replicas[0]!.port);
			writeFileSync(join(place, "pgdog.toml"), `[general]\nhost = "127.0.0.1"\nport = ${port}\n${servers}${table}`);
			writeFileSync(join(place, "users.toml"), '[[users]]\nname = "pgdog"\ndatabase = "pgdog"\npassword = "pgdog"\n');
			const child = Bun.spawn(["bash", "-c", `exec env ${start}`], {
				cwd: place,
				env: { PATH: process.env.PATH ?? "" },
				stdin: "ignore",
				stdout: "ignore",
				stderr: "pipe",
			});
			adopt(child);
			let log = "";
			const reading = (async () => {
				for await (const chunk of child.stderr) log += new TextDecoder().decode(chunk);
			})();
			try {
				await until(() => log.includes("listening on") || child.exitCode !== null, "the proxy to listen");
				expect(log.split("\n")[0]).toMatch(/🐕 PgDog v\S+ \(rustc /);
				expect(log.split("\n")[0]).toContain(`(${rustc})`);
				expect(log).toContain(`plugin "my_plugin" is ${join(realpathSync(place), library)}`);
				expect(log).not.toContain("pg_query it was built");
				expect(log).toMatch(/loaded "my_plugin" plugin \(v0\.1\.0\) \[[\d.]+ms\]/);
				expect(log.indexOf("my_plugin is ready")).toBeLessThan(log.indexOf("listening on"));
				const client = await connect({ port } as Parameters<typeof connect>[0]);
				expect(errorOf(await client.query("TRUNCATE users"))).toEqual([
					"42601",
					'query is blocked by plugin "my_plugin"',
				]);
				expect(errorOf(await client.query("SELECT count(*) FROM users"))).toBeNull();
				client.close();
			} finally {
				child.kill("SIGTERM");
				await child.exited;
				await reading;
			}
			expect(child.exitCode).toBe(0);
			expect(log).toContain("my_plugin is done");
		},
		BUILD_TIMEOUT,
	);

	test("an absolute path, a relative one, a bare name, with and without lib and .so, are the same library", async () => {
		const place = folder();
		const file = join(place, "libtenant_guard.so");
		cpSync(buildExample("tenant_guard"), file);
		const env = { TENANT_TABLES: "orders", LD_LIBRARY_PATH: place };
		for (const name of [file, "./libtenant_guard.so", "tenant_guard", "libtenant_guard", "libtenant_guard.so"]) {
			const options = routedOptions(cluster, [{ name, required: true }]);
			await using proxy = await startProxy({ ...options, env, cwd: place });
			await using client = await connect(proxy);
			expect(errorOf(await client.query("SELECT * FROM orders"))?.[1]).toBe(`query is blocked by plugin "${name}"`);
			await using admin = await connect(proxy, { user: "admin", database: "admin" });
			await admin.query("SHUTDOWN");
			expect(await proxy.exited).toBe(0);
		}
	});
});

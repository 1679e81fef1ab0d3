// The executable as its user meets it: flags, exit codes, log lines, and what it does not read.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deriveKeys } from "../../src/auth/scram-keys.ts";
import { parseVerifier } from "../../src/auth/verifier.ts";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { failProxy, proxyCommand, simpleConfig, startProxy } from "../support/proxy.ts";
import { runTool } from "../support/tools.ts";
import { connect, one } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(() => cluster?.stop());

const run = (...args: string[]) => runTool([...proxyCommand(), ...args]);

test("--version and the first log line say version, commit and Bun", async () => {
	const { code, stdout, stderr } = await run("--version");
	expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
	expect(stdout).toMatch(/^PgDog v[\w-]+ \((rustc .+|no rustc: .+)\), version \d+\.\d+\.\d+, .*Bun \d+\.\d+\.\d+\n$/);
	expect((await run("-V")).stdout).toBe(stdout);
	await using proxy = await startProxy(simpleConfig(cluster.primary));
	expect(proxy.lines[0]).toContain(stdout.trim());
	expect(await proxy.stop("SIGTERM")).toBe(0);
	// Standard output is for what was asked for.
	expect(await proxy.stdout).toBe("");
});

test("--help tells every flag and command; what is unknown exits 2", async () => {
	const help = await run("--help");
	expect(help.code).toBe(0);
	for (const word of ["--config", "--users", "--database-url", "run", "configcheck", "hash"]) {
		expect(help.stdout).toContain(word);
	}
	for (const args of [["--nonsense"], ["nonsense"], ["hash", "a", "b"], ["run", "--pool-size", "none"], ["route"]]) {
		const { code, stdout, stderr } = await run(...args);
		expect({ args, code, stdout }).toEqual({ args, code: 2, stdout: "" });
		expect(stderr.length).toBeGreaterThan(0);
	}
});

test("hash prints a verifier with another salt each time, and reads no file", async () => {
	const [a, b] = [await run("hash", "secret"), await run("hash", "secret", "--config", "/nowhere/at/all.toml")];
	expect(a.code).toBe(0);
	expect(a.stdout).toMatch(/^SCRAM-SHA-256\$4096:[\w+/]{22}==\$[\w+/]{43}=:[\w+/]{43}=\n$/);
	expect(b.stdout).not.toBe(a.stdout);
});

test.each(["hash", "hash -"])("%s reads the password from standard input", async (command) => {
	const words = command.split(" ");
	const child = Bun.spawn([...proxyCommand(), ...words], { stdin: Buffer.from("sécret\n"), stdout: "pipe" });
	const verifier = parseVerifier((await child.stdout.text()).trim())!;
	const { storedKey } = await deriveKeys("sécret", verifier.salt, verifier.iterations);
	expect([await child.exited, storedKey]).toEqual([0, verifier.storedKey]);
	const { code, stdout, stderr } = await run(...words);
	expect([code, stdout, stderr]).toEqual([1, "", "no password came by standard input\n"]);
});

test("a file that a flag names has to be there, for configcheck and for the start", async () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-typo-"));
	const typo = join(folder, "typo.toml");
	for (const args of [
		["--config", typo],
		["--users", typo],
		["--database-url", "postgres://a:b@127.0.0.1/d", "--users", typo],
	]) {
		for (const command of ["configcheck", "run"]) {
			const { code, stderr } = await run(...args, command);
			expect({ args, command, code }).toEqual({ args, command, code: 1 });
			expect(stderr).toContain(`${typo}: cannot be read: there is no such file, and ${args.at(-2)} names it`);
		}
	}
	rmSync(folder, { recursive: true });
});

test("configcheck: all mistakes at once, with file, line, key, what was found and what is accepted", async () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-check-"));
	const config = join(folder, "pgdog.toml");
	const users = join(folder, "users.toml");
	const check = () => run("--config", config, "--users", users, "configcheck");
	writeFileSync(config, '[[databases]]\nname = "pgdog"\nhost = "127.0.0.1"\n');
	writeFileSync(users, '[[users]]\nname = "pgdog"\ndatabase = "pgdog"\npassword = "pgdog"\n');
	const good = await check();
	expect(good.code).toBe(0);
	expect(good.stderr).toContain("config valid");
	writeFileSync(config, '[general]\nport = 99999\npooler_mode = "sometimes"\nno_such_key = 1\n');
	writeFileSync(users, "[[users]]\nname = 5\n");
	const bad = await check();
	expect(bad.code).toBe(1);
	const lines = bad.stderr.split("\n").filter((line) => line.includes("ERROR"));
	for (const words of [
		["pgdog.toml", "2", "port", "99999"],
		["pgdog.toml", "3", "pooler_mode", "sometimes", "transaction"],
		["pgdog.toml", "4", "no_such_key"],
		["users.toml", "2", "name", "5"],
	]) {
		expect(lines.some((line) => words.every((word) => line.includes(word)))).toBe(true);
	}
	// The same mistakes stop a start.
	const start = await run("--config", config, "--users", users);
	expect(start.code).toBe(1);
	expect(start.stderr).toContain("no_such_key");
	rmSync(folder, { recursive: true });
});

test("a setting of PgDog's that is not served yet is an error that says so", async () => {
	const { code, log } = await failProxy({
		...simpleConfig(cluster.primary, { unique_id_min: 7, dry_run: true }),
	});
	expect(code).toBe(1);
	expect(log).toContain("unique_id_min");
	expect(log).toContain("dry_run");
});

test("--database-url, PGDOG_DATABASE_URL_1 and the flags of run", async () => {
	const url = `postgres://pgdog:pgdog@127.0.0.1:${cluster.port}/pgdog`;
	await using flag = await startProxy({ config: "", users: "", args: ["--database-url", url] });
	await using client = await connect(flag);
	expect(await one(client, "SELECT current_user")).toBe("pgdog");
	await using environment = await startProxy({ config: "", users: "", env: { PGDOG_DATABASE_URL_1: url } });
	await using other = await connect(environment);
	expect(await one(other, "SELECT current_database()")).toBe("pgdog");
	await using session = await startProxy({
		...simpleConfig(cluster.primary, { workers: 1, checkout_timeout: 2000 }),
		args: ["run", "--pool-size", "1", "--session-mode", "true"],
	});
	await using first = await connect(session);
	expect(await one(first, "SELECT 1")).toBe("1");
	await using second = await connect(session).catch((error: Error) => {
		expect(error.message).toContain("is down");
		return first;
	});
	if (second !== first) expect((await second.query("SELECT 1")).errors[0]?.M).toBe("checkout timeout");
});

test("nothing is read from the working directory: no .env, no bunfig.toml, no tsconfig.json", async () => {
	const cwd = mkdtempSync(join(tmpdir(), "pgdog-cwd-"));
	const port = freePort();
	const trap = `PGDOG_PORT=${freePort()}\nPGDOG_WORKERS=7\nPGDOG_LOG_FORMAT=json\nRUST_LOG=off\nPGDOG_ADMIN_PASSWORD=trap\n`;
	for (const name of [".env", ".env.local", ".env.production", ".env.development"])
		writeFileSync(join(cwd, name), trap);
	writeFileSync(join(cwd, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
	writeFileSync(join(cwd, "preload.ts"), 'console.error("PRELOADED"); process.exit(9);\n');
	writeFileSync(join(cwd, "tsconfig.json"), "not json");
	writeFileSync(join(cwd, "package.json"), "not json");
	mkdirSync(join(cwd, "node_modules"));
	await using proxy = await startProxy({ ...simpleConfig(cluster.primary, { port }), cwd });
	expect(proxy.log).not.toContain("PRELOADED");
	expect(proxy.log).not.toMatch(/^\{/m);
	await using client = await connect(proxy);
	expect(await one(client, "SELECT 1")).toBe("1");
	rmSync(cwd, { recursive: true });
});

test("text log: who connects, who leaves and why, one line each, no secret in it", async () => {
	await using proxy = await startProxy(simpleConfig(cluster.primary, { workers: 1 }));
	const client = await connect(proxy, { parameters: { application_name: "x\nERROR forged line" } });
	client.close();
	await proxy.waitForLog(/client "pgdog" disconnected from database "pgdog"/);
	await connect(proxy, { password: "gehe1m" }).catch(() => undefined);
	await connect(proxy, { user: "nobody\nINFO forged" }).catch(() => undefined);
	await proxy.waitForLog(/nobody.*auth error/);
	await proxy.waitForLog(/INFO client "pgdog" connected to database "pgdog" \[127\.0\.0\.1:\d+, auth: scram\]/);
	await proxy.waitForLog(/new server connection/);
	expect(proxy.log).not.toContain("gehe1m");
	for (const line of proxy.lines) expect(line).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z +(INFO|WARN|WARNING|ERROR) /);
});

test("JSON log: every line is an object", async () => {
	for (const log_format of ["json", "json_flattened"]) {
		await using proxy = await startProxy(simpleConfig(cluster.primary, { workers: 2, log_format }));
		await using client = await connect(proxy);
		await client.query("SELECT 1");
		expect(await proxy.stop("SIGTERM")).toBe(0);
		expect(proxy.lines.length).toBeGreaterThan(4);
		for (const line of proxy.lines) expect(JSON.parse(line)).toHaveProperty("message");
	}
});

test("log_level, log_connections and log_disconnections", async () => {
	const quiet = { workers: 1, log_connections: false, log_disconnections: false };
	await using proxy = await startProxy(simpleConfig(cluster.primary, quiet));
	const client = await connect(proxy);
	await client.query("SELECT 1");
	client.close();
	await proxy.stop("SIGTERM");
	expect(proxy.log).not.toContain("connected");
	expect(proxy.log).not.toContain("server connection");
	const { log } = await failProxy({
		...simpleConfig(cluster.primary, { log_level: "error", port: cluster.port, host: "127.0.0.1" }),
	});
	expect(log.split("\n").filter((line) => / INFO | WARN/.test(line))).toEqual([]);
	expect(log).toContain("already in use");
});

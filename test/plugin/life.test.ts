// A plugin's life in the compiled proxy: what [[plugins]] loads, that `init` comes before the first client and `fini` after
// the last, once each however many workers there are, and what happens when a plugin cannot be had.

import { beforeAll, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { startPostgres } from "../support/postgres.ts";
import { failProxy, Proxy, type ProxyOptions, proxyCommand, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { runTool } from "../support/tools.ts";
import { until } from "../support/until.ts";
import { BUILD_TIMEOUT, buildFixture, describeWithCargo, folder, forge } from "./support.ts";

interface Entry {
	name: string;
	required?: boolean;
}

describeWithCargo("plugins in the compiled proxy", () => {
	let witness: string;
	let other: string;

	beforeAll(() => {
		witness = buildFixture("witness");
		other = buildFixture("other_plugin");
	}, BUILD_TIMEOUT);

	/** A proxy whose server is nowhere: enough for all that needs no query. */
	const options = (plugins: Entry[], general: object = {}, env: Record<string, string> = {}) => {
		const notes = join(folder(), "notes");
		const config = {
			general: { log_level: "debug", min_pool_size: 0, ...general },
			databases: [{ name: "pgdog", host: "127.0.0.1", port: 1 }],
			admin: { password: "pgdog" },
			plugins,
		};
		const users = [{ name: "pgdog", database: "pgdog", password: "pgdog" }];
		const noted = () => (existsSync(notes) ? readFileSync(notes, "utf8").trimEnd().split("\n") : []);
		return { options: { config, users, env: { WITNESS_NOTES: notes, ...env } } satisfies ProxyOptions, noted };
	};
	/** The log without time and level. */
	const said = (proxy: { lines: string[] }) => proxy.lines.map((line) => line.replace(/^\S+ +\S+ +/, ""));

	test("init comes once, before anything listens, in the order of the file; the log tells file, version and time", async () => {
		const { options: given, noted } = options([{ name: other }, { name: witness, required: true }], { workers: 3 });
		await using proxy = await startProxy(given);
		const lines = said(proxy);
		const plugins = lines.filter((line) => line.includes("plugin")).map((line) => line.replace(/\[[\d.]+ms\]/, "[t]"));
		expect(plugins).toEqual([
			`plugin "${other}" is ${other}`,
			`plugin "${other}": opening ${other}`,
			`plugin "${witness}" is ${witness}`,
			`plugin "${witness}": opening ${witness}`,
			// It has no init.
			`loaded "${other}" plugin (v0.0.1) [t]`,
			`plugin "${witness}": calling init`,
			`plugin "${witness}" initialized`,
			`loaded "${witness}" plugin (v1.2.3) [t]`,
		]);
		const at = (part: string) => lines.findIndex((line) => line.includes(part));
		expect(at("listening on")).toBeGreaterThan(at(`loaded "${witness}"`));
		expect(noted()).toEqual(["witness init"]);
	});

	test.each(["SIGTERM", "SIGINT"] as const)("fini comes once, on %s", async (signal) => {
		const { options: given, noted } = options([{ name: witness }]);
		await using proxy = await startProxy(given);
		expect(await proxy.stop(signal)).toBe(0);
		expect(noted()).toEqual(["witness init", "witness fini"]);
		expect(proxy.log).toContain(`plugin "${witness}" finished`);
	});

	test("fini comes on the admin's SHUTDOWN, and with all on the main thread", async () => {
		const { options: given, noted } = options([{ name: witness }], { workers: 0 });
		await using proxy = await startProxy(given);
		await using admin = await RawClient.connect({
			port: proxy.port,
			user: "admin",
			password: "pgdog",
			database: "admin",
		});
		await admin.query("SHUTDOWN");
		expect(await proxy.exited).toBe(0);
		expect(noted()).toEqual(["witness init", "witness fini"]);
	});

	test("fini waits for the last client's transaction", async () => {
		await using cluster = await startPostgres();
		const { options: given, noted } = options([{ name: witness }]);
		given.config.databases[0]!.port = cluster.port;
		await using proxy = await startProxy(given);
		await using client = await RawClient.connect({
			port: proxy.port,
			user: "pgdog",
			password: "pgdog",
			database: "pgdog",
		});
		await client.query("BEGIN");
		proxy.signal("SIGTERM");
		await proxy.waitForLog(/shutting down/);
		// It is still served, so this is no race: fini would have come before the answer.
		expect((await client.query("SELECT 1")).rows).toEqual([["1"]]);
		expect(noted()).toEqual(["witness init"]);
		await client.query("COMMIT");
		expect(await proxy.exited).toBe(0);
		expect(noted()).toEqual(["witness init", "witness fini"]);
	}, 60_000);

	test("a plugin that cannot be had is skipped; one that is required keeps the proxy from starting", async () => {
		const missing = "no_such_plugin";
		const { options: skipped, noted } = options([{ name: missing }, { name: witness }]);
		await using proxy = await startProxy(skipped);
		expect(proxy.log).toContain(`plugin "${missing}" failed to load: no such file`);
		expect(noted()).toEqual(["witness init"]);

		const { options: refused, noted: none } = options([{ name: witness }, { name: missing, required: true }]);
		const { code, log } = await failProxy(refused);
		expect(code).toBe(1);
		expect(log).toContain(`plugin "${missing}" failed to load: no such file`);
		expect(log).toContain("it is required, so PgDog does not start");
		expect(log).not.toContain("listening on");
		expect(none()).toEqual([]);
	});

	test("a plugin of another compiler or another pg_query is told both versions, and the first line has ours", async () => {
		const info = (await runTool([...proxyCommand(), "plugin-info"])).stdout.split("\n");
		const [rustc, pgQuery] = [info[0]!, info[1]!.replace("pg_query ", "")];
		const place = folder();
		const old = forge(join(place, "libold.so"), { rustc: "rustc 1.2.3 (old)", pgQuery });
		const strange = forge(join(place, "libstrange.so"), { rustc, pgQuery: "0.0.7" });
		await using proxy = await startProxy(options([{ name: old }, { name: strange }]).options);
		const lines = said(proxy);
		expect(lines[0]).toStartWith("🐕 PgDog v");
		expect(lines[0]).toContain(`(${rustc}), version `);
		expect(lines[0]).toContain(`, pg_query ${pgQuery}, Bun ${Bun.version}`);
		const because = (name: string, what: string) => `skipping plugin "${name}" because it was compiled with ${what}`;
		expect(lines).toContain(because(old, `different compiler version (rustc 1.2.3 (old)), expected ${rustc}`));
		expect(lines).toContain(because(strange, `different pg_query version (0.0.7), expected ${pgQuery}`));
	});

	test("when the port is taken, what was begun is finished", async () => {
		await using first = await startProxy(options([]).options);
		const { options: given, noted } = options([{ name: witness }], { port: first.port });
		const { code } = await failProxy(given);
		expect(code).toBe(1);
		expect(noted()).toEqual(["witness init", "witness fini"]);
	});

	test("an init that panics is named in the last line", async () => {
		await using proxy = new Proxy(options([{ name: witness }], {}, { WITNESS_PANICS: "1" }).options);
		expect(await proxy.exited).not.toBe(0);
		const ours = said(proxy).filter((line) => line.startsWith("plugin"));
		expect(ours.at(-1)).toStartWith(`plugin "${witness}" crashed in init (SIGABRT)`);
		expect(proxy.lines.at(-1)).toContain("crashed in init");
		expect(proxy.log).not.toContain("listening on");
	});

	test("a name without folder, lib or .so is found in LD_LIBRARY_PATH; a path may start where PgDog does", async () => {
		const { options: given } = options(
			[{ name: "witness" }, { name: `./${basename(other)}` }],
			{},
			{
				LD_LIBRARY_PATH: dirname(witness),
			},
		);
		await using proxy = await startProxy({ ...given, cwd: dirname(other) });
		expect(said(proxy)).toContain(`plugin "witness" is ${witness}`);
		expect(proxy.log).toMatch(/loaded "\.\/libother_plugin\.so" plugin/);
	});

	test("a reload says that other plugins wait for a restart, each time", async () => {
		const { options: given, noted } = options([{ name: witness }]);
		await using proxy = await startProxy(given);
		const reload = async () => {
			const from = proxy.lines.length;
			proxy.signal("SIGHUP");
			await proxy.waitForLog(/configuration reloaded/, 10_000, from);
			return proxy.lines.slice(from).filter((line) => line.includes("[[plugins]] differs")).length;
		};
		expect(await reload()).toBe(0);
		proxy.writeConfig({ ...given.config, plugins: [] });
		expect(await reload()).toBe(1);
		expect(await reload()).toBe(1);
		expect(await proxy.stop("SIGTERM")).toBe(0);
		expect(noted()).toEqual(["witness init", "witness fini"]);
	});

	test("plugin-info tells what plugins must be built with, and needs no files", async () => {
		const { code, stdout } = await runTool([...proxyCommand(), "plugin-info", "--config", "/nowhere/x.toml"]);
		expect(code).toBe(0);
		const rustc = Bun.spawnSync(["rustc", "--version"]).stdout.toString();
		expect(stdout).toMatch(/^rustc .*\npg_query \d+\.\d+\.\d+\npgdog-plugin 0\.1\.6 to 0\.1\.8\n$/);
		expect(stdout).toStartWith(rustc);
	});

	test("a plugin that is no library, or is named twice, harms nobody", async () => {
		const text = join(folder(), "libtext.so");
		writeFileSync(text, "not a library");
		const { options: given, noted } = options([{ name: text }, { name: witness }, { name: witness }]);
		await using proxy = await startProxy(given);
		expect(proxy.log).toContain(`plugin "${text}" failed to load`);
		expect(proxy.log).toContain(`plugin "${witness}" is listed more than once`);
		await until(() => noted().length > 0, "init's note");
		expect(noted()).toEqual(["witness init"]);
	});
});

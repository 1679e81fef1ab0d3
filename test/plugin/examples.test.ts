// The example plugins as they are loaded, their own tests, and the newcomer's guide: its files and commands, in its order.

import { beforeAll, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Outcome, ReadWrite, ShardCode } from "../../src/plugin/abi.ts";
import type { Bridge } from "../../src/plugin/bridge.ts";
import { PluginHost } from "../../src/plugin/host.ts";
import {
	BUILD_TIMEOUT,
	bind,
	bridge,
	buildExample,
	describeWithCargo,
	folder,
	input,
	knownVersions,
	Lines,
	load,
	run,
	withoutLibclang,
} from "./support.ts";

const PLUGINS = join(import.meta.dir, "../../plugins");

describeWithCargo("the example plugins", () => {
	let native: Bridge;

	beforeAll(() => {
		native = bridge();
	}, BUILD_TIMEOUT);

	const hostOf = (name: string) => {
		const log = new Lines();
		const host = new PluginHost(load(native, [buildExample(name)], log), { log });
		expect(log.lines.filter((line) => /^(WARN|ERROR)/.test(line))).toEqual([]);
		host.init();
		return host;
	};

	test(
		"their tests and the bridge's pass",
		() => {
			run(["cargo", "test", "--release", "--locked", "--workspace"], PLUGINS, {
				CARGO_TARGET_DIR: join(PLUGINS, "target"),
			});
		},
		BUILD_TIMEOUT,
	);

	test("each has a README", () => {
		for (const name of ["read-after-write", "primary-only-tables", "tenant-guard", "shard-by-customer"]) {
			expect(existsSync(join(PLUGINS, name, "README.md"))).toBe(true);
		}
	});

	test(
		"reads go to the primary after a write",
		() => {
			const host = hostOf("read_after_write");
			expect(host.route(input("SELECT * FROM users")).outcome).toBe(Outcome.Unknown);
			expect(host.route(input("UPDATE users SET a = 1")).outcome).toBe(Outcome.Unknown);
			expect(host.route(input("SELECT * FROM users"))).toMatchObject({
				shard: ShardCode.Unknown,
				readWrite: ReadWrite.Write,
			});
			expect(host.route(input("SELECT * FROM orders")).outcome).toBe(Outcome.Unknown);
		},
		BUILD_TIMEOUT,
	);

	test(
		"tables of a list go to the primary; without a list nothing does",
		() => {
			const host = hostOf("primary_only_tables");
			expect(host.route(input("SELECT * FROM balances")).outcome).toBe(Outcome.Unknown);
			// Its variable is read from the process's own environment, so a process of its own.
			const file = join(folder(), "tables");
			writeFileSync(file, "balances\n");
			const program = join(import.meta.dir, "fixtures/process.ts");
			const out = run([process.execPath, program, host.plugins[0]?.file as string], PLUGINS, {
				PRIMARY_ONLY_TABLES: file,
				SQL: "SELECT * FROM balances",
			});
			expect(JSON.parse(out)).toMatchObject({ outcome: Outcome.Provided, readWrite: ReadWrite.Write });
		},
		BUILD_TIMEOUT,
	);

	test(
		"statements without a tenant are blocked",
		() => {
			const host = hostOf("tenant_guard");
			expect(host.route(input("SELECT * FROM orders")).outcome).toBe(Outcome.Blocked);
			expect(host.route(input("SELECT * FROM orders WHERE tenant_id = $1", bind([], ["1"]))).outcome).toBe(
				Outcome.Unknown,
			);
			// A tree that is walked by recursion, deeper than a thread's stack.
			expect(host.route(input(`SELECT a${"+a".repeat(9000)} FROM orders`)).outcome).toBe(Outcome.Blocked);
			host.clear();
		},
		BUILD_TIMEOUT,
	);

	test(
		"statements go to their customer's shard",
		() => {
			const host = hostOf("shard_by_customer");
			const shard = (sql: string, values = {}) => host.route(input(sql, { shards: 4, ...values })).shard;
			expect(shard("SELECT * FROM orders WHERE customer_id = 6")).toBe(2);
			expect(shard("SELECT * FROM orders WHERE customer_id = $1", bind([0], ["7"]))).toBe(3);
			expect(shard("SELECT * FROM orders WHERE customer_id = $1", bind([1], [Buffer.from([0, 0, 0, 5])]))).toBe(1);
			expect(shard("SELECT * FROM orders WHERE customer_id IN (1, 2)")).toBe(ShardCode.All);
			expect(shard("SELECT * FROM orders")).toBe(ShardCode.Unknown);
		},
		BUILD_TIMEOUT,
	);

	test(
		"the guide's files and commands make a plugin that loads",
		() => {
			const place = folder();
			const guide = readFileSync(join(PLUGINS, "README.md"), "utf8");
			const script = ["set -e"];
			// Blocks: ```sh (run here), ```sh proxy (run where the proxy is, test/integration), ```<language> <file> (written).
			for (const [, language, what, body] of guide.matchAll(/^```(\w+)(?: (\S+))?\n([\s\S]*?)^```$/gm)) {
				if (language === "sh" && what === undefined) {
					script.push(body as string);
				} else if (language !== "sh" && what !== undefined) {
					const kept = join(place, ".guide", what);
					mkdirSync(dirname(kept), { recursive: true });
					// As it says for machines without libclang.
					writeFileSync(kept, `${body}${what.endsWith("Cargo.toml") ? withoutLibclang() : ""}`);
					script.push(`mkdir -p '${dirname(join(place, what))}' && cp '${kept}' '${join(place, what)}'`);
					if (!what.endsWith("Cargo.toml")) continue;
					knownVersions(dirname(kept));
					script.push(`cp '${join(dirname(kept), "Cargo.lock")}' '${dirname(join(place, what))}'`);
				}
			}
			const target = join(PLUGINS, "target/outside");
			const out = run(["bash", "-c", script.join("\n")], place, { CARGO_TARGET_DIR: target });
			expect(out).toContain(`pg_query v${native.pgQuery}`);
			expect(guide).toContain(`pg_query = "=${native.pgQuery}"`);
			const log = new Lines();
			const host = new PluginHost(load(native, [join(target, "release/libmy_plugin.so")], log), { log });
			// It tells its pg_query.
			expect(log.lines.filter((line) => line.startsWith("WARN"))).toEqual([]);
			host.init();
			expect(host.route(input("TRUNCATE users")).outcome).toBe(Outcome.Blocked);
			const replicas = { hasReplicas: true };
			expect(host.route(input("SELECT * FROM reports", replicas))).toMatchObject({ readWrite: ReadWrite.Read });
			expect(host.route(input("SELECT * FROM users", replicas)).outcome).toBe(Outcome.Unknown);
			host.fini();
		},
		BUILD_TIMEOUT,
	);

	test(
		"the top README's plugin builds, loads and sends reads to a replica",
		() => {
			const readme = readFileSync(join(PLUGINS, "..", "README.md"), "utf8");
			const section = readme.slice(readme.indexOf("## A plugin in five minutes"));
			const block = (language: string) =>
				new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\`$`, "m").exec(section)?.[1] ?? "";
			const place = join(folder(), "my_plugin");
			mkdirSync(join(place, "src"), { recursive: true });
			// Built beside the guide's, under a name of its own.
			const manifest = block("toml").replace("my_plugin", "readme_plugin");
			writeFileSync(join(place, "Cargo.toml"), `${manifest}\n${withoutLibclang()}`);
			writeFileSync(join(place, "src", "lib.rs"), block("rust"));
			knownVersions(place);
			const target = join(PLUGINS, "target/outside");
			run(["cargo", "build", "--release"], place, { CARGO_TARGET_DIR: target });
			const log = new Lines();
			const host = new PluginHost(load(native, [join(target, "release/libreadme_plugin.so")], log), { log });
			host.init();
			expect(host.route(input("SELECT 1"))).toMatchObject({ readWrite: ReadWrite.Read });
			expect(host.route(input("SELECT 1", { writeOverride: true })).outcome).toBe(Outcome.Unknown);
		},
		BUILD_TIMEOUT,
	);

	test("a plugin in the folder plugins is part of its workspace: no libclang, and the bridge's pg_query", () => {
		const place = join(folder(), "plugins");
		const names = readdirSync(PLUGINS).filter((name) => name !== "target");
		for (const name of names) cpSync(join(PLUGINS, name), join(place, name), { recursive: true });
		run(["cargo", "init", "--quiet", "--lib", "my_plugin"], place);
		const readme = readFileSync(join(PLUGINS, "..", "README.md"), "utf8");
		const manifest = /^```toml\n(\[package\]\nname = "my_plugin"[\s\S]*?)^```$/m.exec(readme)?.[1] as string;
		writeFileSync(join(place, "my_plugin/Cargo.toml"), manifest);
		const tree = run(["cargo", "tree", "--edges", "all", "--prefix", "none"], join(place, "my_plugin"));
		expect(tree).toStartWith("my_plugin v0.1.0");
		expect(tree).toContain(`pg_query v${native.pgQuery}\n`);
		expect(tree).toMatch(/bindgen v[\d.]+ \(.*stand-ins/);
		expect(tree).not.toContain("clang-sys");
	});
});

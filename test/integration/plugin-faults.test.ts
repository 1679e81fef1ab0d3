// Plugins that do wrong in front of clients: they end the process, hang, or lose their file. Whoever reads the log at its default level
// is told which plugin it was, and what can go on goes on. The plugins are C of a few lines, with the interface that the crate has.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describeWithCargo, folder, run } from "../plugin/support.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, proxyCommand, startProxy } from "../support/proxy.ts";
import { until, within } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { admin, connect, connectToBothWorkers, show, workerOf } from "./support.ts";

const SOURCE = (rustc: string, pgQuery: string, before: string, route: string) => `
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef struct { size_t length; const char *data; } Text;
typedef struct { int32_t version; uint64_t count; void *data; } Tree;
typedef struct { uint64_t count; void *data; uint64_t formats; void *codes; } Parameters;
typedef struct {
	uint64_t shards;
	uint8_t has_replicas, has_primary, in_transaction, write_override;
	Tree tree;
	Parameters parameters;
} Context;
typedef struct { int64_t shard; uint8_t read_write; } Answer;
static void say(Text *out, const char *text) { out->data = text; out->length = strlen(text); }
void pgdog_rustc_version(Text *out) { say(out, ${JSON.stringify(rustc)}); }
void pgdog_pg_query_version(Text *out) { say(out, ${JSON.stringify(pgQuery)}); }
${before}
void pgdog_route(Context context, Answer *answer) {
	answer->shard = -2;
	answer->read_write = 2;
	${route}
}
`;
/** For the first statement in the process only. */
const ONCE = (what: string) => `static int asked; if (__sync_fetch_and_add(&asked, 1) == 0) { ${what} }`;

describeWithCargo("plugins that do wrong", () => {
	let cluster: Cluster;
	let versions: string[];

	beforeAll(async () => {
		versions = Bun.spawnSync([...proxyCommand(), "plugin-info"])
			.stdout.toString()
			.split("\n");
		cluster = await startPostgres();
	});
	afterAll(() => cluster?.stop());

	/** Compiles `lib<name>.so`. */
	function plugin(name: string, route: string, before = ""): string {
		const place = folder();
		const library = join(place, `lib${name}.so`);
		const source = join(place, `${name}.c`);
		writeFileSync(source, SOURCE(versions[0]!, versions[1]!.replace("pg_query ", ""), before, route));
		run(["cc", "-shared", "-fPIC", "-O0", "-w", "-o", library, source], place);
		return library;
	}
	/** At the default log level. */
	function start(name: string, workers = 1, more: Record<string, unknown> = {}): Promise<Proxy> {
		return startProxy({
			config: {
				general: { workers, client_placement: "spread", min_pool_size: 0, ...more },
				databases: [{ name: "pgdog", host: cluster.primary.host, port: cluster.port }],
				plugins: [{ name }],
				admin: { password: "pgdog" },
			},
			users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }],
		});
	}

	test.each([
		["aborts", "abort();", /plugin ".*" crashed in route \(SIGABRT\): this ends the process/],
		["reads_nowhere", "*(volatile int *)0 = 1;", /plugin ".*" crashed in route \(SIGSEGV\): this ends the process/],
		["recurses", "deep(1);", /plugin ".*" crashed in route \(SIGSEGV\): this ends the process/],
		["traps", "__builtin_trap();", /plugin ".*" crashed in route \(SIG(ILL|TRAP)\): this ends the process/],
		["exits", "exit(7);", /plugin ".*" called exit in route: this ends the process/],
		["leaves", "quick_exit(7);", /plugin ".*" called exit in route: this ends the process/],
	] as const)("one that %s is named last, in our own words", async (name, how, line) => {
		const library = plugin(
			name,
			how,
			"int deep(int n) { volatile char room[4096]; room[0] = n; return deep(n + 1) + room[0]; }",
		);
		await using proxy = await start(library);
		const before = proxy.lines.length;
		const client = await connect(proxy);
		client.send(f.query("SELECT 1"));
		expect(await within(proxy.exited, "its end", 10_000, () => proxy.log)).not.toBe(0);
		const last = proxy.lines.slice(before).filter(Boolean);
		// Nothing of the runtime's, which would call it a fault of its own.
		expect(last.join("\n")).not.toMatch(/bun|panic/i);
		expect(last.at(-1)).toMatch(line);
		expect(last.at(-1)).toContain(library);
	});

	test("one that does not come back for some seconds: others are served meanwhile, it is named, and its worker comes back", async () => {
		const release = join(folder(), "release");
		const library = plugin("sleeps", ONCE(`while (access(${JSON.stringify(release)}, 0) != 0) usleep(10000);`));
		await using proxy = await start(library, 2);
		const workers = await connectToBothWorkers(proxy, 1);
		const [caught, free] = [workers[0][0]!, workers[1][0]!];
		caught.send(f.query("SELECT 'caught'"));
		await proxy.waitForLog(/WARNING? worker 0 does not come back to its event loop/);
		expect((await free.query("SELECT 'free'")).rows).toEqual([["free"]]);
		// All new ones come to the other worker: the listener of this one is no more.
		const others = await Promise.all(Array.from({ length: 12 }, () => connect(proxy)));
		expect(others.map(workerOf)).toEqual(others.map(() => 1));
		await using console = await admin(proxy);
		const rows = await show(console, "SHOW CLIENTS");
		expect(rows.length).toBeGreaterThan(others.length);
		await proxy.waitForLog(/WARNING? plugin ".*libsleeps\.so" has not come back from route for \d+ s/);
		writeFileSync(release, "");
		expect((await caught.result()).rows).toEqual([["caught"]]);
		await proxy.waitForLog(/INFO worker 0 has come back to its event loop/);
		await proxy.waitForLog(/WARNING? plugin ".*libsleeps\.so" came back from route after \d+ s/);
		// It listens again.
		const [again] = await connectToBothWorkers(proxy, 1);
		expect((await again[0]!.query("SELECT 'again'")).rows).toEqual([["again"]]);
		expect((await show(console, "SHOW CLIENTS")).length).toBeGreaterThan(others.length + 2);
	}, 30_000);

	test("where one does not come back, its worker's listener stays as long as another process may take it over", async () => {
		const place = folder();
		const takeover_socket = join(place, "takeover");
		const release = join(place, "release");
		const library = plugin("waits", ONCE(`while (access(${JSON.stringify(release)}, 0) != 0) usleep(10000);`));
		await using proxy = await start(library, 2, { takeover_socket });
		const address = `:${proxy.port.toString(16).toUpperCase().padStart(4, "0")} 00000000:0000 0A`;
		const listeners = () => readFileSync("/proc/net/tcp", "latin1").split(address).length - 1;
		const [[caught]] = await connectToBothWorkers(proxy, 1);
		const offered = Promise.withResolvers<void>();
		const heir = await Bun.connect({
			unix: takeover_socket,
			socket: { open: (socket) => void socket.write("takeover\n"), data: () => offered.resolve() },
		});
		await offered.promise;
		caught!.send(f.query("SELECT 'caught'"));
		await proxy.waitForLog(/WARNING? worker 0 does not come back to its event loop/);
		expect(listeners()).toBe(2);
		heir.terminate();
		await until(() => listeners() === 1, "its end");
		writeFileSync(release, "");
		expect((await caught!.result()).rows).toEqual([["caught"]]);
		await until(() => listeners() === 2, "another");
	}, 30_000);

	test("one whose file is overwritten in place goes on as it was loaded", async () => {
		// Its route lies behind the end of the new file.
		const old = plugin("old", "", `__asm__(".text; .skip 1000000, 0xcc");`);
		const fresh = readFileSync(plugin("fresh", "abort();"));
		await using proxy = await start(old);
		await using client = await connect(proxy);
		expect((await client.query("SELECT 1")).rows).toEqual([["1"]]);
		// As cp does it.
		const file = openSync(old, "r+");
		ftruncateSync(file, 0);
		writeSync(file, fresh);
		closeSync(file);
		for (const one of [client, await connect(proxy)]) expect((await one.query("SELECT 2")).rows).toEqual([["2"]]);
		expect(proxy.running).toBe(true);
	});
});

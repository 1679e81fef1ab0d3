// What systemd is told, by a socket of the test's own, and a socket that is passed on to the executable as systemd does.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
	closeSync,
	existsSync,
	linkSync,
	mkdtempSync,
	openSync,
	readFileSync,
	renameSync,
	rmSync,
	statSync,
	symlinkSync,
	unlinkSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "smol-toml";
import { closeDescriptor, duplicateDescriptor } from "../../src/net/options.ts";
import { Datagrams } from "../support/datagrams.ts";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { proxyCommand, simpleConfig, startProxy, withAdmin } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { adopt } from "../support/reaper.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";
import { admin, connect } from "./support.ts";

setDefaultTimeout(60_000);

const linux = process.platform === "linux";
const folder = mkdtempSync(join(tmpdir(), "pgdog-manager-"));
let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(async () => {
	await cluster?.stop();
	rmSync(folder, { recursive: true });
});

function config(general: Record<string, unknown> = {}) {
	const { config, users } = simpleConfig(cluster.primary, general);
	return withAdmin({ config, users });
}

const names = ["a path", "an abstract name"] as const;
test.skipIf(!linux).each(names)("systemd is told of the start, reloads and the stop, by %s", async (kind) => {
	const name = kind === "a path" ? join(folder, "notify") : `@pgdog-test-${process.pid}`;
	using manager = new Datagrams(name);
	const env = { NOTIFY_SOCKET: name };
	const files = config({ workers: 2, shutdown_timeout: 7_000 });
	await using proxy = await startProxy({ ...files, env });
	await manager.until(/^STATUS=/);
	expect(manager.got[0]).toBe("READY=1");
	expect(manager.got[1]).toMatch(/^STATUS=\d+ connections, \d+ of them to servers, of 10 that pools may have$/);
	for (const refused of [false, true]) {
		const from = manager.read().length;
		if (refused) proxy.writeConfig("[general]\nworkers = -1\n");
		proxy.signal("SIGHUP");
		await manager.until(/^READY=1$/, from);
		expect(manager.got[from]).toMatch(/^RELOADING=1\nMONOTONIC_USEC=[1-9]\d+$/);
	}
	await using console = await admin(proxy);
	const from = manager.read().length;
	await console.query("RELOAD");
	await manager.until(/^READY=1$/, from);
	// Told to stop while its workers have not obeyed yet: it is not ready any more.
	proxy.writeConfig(files.config);
	proxy.signal("SIGHUP");
	proxy.signal("SIGTERM");
	expect(await proxy.exited).toBe(0);
	expect(manager.read().at(-1)).toBe("STOPPING=1\nEXTEND_TIMEOUT_USEC=12000000");
});

test.skipIf(!linux)(
	"the watchdog is fed while all threads come back to their loops, and only if it is for us",
	async () => {
		using manager = new Datagrams(join(folder, "watchdog"));
		const env = { NOTIFY_SOCKET: join(folder, "watchdog"), WATCHDOG_USEC: "100000" };
		{
			await using _proxy = await startProxy({ ...config({ workers: 2 }), env });
			await until(() => manager.read().filter((each) => each === "WATCHDOG=1").length > 5, "some more WATCHDOG=1");
		}
		manager.read();
		const from = manager.got.length;
		await using other = await startProxy({ ...config(), env: { ...env, WATCHDOG_PID: "1" } });
		(await connect(other)).close();
		await manager.until(/^STATUS=/, from);
		expect(manager.got.slice(from)).not.toContain("WATCHDOG=1");
	},
);

/** Whether a process is there, or has ended and was not asked how. */
function isThere(pid: number): boolean {
	try {
		return !readFileSync(`/proc/${pid}/stat`, "latin1").includes(") Z ");
	} catch {
		return false;
	}
}

describe.skipIf(!linux)("SIGUSR2 has the executable take over", () => {
	/** What was told from `from` on, without what is told again and again. */
	const told = (manager: Datagrams, from: number) =>
		manager
			.read()
			.slice(from)
			.filter((each) => !/^(STATUS=|WATCHDOG=1$)/.test(each))
			.map((each) => each.replace(/\d{4,}$/, each.startsWith("MAINPID") ? "$&" : "µs"));
	const general = (name: string) => ({ host: "127.0.0.1", takeover_socket: join(folder, name) });

	test("twice in a row, and the service goes on, with its watchdog", async () => {
		using manager = new Datagrams(join(folder, "upgrade"));
		const env = { NOTIFY_SOCKET: join(folder, "upgrade"), WATCHDOG_USEC: "200000" };
		const files = config({ ...general("upgrade.takeover"), workers: 2, shutdown_timeout: 7_000 });
		await using proxy = await startProxy({ ...files, env });
		await manager.until(/^STATUS=/);
		await using client = await connect(proxy);
		let main = proxy.pid;
		try {
			for (let time = 1; time <= 2; time++) {
				const from = manager.read().length;
				process.kill(main, "SIGUSR2");
				await manager.until(/^READY=1$/, from);
				const pid = Number(/^MAINPID=(\d+)$/m.exec(manager.got.slice(from).join("\n"))?.[1]);
				expect(pid).not.toBe(main);
				const before = main;
				main = pid;
				await until(() => !isThere(before), "the process of before to end");
				// It has said nothing since: its end would be the service's.
				expect(told(manager, from)).toEqual(["RELOADING=1\nMONOTONIC_USEC=µs", `MAINPID=${pid}`, "READY=1"]);
				const pings = manager.read().length;
				await manager.until(/^WATCHDOG=1$/, pings);
				expect((await client.query("SELECT 1")).rows).toEqual([["1"]]);
			}
			// A reload of the configuration is one all the same.
			const from = manager.read().length;
			process.kill(main, "SIGHUP");
			await manager.until(/^READY=1$/, from);
		} finally {
			if (main !== proxy.pid) process.kill(main, "SIGTERM");
		}
		await manager.until(/^STOPPING=1/);
		await until(() => !isThere(main), "the last one to end");
	});

	test("one that fails leaves the service as it was, and another may be tried", async () => {
		using manager = new Datagrams(join(folder, "failing"));
		const files = config(general("failing.takeover"));
		await using proxy = await startProxy({ ...files, env: { NOTIFY_SOCKET: join(folder, "failing") } });
		await manager.until(/^STATUS=/);
		proxy.writeConfig("[general]\nworkers = -1\n");
		for (let time = 1; time <= 2; time++) {
			const from = manager.read().length;
			const lines = proxy.lines.length;
			proxy.signal("SIGUSR2");
			await manager.until(/^READY=1$/, from);
			expect(told(manager, from)).toEqual(["RELOADING=1\nMONOTONIC_USEC=µs", "READY=1"]);
			await proxy.waitForLog(/has ended with exit code 1: this process goes on/, 10_000, lines);
		}
		(await connect(proxy)).close();
		proxy.signal("SIGTERM");
		expect(await proxy.exited).toBe(0);
		expect(told(manager, 0).at(-1)).toStartWith("STOPPING=1");
	});

	test("one that hangs ends with the process, which was told to stop meanwhile", async () => {
		using manager = new Datagrams(join(folder, "hanging"));
		const link = join(folder, "pgdog");
		symlinkSync(proxyCommand()[0]!, link);
		const files = config(general("hanging.takeover"));
		await using proxy = await startProxy({ ...files, env: { NOTIFY_SOCKET: join(folder, "hanging") }, binary: link });
		await manager.until(/^STATUS=/);
		// What the link leads to by now is started.
		writeFileSync(join(folder, "hangs"), "#!/bin/sh\nexec sleep 1000\n", { mode: 0o755 });
		unlinkSync(link);
		symlinkSync(join(folder, "hangs"), link);
		proxy.signal("SIGUSR2");
		const pid = Number(/process (\d+) is to take over/.exec(await proxy.waitForLog(/is to take over/))![1]);
		proxy.signal("SIGUSR2");
		await proxy.waitForLog(/SIGUSR2: nothing is started while the proxy starts, stops, or is being replaced/);
		proxy.signal("SIGTERM");
		expect(await proxy.exited).toBe(0);
		await until(() => !isThere(pid), "the one that hangs to end");
		expect(told(manager, 0).map((each) => each.split("\n")[0])).toEqual(["READY=1", "RELOADING=1", "STOPPING=1"]);
	});

	test("without takeover_socket the log says so, and nothing is started", async () => {
		await using proxy = await startProxy(config());
		proxy.signal("SIGUSR2");
		await proxy.waitForLog(/SIGUSR2: nothing is started: this process listens on no takeover_socket/);
		(await connect(proxy)).close();
	});

	test("a takeover by one that the service has not started says nothing of another main process", async () => {
		using manager = new Datagrams(join(folder, "foreign"));
		const files = config({ ...general("foreign.takeover"), port: freePort() });
		await using proxy = await startProxy({ ...files, env: { NOTIFY_SOCKET: join(folder, "foreign") } });
		await manager.until(/^STATUS=/);
		await using _next = await startProxy({ ...files, args: ["--takeover"] });
		expect(await proxy.exited).toBe(0);
		expect(told(manager, 0).map((each) => each.split("\n")[0])).toEqual(["READY=1", "STOPPING=1"]);
	});
});

/** Runs the executable with `fds` as its descriptors from 3 on. */
function startWith(fds: readonly number[], names: string, { config: tables, users }: ReturnType<typeof config>) {
	writeFileSync(join(folder, "pgdog.toml"), stringify(tables as object));
	writeFileSync(join(folder, "users.toml"), stringify({ users }));
	const variables = `LISTEN_FDS=${fds.length} LISTEN_FDNAMES=${names} LISTEN_PID=$$`;
	const command = [...proxyCommand(), "--config", join(folder, "pgdog.toml")];
	const child = Bun.spawn(["sh", "-c", `${variables} exec "$0" "$@"`, ...command], {
		cwd: folder,
		stdio: ["ignore", "pipe", "pipe", ...fds],
	});
	adopt(child);
	return child;
}

const LOGIN = { user: "pgdog", password: "pgdog", database: "pgdog" };

test.skipIf(!linux).each([0, 1, 2])(
	"with %p workers clients come by the socket that was passed on",
	async (workers) => {
		const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
		const { port } = listener;
		// The port of the settings is somebody else's: it is not bound.
		using taken = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
		const { fd } = listener as unknown as { fd: number };
		const child = startWith([fd], "pgdog", config({ workers, host: "127.0.0.1", port: taken.port }));
		// The queue goes on: who connects before the process has begun is served.
		listener.stop();
		const clients = await Promise.all(Array.from({ length: 20 }, () => RawClient.connect({ ...LOGIN, port })));
		for (const client of clients) expect((await client.query("SELECT 1")).rows).toEqual([["1"]]);
		child.kill("SIGTERM");
		for (const client of clients) await client.closed;
		expect(await child.exited).toBe(0);
	},
);

/** A Unix socket as systemd has it: it listens, and nobody accepts there. Its file is there as long as it is. */
class UnixSocket implements Disposable {
	readonly path: string;
	readonly fd: number;

	constructor(name: string) {
		this.path = join(folder, name);
		const listener = Bun.listen({ unix: this.path, socket: { data() {} } });
		this.fd = duplicateDescriptor((listener as unknown as { fd: number }).fd);
		// Bun takes the file away.
		const kept = `${this.path}.kept`;
		linkSync(this.path, kept);
		listener.stop();
		renameSync(kept, this.path);
	}

	connect(): Promise<RawClient> {
		return RawClient.connect({ ...LOGIN, unix: this.path });
	}

	[Symbol.dispose](): void {
		closeDescriptor(this.fd);
		rmSync(this.path, { force: true });
	}
}

test.skipIf(!linux).each([0, 1, 2])(
	"with %p workers clients come by the Unix socket that was passed on, one start after another",
	async (workers) => {
		using passed = new UnixSocket(`passed-${workers}`);
		const { ino } = statSync(passed.path);
		const port = freePort();
		// It is in the place of the proxy's own.
		const files = config({ workers, host: "127.0.0.1", port, unix_socket_dir: folder });
		for (let start = 1; start <= 2; start++) {
			// Nobody is there yet, and they wait.
			const coming = Promise.all(Array.from({ length: 10 }, () => passed.connect()));
			const child = startWith([passed.fd], "local", files);
			const clients = await coming;
			for (const client of clients) expect((await client.query("SELECT 1")).rows).toEqual([["1"]]);
			// TCP is what the settings say.
			const byPort = await RawClient.connect({ ...LOGIN, port });
			expect(existsSync(join(folder, `.s.PGSQL.${port}`))).toBe(false);
			child.kill("SIGTERM");
			for (const client of [...clients, byPort]) await client.closed;
			expect(await child.exited).toBe(0);
			expect(await child.stderr.text()).toContain(`PgDog listening on ${passed.path}\n`);
			expect(statSync(passed.path).ino).toBe(ino);
		}
	},
);

test.skipIf(!linux)("both are handed on to a process that takes over, and from that to the next", async () => {
	using passed = new UnixSocket("handed-on");
	const { ino } = statSync(passed.path);
	const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
	const { fd } = listener as unknown as { fd: number };
	const { port } = listener;
	const general = { workers: 2, host: "127.0.0.1", port: freePort(), takeover_socket: join(folder, "both.takeover") };
	const children = [startWith([passed.fd, fd], "local:web", config(general))];
	listener.stop();
	await using client = await passed.connect();
	await using another = await RawClient.connect({ ...LOGIN, port });
	const command = [...proxyCommand(), "--config", join(folder, "pgdog.toml"), "--takeover"];
	// The last has another place for its own, and none of them takes the file away.
	for (const more of [{}, { unix_socket_dir: folder }, {}]) {
		const { config: tables } = config({ ...general, ...more });
		writeFileSync(join(folder, "pgdog.toml"), stringify(tables as object));
		const child = Bun.spawn(command, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
		adopt(child);
		expect(await children.at(-1)!.exited).toBe(0);
		children.push(child);
		for (const each of [client, another, await passed.connect(), await RawClient.connect({ ...LOGIN, port })])
			expect((await each.query("SELECT 1")).rows).toEqual([["1"]]);
		expect(existsSync(join(folder, `.s.PGSQL.${general.port}`))).toBe(false);
	}
	const last = children.at(-1)!;
	last.kill("SIGTERM");
	expect(await last.exited).toBe(0);
	expect(await last.stderr.text()).toContain(`PgDog listening on ${passed.path}\n`);
	expect(statSync(passed.path).ino).toBe(ino);
});

test.skipIf(!linux)("by a Unix socket that was passed on peer knows who comes", async () => {
	using passed = new UnixSocket("peer");
	const self = Bun.spawnSync(["id", "-un"]).stdout.toString().trim();
	const files = config({ port: freePort() });
	const hba = [{ type: "local", database: "all", user: "all", method: "peer" }];
	const server = { server_user: "pgdog", server_password: "pgdog" };
	const users = [self, "pgdog"].map((name) => ({ name, database: "pgdog", password: "pgdog", ...server }));
	const child = startWith([passed.fd], "local", { config: { ...(files.config as object), hba }, users });
	await using client = await RawClient.connect({ unix: passed.path, user: self, database: "pgdog" });
	expect((await client.query("SELECT current_user")).rows).toEqual([["pgdog"]]);
	await rejects(passed.connect(), 'Peer authentication failed for user "pgdog"');
	child.kill("SIGTERM");
	expect(await child.exited).toBe(0);
});

test.skipIf(!linux)(
	"what is passed on and is no socket that listens, or one too many, ends the start with its name",
	async () => {
		using first = new UnixSocket("first");
		using second = new UnixSocket("second");
		const file = openSync("/dev/null", "r");
		for (const [fds, why] of [
			[[file], "descriptor 3 (odd) is no TCP or Unix socket that listens"],
			[[first.fd, second.fd], `descriptor 4 (other) is one Unix socket too many: clients come by ${first.path}`],
		] as const) {
			const child = startWith(fds, "odd:other", config());
			expect(await child.exited).toBe(1);
			expect(await child.stderr.text()).toContain(`LISTEN_FDS: ${why}`);
		}
		closeSync(file);
		expect([first, second].map(({ path }) => existsSync(path))).toEqual([true, true]);
	},
);

// A new process goes on in place of the running one (`--takeover`): nobody who connects meanwhile is refused, and nobody is dropped.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { failProxy, Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { connect, one } from "./support.ts";

setDefaultTimeout(60_000);

const folder = mkdtempSync(join(tmpdir(), "pgdog-takeover-"));
const takeover_socket = join(folder, "takeover");
let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(async () => {
	await cluster?.stop();
	rmSync(folder, { recursive: true });
});

const linuxOnly = test.skipIf(process.platform !== "linux");

function options(general: Record<string, unknown>) {
	return simpleConfig(cluster.primary, { host: "127.0.0.1", takeover_socket, shutdown_timeout: 20_000, ...general });
}

function successor(general: Record<string, unknown>): Promise<Proxy> {
	return startProxy({ ...options(general), args: ["--takeover"] });
}

async function isRefused(port: number): Promise<boolean> {
	try {
		(await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } })).end();
		return false;
	} catch {
		return true;
	}
}

/** Until the process is not ended by SIGHUP any more, the last signal that it takes care of (proc(5)). */
function catchesSignals({ pid }: Proxy): Promise<void> {
	const caught = () => /^SigCgt:\s*(\w+)$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))![1]!;
	return until(() => (Number.parseInt(caught().at(-1)!, 16) & 1) === 1, "signals to be caught");
}

/** Sockets of a process (proc(5), "fd"). */
function socketsOf({ pid }: Proxy): Set<string> {
	const folder = `/proc/${pid}/fd`;
	const links = readdirSync(folder).map((fd) => {
		try {
			return readlinkSync(join(folder, fd));
		} catch {
			return "";
		}
	});
	return new Set(links.filter((link) => link.startsWith("socket:")));
}

/** Clients that come, ask and go, one after another, until it is stopped. */
function visitors(port: number) {
	let stopped = false;
	let served = 0;
	const errors: unknown[] = [];
	const visit = async () => {
		while (!stopped) {
			try {
				const client = await RawClient.connect({ port, user: "pgdog", password: "pgdog", database: "pgdog" });
				expect((await client.query("SELECT 1")).rows).toEqual([["1"]]);
				client.close();
				served++;
			} catch (error) {
				errors.push(error);
			}
		}
	};
	const all = Promise.all(Array.from({ length: 4 }, visit));
	return {
		get served() {
			return served;
		},
		async stop() {
			stopped = true;
			await all;
			return errors;
		},
	};
}

linuxOnly.each([
	[1, 1],
	[2, 2],
	[2, 1],
	[1, 3],
	[0, 2],
])("from %p workers to %p, and on: who comes is served, who is there stays", async (before, after) => {
	const port = freePort();
	const healthcheck_port = freePort();
	const general = { port, healthcheck_port, workers: before };
	await using old = await startProxy(options(general));
	expect(statSync(takeover_socket).mode & 0o777).toBe(0o600);
	await using idle = await connect(old);
	await using busy = await connect(old);
	await busy.query("BEGIN; SELECT pg_advisory_lock(1)");
	const crowd = visitors(port);
	await using next = await successor({ ...general, workers: after });
	await old.waitForLog(new RegExp(`goes on as process ${next.pid}`));
	const served = crowd.served;
	await until(() => crowd.served > served + 20, "some more to be served");
	expect(await one(idle, "SELECT 'idle'")).toBe("idle");
	await using last = await successor({ ...general, workers: before });
	await next.waitForLog(new RegExp(`goes on as process ${last.pid}`));
	const servedAgain = crowd.served;
	await until(() => crowd.served > servedAgain + 20, "some more to be served");
	expect(await crowd.stop()).toEqual([]);
	expect((await busy.query("COMMIT")).tags).toEqual(["COMMIT"]);
	expect(await one(idle, "SELECT 'idle'")).toBe("idle");
	idle.close();
	expect(old.running).toBe(true);
	busy.close();
	expect(await old.exited).toBe(0);
	// Whoever had come is gone, and nobody comes any more.
	expect(await next.exited).toBe(0);
	const health = await fetch(`http://127.0.0.1:${healthcheck_port}/ready`);
	expect(await health.text()).toBe("up");
	expect(await last.stop("SIGTERM")).toBe(0);
	expect(existsSync(takeover_socket)).toBe(false);
});

linuxOnly("who stays in the old process beyond shutdown_timeout is told 57P01", async () => {
	const general = { port: freePort(), shutdown_timeout: 300 };
	await using old = await startProxy(options(general));
	await using busy = await connect(old);
	await busy.query("BEGIN");
	await using _next = await successor(general);
	const error = (await busy.closed).find(({ code }) => code === "E");
	expect(error?.body.toString("latin1")).toContain("C57P01\0");
	expect(await old.exited).toBe(0);
});

linuxOnly("a stop of the old process lets transactions end", async () => {
	const general = { port: freePort() };
	await using old = await startProxy(options(general));
	await using idle = await connect(old);
	// It does not move, then.
	await idle.query("SELECT pg_advisory_lock(1)");
	await using busy = await connect(old);
	await busy.query("BEGIN");
	await using _next = await successor(general);
	await old.waitForLog(/goes on as process/);
	old.signal("SIGTERM");
	await idle.closed;
	expect((await busy.query("COMMIT")).tags).toEqual(["COMMIT"]);
	expect(await old.exited).toBe(0);
});

linuxOnly("where nobody runs, it starts as ever", async () => {
	await using proxy = await successor({ port: freePort() });
	await proxy.waitForLog(new RegExp(`nobody answers on ${takeover_socket}: there is nothing to take over`));
	expect(await one(await connect(proxy), "SELECT 1")).toBe("1");
});

linuxOnly("of two that come at once one is refused, and the running process goes on", async () => {
	const general = { port: freePort() };
	await using old = await startProxy(options(general));
	const offered = Promise.withResolvers<void>();
	const first = await Bun.connect({
		unix: takeover_socket,
		socket: { open: (socket) => void socket.write("takeover\n"), data: () => offered.resolve() },
	});
	await offered.promise;
	const second = await failProxy({ ...options(general), args: ["--takeover"] });
	expect(second.code).toBe(1);
	expect(second.log).toContain("refused: it starts, stops, or is being taken over already");
	expect(await one(await connect(old), "SELECT 1")).toBe("1");
	first.terminate();
	await using third = await successor(general);
	await old.waitForLog(new RegExp(`goes on as process ${third.pid}`));
});

linuxOnly("another port, no setting and strangers change nothing for the running process", async () => {
	const general = { port: freePort() };
	await using old = await startProxy(options(general));
	const other = freePort();
	const wrong = await failProxy({ ...options({ port: other }), args: ["--takeover"] });
	expect(wrong.code).toBe(1);
	const where = `127.0.0.1:${general.port}, and not on 127.0.0.1:${other}`;
	expect(wrong.log).toContain(`takeover: the running process listens on ${where}`);
	const unset = await failProxy({ ...simpleConfig(cluster.primary, general), args: ["--takeover"] });
	expect([unset.code, unset.log]).toEqual([1, expect.stringContaining("general.takeover_socket is not set")]);
	for (const line of ["listening\n", "GET / HTTP/1.1\r\n"]) {
		const { promise, resolve } = Promise.withResolvers<string>();
		await Bun.connect({
			unix: takeover_socket,
			socket: { open: (socket) => void socket.write(line), data: (_, chunk) => resolve(chunk.toString()) },
		});
		expect(await promise).toStartWith("refused: ");
	}
	// A process that is offered the sockets and dies leaves the way free for the next.
	const { promise, resolve } = Promise.withResolvers<void>();
	await Bun.connect({
		unix: takeover_socket,
		socket: {
			open: (socket) => void socket.write("takeover\n"),
			data: (socket) => void socket.terminate(),
			close: () => resolve(),
		},
	});
	await promise;
	expect(await one(await connect(old), "SELECT 1")).toBe("1");
	await using next = await successor(general);
	await old.waitForLog(new RegExp(`goes on as process ${next.pid}`));
});

linuxOnly(
	"one that was handed its sockets refuses who comes once it stops, and the port is free for another",
	async () => {
		const general = { port: freePort() };
		await using old = await startProxy(options(general));
		await using next = await successor(general);
		expect(await old.exited).toBe(0);
		await using busy = await connect(next);
		await busy.query("BEGIN");
		next.signal("SIGTERM");
		await next.waitForLog(/is shutting down/);
		await until(() => isRefused(general.port), "connections to be refused");
		await using after = await startProxy(options(general));
		expect(await one(await connect(after), "SELECT 1")).toBe("1");
		expect((await busy.query("COMMIT")).tags).toEqual(["COMMIT"]);
		expect(await next.exited).toBe(0);
	},
);

linuxOnly("a new process that is told to stop before it listens leaves the old one in its place", async () => {
	const general = { port: freePort() };
	await using old = await startProxy(options(general));
	// So many threads take a while, in which the signal comes.
	await using next = new Proxy({ ...options({ ...general, workers: 12 }), args: ["--takeover"] });
	await catchesSignals(next);
	next.signal("SIGTERM");
	expect(await next.exited).toBe(0);
	expect(old.log).not.toContain("goes on as process");
	expect(await one(await connect(old), "SELECT 1")).toBe("1");
	await using third = await successor(general);
	await old.waitForLog(new RegExp(`goes on as process ${third.pid}`));
});

linuxOnly("a signal while the other process is waited for is no answer", async () => {
	const general = { port: freePort() };
	await using old = await startProxy(options(general));
	old.signal("SIGSTOP");
	await using next = new Proxy({ ...options(general), args: ["--takeover"] });
	await catchesSignals(next);
	// Some of them come while it waits.
	for (let i = 0; i < 20; i++) {
		next.signal("SIGHUP");
		await Bun.sleep(10);
	}
	old.signal("SIGCONT");
	await next.waitForLog(/PgDog listening on/);
	await old.waitForLog(new RegExp(`goes on as process ${next.pid}`));
	expect(next.log).not.toContain("does not say that it makes way");
});

linuxOnly("a stop of the old process remains one where another takes its place just then", async () => {
	const general = { port: freePort() };
	await using old = await startProxy(options(general));
	await using busy = await connect(old);
	await busy.query("BEGIN");
	const over = Promise.withResolvers<void>();
	await Bun.connect({
		unix: takeover_socket,
		socket: {
			open: (socket) => void socket.write("takeover\n"),
			data: (socket, chunk) => {
				if (chunk.toString() === "yours\n") return void socket.end();
				old.signal("SIGTERM");
				void old.waitForLog(/is shutting down/).then(() => socket.write("listening\n"));
			},
			close: () => over.resolve(),
		},
	});
	await over.promise;
	expect(old.log).not.toContain("goes on as process");
	expect((await busy.query("COMMIT")).tags).toEqual(["COMMIT"]);
	expect(await old.exited).toBe(0);
});

linuxOnly("what cannot be opened after a takeover keeps nothing else from being opened", async () => {
	const general = { port: freePort(), unix_socket_dir: folder };
	await using old = await startProxy(options(general));
	using taken = Bun.serve({ port: 0, hostname: "0.0.0.0", fetch: () => new Response() });
	await using next = await successor({ ...general, healthcheck_port: taken.port });
	await old.waitForLog(new RegExp(`goes on as process ${next.pid}`));
	await next.waitForLog(new RegExp(`takeover: cannot listen on 0.0.0.0:${taken.port}`));
	expect(existsSync(join(folder, `.s.PGSQL.${general.port}`))).toBe(true);
	await using _third = await successor(general);
	await next.waitForLog(/goes on as process/);
});

linuxOnly("a new process that hangs is given up: the old one goes on, and it goes", async () => {
	const general = { port: freePort(), takeover_timeout: 1_500 };
	await using old = await startProxy(options(general));
	// So many threads take a while, in which it is stopped.
	await using next = new Proxy({ ...options({ ...general, workers: 12 }), args: ["--takeover"] });
	await until(() => socketsOf(next).intersection(socketsOf(old)).size > 0, "it to have sockets of the old one");
	next.signal("SIGSTOP");
	await old.waitForLog(
		new RegExp(`takeover refused: process ${next.pid} does not listen within 1.5 s \\(takeover_timeout\\)`),
	);
	expect(await one(await connect(old), "SELECT 1")).toBe("1");
	next.signal("SIGCONT");
	expect(await next.exited).toBe(1);
	expect(next.log).toContain("takeover: the running process says: refused: process");
	expect(await one(await connect(old), "SELECT 1")).toBe("1");
	await using third = await successor(general);
	await old.waitForLog(new RegExp(`goes on as process ${third.pid}`));
});

linuxOnly("the Unix socket goes over, too: its file is there all the time", async () => {
	const general = { port: freePort(), unix_socket_dir: folder, unix_socket_mode: "0700" };
	const unix = join(folder, `.s.PGSQL.${general.port}`);
	const login = { unix, user: "pgdog", password: "pgdog", database: "pgdog" };
	const proxies = [await startProxy(options(general))];
	const { ino } = statSync(unix);
	for (let i = 0; i < 2; i++) {
		const next = await successor(general);
		await proxies.at(-1)!.waitForLog(new RegExp(`goes on as process ${next.pid}`));
		expect(statSync(unix).ino).toBe(ino);
		proxies.push(next);
		await using client = await RawClient.connect(login);
		expect(await one(client, "SELECT 1")).toBe("1");
	}
	// Another folder from now on: what is left there is nobody's.
	const last = await successor({ port: general.port });
	expect(existsSync(unix)).toBe(false);
	await last.stop("SIGTERM");
	for (const proxy of proxies) expect(await proxy.exited).toBe(0);
});

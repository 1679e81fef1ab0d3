// What systemd is told, by a socket of the test's own, and which sockets it is taken to have passed on.

import { afterAll, describe, expect, test } from "bun:test";
import { fstatSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Contain } from "../../src/contain.ts";
import { ServiceManager } from "../../src/net/service-manager.ts";
import { Datagrams } from "../support/datagrams.ts";
import { until } from "../support/until.ts";

const linux = process.platform === "linux";
const folder = mkdtempSync(join(tmpdir(), "pgdog-net-manager-"));
afterAll(() => rmSync(folder, { recursive: true }));

const contain = new Contain(
	(error) => {
		throw error;
	},
	() => {},
);

describe.skipIf(!linux)("who is to be told", () => {
	test.each(["a path", "an abstract name"])("hears of each step, at %s", (kind) => {
		const name = kind === "a path" ? join(folder, "steps") : `@pgdog-net-manager-${process.pid}`;
		using manager = new Datagrams(name);
		const service = new ServiceManager({ NOTIFY_SOCKET: name });
		service.ready();
		service.reloading();
		service.stopping(1500);
		service.stopping(Number.POSITIVE_INFINITY);
		const [ready, reloading, ...stopping] = manager.read();
		expect(ready).toBe("READY=1");
		expect(reloading).toMatch(/^RELOADING=1\nMONOTONIC_USEC=[1-9]\d+$/);
		const most = Number.MAX_SAFE_INTEGER;
		expect(stopping).toEqual([1_500_000, most].map((time) => `STOPPING=1\nEXTEND_TIMEOUT_USEC=${time}`));
	});

	test("hears of a status once", () => {
		using manager = new Datagrams(join(folder, "status"));
		const service = new ServiceManager({ NOTIFY_SOCKET: join(folder, "status"), WATCHDOG_USEC: "0" });
		for (const status of ["well", "well", "ill"]) {
			const timers = service.attend(contain, { isWell: () => true, status: () => status });
			// Nobody watches.
			expect(timers.length).toBe(1);
			for (const timer of timers) clearInterval(timer);
		}
		expect(manager.read()).toEqual(["STATUS=well", "STATUS=ill"]);
	});

	test.each([
		[undefined, 2],
		[String(process.pid), 2],
		["1", 1],
	])("is fed as a watchdog where it watches us: process %p", (pid, timers) => {
		using manager = new Datagrams(join(folder, `dog-${pid}`));
		const env = { NOTIFY_SOCKET: join(folder, `dog-${pid}`), WATCHDOG_USEC: "60000000", WATCHDOG_PID: pid };
		const started = new ServiceManager(env).attend(contain, { isWell: () => true, status: () => "" });
		for (const timer of started) clearInterval(timer);
		expect(started.length).toBe(timers);
		expect(manager.read()).toEqual([]);
	});

	test("who is not there any more costs nothing", () => {
		const path = join(folder, "gone");
		new Datagrams(path)[Symbol.dispose]();
		new ServiceManager({ NOTIFY_SOCKET: path }).ready();
		new ServiceManager({ NOTIFY_SOCKET: join(folder, "never", "was") }).ready();
	});
});

test("where nobody is to be told nothing is asked", () => {
	const service = new ServiceManager({ NOTIFY_SOCKET: "", WATCHDOG_USEC: "1000" });
	const attended = {
		isWell: (): boolean => {
			throw new Error("asked");
		},
		status: (): string => {
			throw new Error("asked");
		},
	};
	expect(service.attend(contain, attended)).toEqual([]);
	service.ready();
	service.reloading();
	service.stopping(1000);
});

test.skipIf(!linux)("the watchdog is not fed while a thread does not come back", async () => {
	const path = join(folder, "stuck");
	using manager = new Datagrams(path);
	let isWell = false;
	let asked = 0;
	const attended = {
		isWell: () => {
			asked++;
			return isWell;
		},
		status: () => "",
	};
	const service = new ServiceManager({ NOTIFY_SOCKET: path, WATCHDOG_USEC: "2000" });
	const timers = service.attend(contain, attended);
	await until(() => asked > 5, "it to have been due some times");
	expect(manager.read()).toEqual([]);
	isWell = true;
	await manager.until(/^WATCHDOG=1$/);
	for (const timer of timers) clearInterval(timer);
});

describe("sockets that are passed on", () => {
	const LISTEN_PID = String(process.pid);

	test.each([
		{},
		{ LISTEN_FDS: "2" },
		{ LISTEN_FDS: "2", LISTEN_PID: "1" },
		{ LISTEN_FDS: "2", LISTEN_PID: "" },
		{ LISTEN_FDS: "0", LISTEN_PID },
		{ LISTEN_FDS: "", LISTEN_PID },
		{ LISTEN_FDS: "many", LISTEN_PID },
		{ LISTEN_PID },
	])("are none for us: %j", (env) => {
		const { sockets, unix } = new ServiceManager(env);
		expect([sockets, unix]).toEqual([[], null]);
	});

	// What a test process has as descriptor 3 is no socket that listens.
	test.each([
		[{}, "unknown"],
		[{ LISTEN_FDNAMES: "" }, "unknown"],
		[{ LISTEN_FDNAMES: "web:other" }, "web"],
	])("are named where they are no sockets to listen on: %j", (env, name) => {
		const why = `LISTEN_FDS: descriptor 3 (${name}) is no TCP or Unix socket that listens`;
		expect(() => new ServiceManager({ ...env, LISTEN_PID, LISTEN_FDS: "1" })).toThrow(why);
	});

	test.skipIf(!linux)("are taken, from descriptor 3 on, with what they have in their queue", async () => {
		const sockets = { data() {} };
		using tcp = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: sockets });
		using unix = Bun.listen({ unix: join(folder, "passed"), socket: sockets });
		using another = Bun.listen({ unix: join(folder, "another"), socket: sockets });
		const program = `
			const { ServiceManager } = await import(${JSON.stringify(join(import.meta.dir, "../../src/net/service-manager.ts"))});
			const env = { LISTEN_PID: String(process.pid), LISTEN_FDNAMES: "local:web:another:file" };
			for (const LISTEN_FDS of ["1", "2", "3", "4"]) {
				try {
					const { sockets, unix } = new ServiceManager({ ...env, LISTEN_FDS });
					console.log(JSON.stringify({ sockets, unix }));
				} catch ({ message }) {
					console.log(message);
				}
			}`;
		const fds = [unix, tcp, another].map((each) => (each as unknown as { fd: number }).fd);
		const child = Bun.spawn([process.execPath, "-e", program], { stdio: ["ignore", "pipe", "inherit", ...fds] });
		const passed = { path: join(folder, "passed"), fd: 3, isManaged: true };
		const tooMany = `LISTEN_FDS: descriptor 5 (another) is one Unix socket too many: clients come by ${passed.path}`;
		expect((await child.stdout.text()).trim().split("\n")).toEqual([
			JSON.stringify({ sockets: [], unix: passed }),
			JSON.stringify({ sockets: [4], unix: passed }),
			tooMany,
			tooMany,
		]);
		expect(fstatSync(fds[0]!).isSocket()).toBe(true);
	});
});

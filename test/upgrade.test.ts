// A new executable that is started in place of this process: the proxy and the log are played, the executable is Bun itself, run by
// scripts in place of the command line's flags.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Contain } from "../src/contain.ts";
import type { Log } from "../src/log.ts";
import { ServiceManager } from "../src/net/service-manager.ts";
import { Upgrade } from "../src/upgrade.ts";
import { Datagrams } from "./support/datagrams.ts";
import { until } from "./support/until.ts";

setDefaultTimeout(30_000);

const linux = process.platform === "linux";
const folder = mkdtempSync(join(tmpdir(), "pgdog-upgrade-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** ms that nothing here takes. */
const LONG = 1_000_000;

/** Pids of this process, as a service manager says them. */
const NAMES = ["WATCHDOG_PID", "LISTEN_PID"];

/** What Bun, which has no flag `--takeover`, is to run. */
function script(name: string, text: string): string[] {
	const path = join(folder, name);
	writeFileSync(path, text);
	return ["--takeover", path];
}

function parts(name: string, pid?: number) {
	const lines: string[] = [];
	const say = (line: string) => void lines.push(line);
	const timers: Timer[] = [];
	const contain = new Contain(
		(error) => say(String(error)),
		() => {},
	);
	const later = contain.later.bind(contain);
	let fired = 0;
	contain.later = (delay, connection, work) => {
		const timer = later(delay, connection, () => {
			work();
			fired++;
		});
		timers.push(timer);
		return timer;
	};
	const proxy = { contain, isServing: true, takeover: { isOpen: true } };
	const manager = new Datagrams(join(folder, name));
	const service = new ServiceManager({ NOTIFY_SOCKET: join(folder, name) });
	const upgrade = new Upgrade({ info: say, warn: say, error: say } as unknown as Log, service, pid);
	return {
		lines,
		proxy,
		manager,
		service,
		upgrade,
		get fired() {
			return fired;
		},
		[Symbol.dispose]() {
			for (const timer of timers) clearTimeout(timer);
			manager[Symbol.dispose]();
		},
	};
}

const told = ({ manager }: { manager: Datagrams }) => manager.read().map((each) => each.split("\n")[0]);
const hangs = () => script("hangs.ts", "setInterval(() => {}, 1_000);");
const goes = /: this process goes on$/;

describe.skipIf(!linux)("an executable that is to take over", () => {
	test.each([
		["starts or stops", { isServing: false }, undefined, /while the proxy starts, stops/],
		["has no takeover_socket", { takeover: { isOpen: false } }, undefined, /listens on no takeover_socket/],
		["is process 1", {}, 1, /process 1 of a container/],
	])("is not started where the proxy %s", (kind, state, pid, why) => {
		using all = parts(`not-${kind.at(-1)}`, pid);
		all.upgrade.begin({ ...all.proxy, ...state }, hangs(), LONG);
		expect(all.lines.length).toBe(1);
		expect(all.lines[0]).toMatch(why);
		expect([told(all), all.service.heir]).toEqual([[], null]);
	});

	test("has the environment without whom others watch and pass sockets on to, and one that ends is no heir any more", async () => {
		using all = parts("environment");
		for (const name of NAMES) process.env[name] = "1";
		const seen = join(folder, "seen");
		const text = `await Bun.write(${JSON.stringify(seen)}, [process.env.WATCHDOG_PID, process.env.LISTEN_PID, process.env.PATH].join()); process.exit(3);`;
		all.upgrade.begin(all.proxy, script("ends.ts", text), LONG);
		for (const name of NAMES) delete process.env[name];
		await until(() => all.lines.length === 2, "its end");
		expect(all.lines[1]).toEndWith("has ended with exit code 3: this process goes on");
		expect(await Bun.file(seen).text()).toBe(`,,${process.env.PATH}`);
		expect([told(all), all.service.heir]).toEqual([["RELOADING=1", "READY=1"], null]);
	});

	test("is killed when it takes too long, and is the only one until then", async () => {
		using all = parts("hangs");
		all.upgrade.begin(all.proxy, hangs(), 300);
		all.upgrade.begin(all.proxy, hangs(), 300);
		expect(all.lines[1]).toMatch(/or is being replaced/);
		await until(() => all.lines.length === 3, "its end");
		expect(all.lines[2]).toMatch(/has ended with SIGKILL: this process goes on$/);
		expect(told(all)).toEqual(["RELOADING=1", "READY=1"]);
	});

	test.each(["stops", "fails"] as const)("ends with the process that %s before it has taken over", async (how) => {
		using all = parts(`before-${how}`);
		all.upgrade.begin(all.proxy, hangs(), LONG);
		all.proxy.isServing = false;
		if (how === "stops") all.service.stopping(1);
		else all.service.endHeir();
		await until(() => all.service.heir === null, "its end");
		expect(all.lines.filter((line) => goes.test(line))).toEqual([]);
		expect(told(all)).toEqual(how === "stops" ? ["RELOADING=1", "STOPPING=1"] : ["RELOADING=1"]);
	});

	test("stays when the process stops after it has taken over, however late that is, and its end is not ours", async () => {
		using all = parts("after");
		all.upgrade.begin(all.proxy, hangs(), 1);
		const heir = all.service.heir!;
		all.service.passOn(heir.pid);
		all.proxy.isServing = false;
		all.service.stopping(1);
		await until(() => all.fired === 1, "its time to be over");
		expect(all.service.heir).toBe(heir);
		heir.kill("SIGKILL");
		await until(() => all.service.heir === null, "its end");
		expect(all.lines.length).toBe(1);
		expect(told(all)).toEqual(["RELOADING=1", `MAINPID=${heir.pid}`]);
	});
});

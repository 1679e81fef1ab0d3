// One process, many threads: init and fini once, route everywhere, one state; and who is to blame when a plugin brings all down.

import { beforeAll, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { HostDescription } from "../../src/plugin/abi.ts";
import type { Bridge } from "../../src/plugin/bridge.ts";
import { PluginHost } from "../../src/plugin/host.ts";
import {
	BUILD_TIMEOUT,
	bridge,
	buildFixture,
	copy,
	describeWithCargo,
	FIXTURES,
	folder,
	forge,
	Lines,
	load,
} from "./support.ts";

interface Report {
	counted: number[];
	wrong: number;
	deep: number;
	inits: number;
}

describeWithCargo("plugins in many threads", () => {
	let native: Bridge;
	let mine: string;
	let other: string;

	beforeAll(() => {
		native = bridge();
		mine = buildFixture("witness");
		other = buildFixture("other_plugin");
	}, BUILD_TIMEOUT);

	const inWorker = (description: HostDescription, thread: number, count: number) =>
		new Promise<Report>((resolve, reject) => {
			const worker = new Worker(join(FIXTURES, "worker.ts"));
			worker.onmessage = ({ data }: MessageEvent<Report>) => {
				worker.terminate();
				resolve(data);
			};
			worker.onerror = (event) => reject(new Error(event.message));
			worker.postMessage({ description, thread, count });
		});

	test("route runs in every thread at once and all share the plugin's state", async () => {
		const description = load(native, [copy(mine, join(folder(), "libshared.so"))]);
		new PluginHost(description, { log: new Lines(false) }).init();
		const count = 3000;
		const reports = await Promise.all([0, 1, 2].map((thread) => inWorker(description, thread, count)));
		for (const { wrong, deep, inits } of reports)
			expect({ wrong, deep, inits }).toEqual({ wrong: 0, deep: 1, inits: 1 });
		const counted = reports.flatMap((report) => report.counted).sort((a, b) => a - b);
		expect(counted).toEqual(Array.from({ length: 3 * count }, (_, i) => i));
	}, 60_000);

	const inProcess = (plugins: string[], env: Record<string, string> = {}) => {
		const result = Bun.spawnSync([process.execPath, join(FIXTURES, "process.ts"), ...plugins], {
			env: { ...process.env, ...env },
		});
		return { code: result.exitCode, out: result.stdout.toString(), lines: result.stderr.toString().trim().split("\n") };
	};

	test("standard error still works while and after statements are parsed", () => {
		const { code, lines } = inProcess([other]);
		expect(code).toBe(0);
		expect(lines.at(-1)).toBe(`plugin "${other}": calling route`);
	});

	test("init and fini run once, in the order of the file", () => {
		const notes = join(folder(), "notes");
		const second = copy(mine, join(folder(), "libsecond.so"));
		const { code, out, lines } = inProcess([mine, other, second], { WITNESS_NOTES: notes });
		expect(code).toBe(0);
		expect(JSON.parse(out)).toMatchObject({ shard: 1, plugin: mine });
		expect(readFileSync(notes, "utf8")).toBe("witness init\nwitness init\nwitness fini\nwitness fini\n");
		expect(lines.filter((line) => line.includes("calling"))).toEqual([
			`plugin "${mine}": calling init`,
			`plugin "${second}": calling init`,
			`plugin "${mine}": calling route`,
			`plugin "${mine}": calling fini`,
			`plugin "${second}": calling fini`,
		]);
	});

	test("when init panics, the last line of ours names the plugin", () => {
		const { code, lines } = inProcess([other, mine], { WITNESS_PANICS: "1" });
		expect(code).not.toBe(0);
		expect(lines.filter((line) => line.startsWith("plugin ")).at(-1)).toBe(`plugin "${mine}": calling init`);
		expect(lines.join("\n")).toContain("told to");
	});

	test("when route aborts, the last line of ours names the plugin", () => {
		const file = forge(join(folder(), "libaborts.so"), { rustc: native.rustc, pgQuery: native.pgQuery });
		const { code, out, lines } = inProcess([file, other], { SHARDS: "6" });
		expect(code).not.toBe(0);
		expect(out).toBe("");
		expect(lines.filter((line) => line.startsWith("plugin ")).at(-1)).toBe(`plugin "${file}": calling route`);
		expect(existsSync(file)).toBe(true);
	});
});

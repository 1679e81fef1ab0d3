// Libraries that must not be called, each with the line that says why; and those beside them, which must.

import { beforeAll, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Outcome } from "../../src/plugin/abi.ts";
import type { Bridge } from "../../src/plugin/bridge.ts";
import { PluginHost } from "../../src/plugin/host.ts";
import { loadPlugins, RequiredPluginError } from "../../src/plugin/loader.ts";
import { surroundings } from "../../src/plugin/resolve.ts";
import {
	BUILD_TIMEOUT,
	bridge,
	buildFixture,
	copy,
	describeWithCargo,
	folder,
	forge,
	input,
	Lines,
	load,
} from "./support.ts";

test("a build without a bridge says so of every plugin, and refuses to start for a required one", () => {
	const log = new Lines();
	const { plugins } = load(null, ["a", "b"], log);
	expect(plugins).toEqual([]);
	expect(log.lines).toEqual(
		["a", "b"].map(
			(name) =>
				`ERROR plugin "${name}" failed to load: this build of PgDog has no support for Rust plugins (it was built without cargo)`,
		),
	);
	expect(() => loadPlugins([{ name: "a", required: true }], null, { log })).toThrow(RequiredPluginError);
	const twice = [false, true].map((required) => ({ name: "a", required }));
	expect(() => loadPlugins(twice, null, { log })).toThrow(RequiredPluginError);
	const host = new PluginHost(load(null, []), { log });
	expect(host.active).toBe(false);
	expect(host.route(input("SELECT 1")).outcome).toBe(Outcome.Unknown);
	host.init();
	host.fini();
});

describeWithCargo("libraries that fail a check", () => {
	let native: Bridge;
	let good: string;
	let place: string;

	beforeAll(() => {
		native = bridge();
		good = buildFixture("witness");
		place = folder();
	}, BUILD_TIMEOUT);

	/** Loads `file` between two good ones; returns its line. The good ones must work. */
	const refused = (file: string): string => {
		const first = copy(good, join(folder(), "libfirst.so"));
		const last = copy(good, join(folder(), "liblast.so"));
		const log = new Lines();
		const description = load(native, [first, file, last], log);
		expect(description.plugins.map((plugin) => plugin.name)).toEqual([first, last]);
		const host = new PluginHost(description, { log: new Lines(false) });
		host.init();
		expect(host.route(input("SELECT 'inits'")).shard).toBe(1);
		const lines = log.lines.filter((line) => /^(WARN|ERROR)/.test(line));
		expect(lines.length).toBe(1);
		const required = () =>
			loadPlugins([{ name: file, required: true }], native, { log, surroundings: { ...surroundings(), env: {} } });
		expect(required).toThrow(RequiredPluginError);
		expect(required).toThrow("; it is required, so PgDog does not start");
		return (lines[0] as string).replaceAll(file, "FILE");
	};
	const damaged = (name: string, change: (bytes: Buffer) => Uint8Array): string => {
		const file = join(place, name);
		writeFileSync(file, change(readFileSync(good)));
		return file;
	};
	const sound = () => ({ rustc: native.rustc, pgQuery: native.pgQuery });

	test("a file that is missing", () => {
		expect(refused(join(place, "libmissing.so"))).toBe('ERROR plugin "FILE" failed to load: no such file, tried FILE');
		expect(refused("pgdog_no_such_plugin")).toMatch(
			/^ERROR plugin "FILE" failed to load: no such file, tried \/.*\/libFILE\.so/,
		);
	});

	test("a text file, an empty file, a folder", () => {
		expect(refused(damaged("libtext.so", () => Buffer.from("hello\n".repeat(5000))))).toContain(
			"it is not a shared library (no ELF header)",
		);
		expect(refused(damaged("libempty.so", () => Buffer.alloc(0)))).toContain(
			"it is not a shared library (no ELF header)",
		);
		mkdirSync(join(place, "libfolder.so"));
		expect(refused(join(place, "libfolder.so"))).toContain("no such file");
	});

	test("a library cut short, at any place", () => {
		const size = readFileSync(good).length;
		for (const keep of [100, 5000, size >> 1, size - 5000, size - 1]) {
			expect(refused(damaged("libshort.so", (bytes) => bytes.subarray(0, keep)))).toMatch(
				/it is cut short|program headers/,
			);
		}
	});

	test("a library for another processor", () => {
		const other = process.arch === "x64" ? 183 : 62;
		const forged = damaged("libarch.so", (bytes) => {
			bytes.writeUInt16LE(other, 18);
			return bytes;
		});
		expect(refused(forged)).toMatch(
			/failed to load: FILE: it is a library for (aarch64|x86-64), expected (x86-64|aarch64)/,
		);
	});

	test("a library whose inside is damaged", () => {
		const forged = damaged("libdynamic.so", (bytes) => {
			// The dynamic section (program header of type 2) becomes nothing: no symbols, no strings.
			const at = Number(bytes.readBigUInt64LE(32));
			for (let i = 0; i < bytes.readUInt16LE(56); i++) {
				const header = at + i * bytes.readUInt16LE(54);
				if (bytes.readUInt32LE(header) === 2) bytes.writeUInt32LE(0, header);
			}
			return bytes;
		});
		expect(refused(forged)).toContain('plugin "FILE" failed to load: ');
	});

	test("a library without the symbols", () => {
		const bare = forge(join(place, "libbare.so"), {}, ["no_rustc", "no_pg_query", "no_route"]);
		expect(refused(bare)).toBe(
			`WARN skipping plugin "FILE" because it doesn't expose its Rust compiler version, expected ${native.rustc}`,
		);
		const half = forge(join(place, "libhalf.so"), sound(), ["no_pg_query"]);
		expect(refused(half)).toBe(
			`WARN skipping plugin "FILE" because it doesn't expose its pg_query version, expected ${native.pgQuery}`,
		);
	});

	test("another compiler", () => {
		const old = forge(join(place, "librustc.so"), { ...sound(), rustc: "rustc 1.80.0 (051478957 2024-07-21)" });
		expect(refused(old)).toBe(
			`WARN skipping plugin "FILE" because it was compiled with different compiler version (rustc 1.80.0 (051478957 2024-07-21)), expected ${native.rustc}`,
		);
		expect(refused(forge(join(place, "libnorustc.so"), { ...sound(), rustc: "" }))).toContain(
			"different compiler version ()",
		);
	});

	test("another pg_query, told by its symbol or by what the compiler left in the file", () => {
		const old = forge(join(place, "libpgquery.so"), { ...sound(), pgQuery: "6.0.0" });
		expect(refused(old)).toBe(
			`WARN skipping plugin "FILE" because it was compiled with different pg_query version (6.0.0), expected ${native.pgQuery}`,
		);
		// A plugin whose code can panic inside pg_query names its source; whoever reads less of the tree leaves no trace.
		const trace = (version: string) => Buffer.from(`/registry/src/pg_query-${version}/src/protobuf.rs`);
		const silent = damaged("libsilent.so", (bytes) => Buffer.concat([bytes, trace("6.1.1")]));
		expect(refused(silent)).toContain(`different pg_query version (6.1.1), expected ${native.pgQuery}`);
		const same = damaged("libsame.so", (bytes) => Buffer.concat([bytes, trace(native.pgQuery)]));
		expect(load(native, [same]).plugins.length).toBe(1);
	});

	test("versions of garbage", () => {
		const line = refused(forge(join(place, "libendless.so"), { ...sound(), rustc: "endless" }));
		expect(line).toContain("different compiler version (not text)");
		const odd = refused(forge(join(place, "libodd.so"), { ...sound(), rustc: `\u0007\n${"é".repeat(200)}` }));
		expect(odd).toContain(`different compiler version (??${"?".repeat(98)}…)`);
	});

	test("a library that is empty of a pg_query version, or of a route, is taken", () => {
		const log = new Lines();
		const empty = forge(join(place, "libemptyversion.so"), { ...sound(), pgQuery: "" });
		const idle = forge(join(place, "libidle.so"), sound(), ["no_route"]);
		expect(load(native, [empty, idle], log).plugins.map((plugin) => plugin.name)).toEqual([empty, idle]);
		expect(log.lines).toContain(`WARN plugin "${idle}" has no pgdog_route, it will never decide`);
		expect(new PluginHost(load(native, [idle]), { log }).active).toBe(false);
	});

	test("the same name, and the same file under another, is loaded once", () => {
		const log = new Lines();
		const { plugins } = load(native, [good, good, join(good, "../../release/witness")], log);
		expect(plugins.map((plugin) => plugin.name)).toEqual([good]);
		expect(log.lines.filter((line) => line.startsWith("WARN"))).toEqual([
			`WARN plugin "${good}" is listed more than once, it is loaded once`,
			`WARN skipping plugin "${join(good, "../../release/witness")}" because ${good} is loaded already, as plugin "${good}"`,
		]);
	});

	test("a loaded plugin says which file it is, its version and how long it took", () => {
		const log = new Lines();
		const where = { ...surroundings(), env: { LD_LIBRARY_PATH: join(good, "..") } };
		const entries = [{ name: "witness", required: true }];
		const host = new PluginHost(loadPlugins(entries, native, { log, surroundings: where }), { log });
		host.init();
		expect(log.lines).toEqual([
			`INFO plugin "witness" is ${good}`,
			`DEBUG plugin "witness": opening ${good}`,
			'DEBUG plugin "witness": calling init',
			'DEBUG plugin "witness" initialized',
			expect.stringMatching(/^INFO loaded "witness" plugin \(v1\.2\.3\) \[\d+\.\d{4}ms\]$/),
		]);
		expect(() => host.init()).toThrow("once per process");
		log.lines.length = 0;
		host.route(input("SELECT 1"));
		host.fini();
		host.fini();
		expect(log.lines).toEqual([
			'DEBUG plugin "witness": calling route',
			'DEBUG plugin "witness": calling fini',
			'DEBUG plugin "witness" finished',
		]);
	});
});

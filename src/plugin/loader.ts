// Loads the Rust plugins that `[[plugins]]` names: finds each file, checks it step by step, and describes what may be called.
// Called once by `main.ts`, before any listener opens; the description goes to `PluginHost` here and in every worker thread.
// A plugin that fails a check is skipped with a line that says what was found and what was expected, unless it is required.

import { closeSync, readFileSync, realpathSync } from "node:fs";
import { basename } from "node:path";
import type { PluginEntry } from "../config/snapshot.ts";
import { type HostDescription, NO_PLUGINS, type PluginDescription, type PluginLog } from "./abi.ts";
import type { Bridge } from "./bridge.ts";
import { whyNotALibrary } from "./library-file.ts";
import { inPrivateFolder, memoryFile } from "./private-copy.ts";
import { resolveLibrary, type Surroundings, surroundings } from "./resolve.ts";

/** A plugin with `required = true` did not load: the proxy must not start. `message` is the log line. */
export class RequiredPluginError extends Error {
	override readonly name = "RequiredPluginError";
	readonly plugin: string;

	constructor(plugin: string, why: string) {
		super(why);
		this.plugin = plugin;
	}
}

/** Internal: this plugin is to be left out. */
class Skip {
	readonly level: "warn" | "error";
	readonly message: string;

	constructor(level: "warn" | "error", message: string) {
		this.level = level;
		this.message = message;
	}
}

export interface LoadOptions {
	readonly log: PluginLog;
	/** Where to look; the process's own unless a test says otherwise. */
	readonly surroundings?: Surroundings;
}

/**
 * Loads all plugins in the order of the file. `bridge` is null when this build has none: every plugin then fails.
 * @throws RequiredPluginError
 */
export function loadPlugins(
	entries: readonly PluginEntry[],
	bridge: Bridge | null,
	options: LoadOptions,
): HostDescription {
	const { log } = options;
	const plugins: PluginDescription[] = [];
	const names = new Set<string>();
	const files = new Map<string, string>();
	for (const { name } of entries) {
		if (names.has(name)) {
			log.warn(`plugin "${name}" is listed more than once, it is loaded once`);
			continue;
		}
		names.add(name);
		const required = entries.some((entry) => entry.name === name && entry.required);
		try {
			plugins.push(load(name, required, bridge, options, files));
		} catch (reason) {
			if (!(reason instanceof Skip)) throw reason;
			if (required) throw new RequiredPluginError(name, `${reason.message}; it is required, so PgDog does not start`);
			log[reason.level](reason.message);
		}
	}
	return bridge === null || plugins.length === 0 ? NO_PLUGINS : { bridge: bridge.functions, plugins };
}

function load(
	name: string,
	required: boolean,
	bridge: Bridge | null,
	options: LoadOptions,
	files: Map<string, string>,
): PluginDescription {
	const { log } = options;
	const started = performance.now();
	if (bridge === null) {
		throw new Skip(
			"error",
			`plugin "${name}" failed to load: this build of PgDog has no support for Rust plugins (it was built without cargo)`,
		);
	}
	const { file, tried } = resolveLibrary(name, options.surroundings ?? surroundings());
	if (file === null) {
		throw new Skip("error", `plugin "${name}" failed to load: no such file, tried ${list(tried)}`);
	}
	log.info(`plugin "${name}" is ${file}`);
	const problem = whyNotALibrary(file);
	if (problem !== null) throw new Skip("error", `plugin "${name}" failed to load: ${file}: ${problem}`);
	const identity = realpathSync(file);
	const other = files.get(identity);
	if (other !== undefined)
		throw new Skip("warn", `skipping plugin "${name}" because ${file} is loaded already, as plugin "${other}"`);

	const bytes = read(name, file);
	const number = bridge.number(name);
	// An abort in a constructor leaves this as the last line.
	log.debug(`plugin "${name}": opening ${file}`);
	const library = open(bridge, { name, number, file, bytes }, log);
	if (library === 0) throw new Skip("error", `plugin "${name}" failed to load: ${bridge.lastError()}`);

	const says = (symbol: string): string | null | undefined => {
		const address = bridge.symbol(library, symbol);
		return address === 0 ? undefined : bridge.string(address, number);
	};
	checkVersion(name, says("pgdog_rustc_version"), bridge.rustc, "Rust compiler", "compiler", false);
	const said = says("pgdog_pg_query_version");
	checkVersion(name, said, bridge.pgQuery, "pg_query", "pg_query", true);
	const built = pgQueryVersionsIn(bytes);
	if (built.size > 0 && !built.has(bridge.pgQuery)) {
		throw new Skip("warn", differs(name, "pg_query", [...built].join(", "), bridge.pgQuery));
	}
	if (said === "" && built.size !== 1) {
		const unknown = `plugin "${name}" does not tell which pg_query it was built with: it has to be ${bridge.pgQuery}, or the plugin misreads statements (build it with PGDOG_PGQUERY_VERSION=${bridge.pgQuery})`;
		if (required) throw new Skip("warn", unknown);
		log.warn(unknown);
	}

	files.set(identity, name);
	const route = bridge.symbol(library, "pgdog_route");
	if (route === 0) log.warn(`plugin "${name}" has no pgdog_route, it will never decide`);
	return {
		name,
		number,
		file,
		version: says("pgdog_plugin_version") ?? "",
		loadMilliseconds: performance.now() - started,
		init: bridge.symbol(library, "pgdog_init"),
		fini: bridge.symbol(library, "pgdog_fini"),
		route,
	};
}

function read(name: string, file: string): Buffer {
	try {
		return readFileSync(file);
	} catch (error) {
		throw new Skip("error", `plugin "${name}" failed to load: ${file}: ${(error as Error).message}`);
	}
}

/**
 * Opens the library from a copy that nobody can overwrite; if that fails, from its file: one that finds others by where it lies
 * (`$ORIGIN`) has to be loaded from there.
 * @returns its handle, or 0
 */
function open(
	bridge: Bridge,
	{ name, number, file, bytes }: { name: string; number: number; file: string; bytes: Uint8Array },
	log: PluginLog,
): number {
	const copy = memoryFile(basename(file), bytes, true);
	if (copy !== null) {
		// The file may have been cut short since it was looked at.
		const library = whyNotALibrary(copy.path) === null ? bridge.open(copy.path, number) : 0;
		// The descriptor stays: the loader, debuggers and panics know the library by it.
		if (library !== 0) return library;
		closeSync(copy.descriptor);
	} else {
		const opened = (path: string) => {
			const library = bridge.open(path, number);
			if (library === 0) throw new Error(bridge.lastError());
			return library;
		};
		const { result } = inPrivateFolder(basename(file), bytes, opened);
		if (result !== null) return result;
	}
	const library = bridge.open(file, number);
	if (library !== 0) {
		log.warn(
			`plugin "${name}" runs from ${file} itself, since it cannot be loaded from a copy: to overwrite that file would end PgDog`,
		);
	}
	return library;
}

/** The versions in a library's `pg_query-<version>` source paths, which the compiler leaves in panic messages. */
function pgQueryVersionsIn(bytes: Buffer): Set<string> {
	const versions = new Set<string>();
	for (let at = bytes.indexOf("/pg_query-"); at >= 0; at = bytes.indexOf("/pg_query-", at + 1)) {
		const found = /^\/pg_query-(\d+\.\d+\.\d+[^/\s]{0,20})\/src\//.exec(bytes.toString("latin1", at, at + 64));
		if (found?.[1] !== undefined) versions.add(found[1]);
	}
	return versions;
}

/** `found`: undefined when the symbol is missing, null when it does not say anything sensible. */
function checkVersion(
	name: string,
	found: string | null | undefined,
	expected: string,
	what: string,
	short: string,
	mayBeEmpty: boolean,
): void {
	if (found === undefined) {
		throw new Skip(
			"warn",
			`skipping plugin "${name}" because it doesn't expose its ${what} version, expected ${expected}`,
		);
	}
	if (found === expected || (mayBeEmpty && found === "")) return;
	throw new Skip("warn", differs(name, short, found === null ? "not text" : printable(found), expected));
}

function differs(name: string, what: string, found: string, expected: string): string {
	return `skipping plugin "${name}" because it was compiled with different ${what} version (${found}), expected ${expected}`;
}

/** A library may say anything; the log stays one line. */
function printable(text: string): string {
	const clean = text.replace(/[^\x20-\x7e]/g, "?");
	return clean.length > 100 ? `${clean.slice(0, 100)}…` : clean;
}

const LISTED = 6;

function list(paths: readonly string[]): string {
	const more = paths.length - LISTED;
	return paths.slice(0, LISTED).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

// Loads the Rust plugins that `[[plugins]]` names: finds each file, checks it step by step, and describes what may be called.
// Called once by `main.ts`, before any listener opens; the description goes to `PluginHost` here and in every worker thread.
// A plugin that fails a check is skipped with a line that says what was found and what was expected, unless it is required.

import { realpathSync } from "node:fs";
import type { PluginEntry } from "../config/snapshot.ts";
import { type HostDescription, NO_PLUGINS, type PluginDescription, type PluginLog } from "./abi.ts";
import { type Bridge, pgQueryVersionsIn } from "./bridge.ts";
import { whyNotALibrary } from "./library-file.ts";
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
	for (const { name, required } of entries) {
		if (names.has(name)) {
			log.warn(`plugin "${name}" is listed more than once, it is loaded once`);
			continue;
		}
		names.add(name);
		try {
			plugins.push(load(name, bridge, options, files));
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

	// An abort in a constructor leaves this as the last line.
	log.debug(`plugin "${name}": opening ${file}`);
	const library = bridge.open(file);
	if (library === 0) throw new Skip("error", `plugin "${name}" failed to load: ${bridge.lastError()}`);

	const says = (symbol: string): string | null | undefined => {
		const address = bridge.symbol(library, symbol);
		return address === 0 ? undefined : bridge.string(address);
	};
	checkVersion(name, says("pgdog_rustc_version"), bridge.rustc, "Rust compiler", "compiler", false);
	checkVersion(name, says("pgdog_pg_query_version"), bridge.pgQuery, "pg_query", "pg_query", true);
	const built = pgQueryVersionsIn(file);
	if (built.size > 0 && !built.has(bridge.pgQuery)) {
		throw new Skip("warn", differs(name, "pg_query", [...built].join(", "), bridge.pgQuery));
	}

	files.set(identity, name);
	const route = bridge.symbol(library, "pgdog_route");
	if (route === 0) log.warn(`plugin "${name}" has no pgdog_route, it will never decide`);
	return {
		name,
		file,
		version: says("pgdog_plugin_version") ?? "",
		loadMilliseconds: performance.now() - started,
		init: bridge.symbol(library, "pgdog_init"),
		fini: bridge.symbol(library, "pgdog_fini"),
		route,
	};
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

// The program's entry: flags, configuration, plugins and signals. Then it runs a Proxy (proxy.ts), or does what a subcommand asks
// for. Nothing here serves a client: what it does may be slow and pretty.

import { readFileSync } from "node:fs";
import { PasswordError, readPassword } from "./auth/password-prompt.ts";
import { hashPassword } from "./auth/verifier.ts";
import { type CommandLine, type Files, parseCommandLine } from "./cli.ts";
import { explainLogin } from "./config/hba.ts";
import { type Loaded, load, type Overrides } from "./config/load.ts";
import { problemText } from "./config/problem.ts";
import { learns } from "./config/resolve.ts";
import type { PluginEntry, Snapshot } from "./config/snapshot.ts";
import { systemdUnit } from "./config/systemd-unit.ts";
import { createLog, type Log, type LogFormat } from "./log.ts";
import { raiseDescriptorLimit } from "./net/options.ts";
import { ServiceManager } from "./net/service-manager.ts";
import { Lines } from "./net/standard-error.ts";
import { Takeover } from "./net/takeover.ts";
import { type HostDescription, NO_PLUGINS, PLUGIN_CRATES } from "./plugin/abi.ts";
import { type Bridge, BridgeError, findBridge, openBridge } from "./plugin/bridge.ts";
import { loadPlugins, RequiredPluginError } from "./plugin/loader.ts";
import { type Passed, Proxy } from "./proxy.ts";
import { routeFile } from "./route-file.ts";
import { Upgrade } from "./upgrade.ts";
import { versionLine } from "./version.ts";

/** ms that a new executable may take until it comes to take over; then it has `takeover_timeout`. A guess. */
const UPGRADE_PATIENCE = 60_000;

async function main(command: CommandLine): Promise<number> {
	switch (command.kind) {
		case "help":
			process.stdout.write(command.text);
			return 0;
		case "usage":
			process.stderr.write(command.text);
			return 2;
		case "version":
			process.stdout.write(`${versionLine()}\n`);
			return 0;
		case "hash":
			return hash(command.password);
		case "plugin-info":
			return pluginInfo();
		case "install":
			process.stdout.write(systemdUnit(process.execPath, command.files, command.upgrades, command.waits));
			return 0;
		case "configcheck":
			return check(command);
		case "route":
			return route(command);
		case "run":
			return run(command);
	}
}

function read(files: Files, overrides: Overrides, before?: Snapshot): Loaded {
	return load({
		configPath: files.configPath,
		configNamed: files.configNamed,
		...(files.usersPath === undefined ? {} : { usersPath: files.usersPath }),
		databaseUrls: files.databaseUrls,
		overrides,
		env: process.env,
		...(before === undefined ? {} : { before }),
	});
}

/** Logs what is wrong with the files. @returns their snapshot, or null when there are problems */
function report(loaded: Loaded, log: Log): Snapshot | null {
	for (const note of loaded.notes) log.info(note);
	if (loaded.ok) {
		for (const warning of loaded.snapshot.warnings) log.warn(warning);
		if (loaded.snapshot.clusters.length === 0 && !learns(loaded.snapshot))
			log.warn("there is no pool: nobody but the admin can connect");
		return loaded.snapshot;
	}
	for (const warning of loaded.warnings) log.warn(warning);
	for (const problem of loaded.problems) log.error(problemText(problem));
	return null;
}

function check({ files, login }: Extract<CommandLine, { kind: "configcheck" }>): number {
	const log = createLog("text", "info", lines);
	const snapshot = report(read(files, {}), log);
	if (snapshot === null) return 1;
	log.info("✅ config valid");
	if (login === undefined) return 0;
	const { text, isRefused } = explainLogin(snapshot, login);
	process.stdout.write(`${text}\n`);
	return isRefused ? 3 : 0;
}

function route({ files, file, database }: Extract<CommandLine, { kind: "route" }>): number {
	// What is fine need not be told: the answer is on standard output.
	const snapshot = report(read(files, {}), createLog("text", "warn", lines));
	if (snapshot === null) return 1;
	try {
		const { text, isRefused } = routeFile(snapshot, database, readFileSync(file === "-" ? 0 : file, "utf8"));
		process.stdout.write(text);
		return isRefused ? 1 : 0;
	} catch (error) {
		process.stderr.write(`${(error as Error).message}\n`);
		return 1;
	}
}

async function hash(given: string | null): Promise<number> {
	try {
		const password = given ?? (await readPassword(process.stdin, process.stderr));
		process.stdout.write(`${await hashPassword(password)}\n`);
		return 0;
	} catch (error) {
		if (!(error instanceof PasswordError)) throw error;
		process.stderr.write(`${error.message}\n`);
		return 1;
	}
}

/** @throws BridgeError */
async function bringBridge(): Promise<Bridge | null> {
	const library = await findBridge();
	return library === null ? null : openBridge(library);
}

async function pluginInfo(): Promise<number> {
	try {
		const bridge = await bringBridge();
		if (bridge === null)
			throw new BridgeError("this build has no support for Rust plugins: it was built without cargo");
		process.stdout.write(`${bridge.rustc}\npg_query ${bridge.pgQuery}\npgdog-plugin ${PLUGIN_CRATES}\n`);
		return 0;
	} catch (error) {
		if (!(error instanceof BridgeError)) throw error;
		process.stderr.write(`${error.message}\n`);
		return 1;
	}
}

/** Loads the plugins and logs what happened to each. @returns null when a required one cannot be had: PgDog must not start then */
async function bringPlugins(
	entries: readonly PluginEntry[],
	log: Log,
	format: LogFormat,
): Promise<HostDescription | null> {
	if (entries.length === 0) return NO_PLUGINS;
	try {
		const bridge = await bringBridge();
		if (bridge?.parallel === false) log.warn("the plugin bridge parses for one thread at a time: see plugins/.cargo");
		bridge?.watch(format);
		return loadPlugins(entries, bridge, { log });
	} catch (error) {
		if (!(error instanceof BridgeError || error instanceof RequiredPluginError)) throw error;
		log.error(error.message);
		if (error instanceof RequiredPluginError) return null;
		const required = entries.find((entry) => entry.required);
		if (required === undefined) log.error("no plugin is loaded");
		else log.error(`plugin "${required.name}" is required, so PgDog does not start`);
		return required === undefined ? NO_PLUGINS : null;
	}
}

/** What other processes have for this one. @returns null when that cannot be had, which has been logged */
function bringPassed(takeover: boolean, { general }: Snapshot, log: Log): Passed | null {
	const { takeover_socket, host, port } = general;
	try {
		const service = new ServiceManager(process.env);
		if (!takeover) return { service, predecessor: null };
		if (takeover_socket === undefined) throw new Error("--takeover: general.takeover_socket is not set");
		const predecessor = Takeover.begin(takeover_socket, { host, port });
		if (predecessor === null) log.info(`nobody answers on ${takeover_socket}: there is nothing to take over`);
		return { service, predecessor };
	} catch (error) {
		log.error((error as Error).message);
		return null;
	}
}

async function run({ files, overrides, takeover }: Extract<CommandLine, { kind: "run" }>): Promise<number> {
	raiseDescriptorLimit();
	const loaded = read(files, overrides);
	// Format and level of the log are settings themselves: where the files have mistakes, text at level info.
	const { log_format, log_level } = loaded.ok
		? loaded.snapshot.general
		: ({ log_format: "text", log_level: "info" } as const);
	const log = createLog(log_format, log_level, lines);
	log.info(`🐕 ${versionLine()}`);
	const snapshot = report(loaded, log);
	if (snapshot === null) return 1;
	if (snapshot.admin.generated)
		log.warn("admin password has been randomly generated; set one in [admin] to use the admin database");
	let proxy: Proxy | null = null;
	let stopped = false as boolean;
	// Signal handlers before anything that takes time: as process 1 of a container, a signal without a handler is ignored.
	for (const signal of ["SIGTERM", "SIGINT"]) {
		process.on(signal, () => {
			stopped = true;
			proxy?.stop(signal);
		});
	}
	process.on("SIGHUP", () => {
		log.info("SIGHUP: reloading the configuration");
		void proxy?.reload();
	});
	let upgrade: Upgrade | null = null;
	process.on("SIGUSR2", () => {
		const patience = UPGRADE_PATIENCE + snapshot.general.takeover_timeout;
		if (proxy !== null) upgrade?.begin(proxy, process.argv.slice(2), patience);
	});
	const plugins = await bringPlugins(snapshot.plugins, log, log_format);
	if (plugins === null) return 1;
	if (stopped) return 0;
	const passed = bringPassed(takeover, snapshot, log);
	if (passed === null) return 1;
	upgrade = new Upgrade(log, passed.service);
	proxy = new Proxy(snapshot, plugins, log, passed, (before) => read(files, overrides, before));
	return proxy.run();
}

const lines = new Lines();
// Arguments from the third on: in a compiled binary as under `bun run`, executable and script come before them.
const code = await main(parseCommandLine(process.argv.slice(2)));
lines.end();
process.exit(code);

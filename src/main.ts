// The main thread: flags, configuration, signals, worker threads and the sums over them. It serves no client itself
// (but with `workers = 0`): what it does may be slow and pretty.

import { hashPassword } from "./auth/verifier.ts";
import { type Command, type Files, parseCommandLine } from "./cli.ts";
import { type Loaded, load, type Overrides } from "./config/load.ts";
import { problemText } from "./config/problem.ts";
import type { Snapshot } from "./config/snapshot.ts";
import { createLog, type Log } from "./log.ts";
import { Proxy } from "./proxy.ts";
import { versionLine } from "./version.ts";

async function main(command: Command): Promise<number> {
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
			process.stdout.write(`${await hashPassword(command.password)}\n`);
			return 0;
		case "configcheck":
			return check(command.files);
		case "run":
			return run(command.files, command.overrides);
	}
}

function read(files: Files, overrides: Overrides, before?: Snapshot): Loaded {
	return load({
		configPath: files.configPath,
		...(files.usersPath === undefined ? {} : { usersPath: files.usersPath }),
		databaseUrls: files.databaseUrls,
		overrides,
		env: process.env,
		...(before?.admin.generated === true ? { generatedAdminPassword: before.admin.password } : {}),
	});
}

/** Logs what is wrong. @returns the snapshot when nothing is */
function report(loaded: Loaded, log: Log): Snapshot | null {
	for (const note of loaded.notes) log.info(note);
	if (loaded.ok) {
		for (const warning of loaded.snapshot.warnings) log.warn(warning);
		return loaded.snapshot;
	}
	for (const warning of loaded.warnings) log.warn(warning);
	for (const problem of loaded.problems) log.error(problemText(problem));
	return null;
}

function check(files: Files): number {
	const log = createLog("text", "info");
	if (report(read(files, {}), log) === null) return 1;
	log.info("✅ config valid");
	return 0;
}

async function run(files: Files, overrides: Overrides): Promise<number> {
	const loaded = read(files, overrides);
	// How to log is itself a setting: with mistakes in the files, as text.
	const { log_format, log_level } = loaded.ok
		? loaded.snapshot.general
		: ({ log_format: "text", log_level: "info" } as const);
	const log = createLog(log_format, log_level);
	log.info(`🐕 ${versionLine()}`);
	const snapshot = report(loaded, log);
	if (snapshot === null) return 1;
	if (snapshot.admin.generated)
		log.warn("admin password has been randomly generated; set one in [admin] to use the admin database");
	const proxy = new Proxy(snapshot, log, (before) => read(files, overrides, before));
	// Before anything that takes time: as process 1 of a container, a signal without a handler is ignored.
	process.on("SIGTERM", () => proxy.stop("SIGTERM"));
	process.on("SIGINT", () => proxy.stop("SIGINT"));
	process.on("SIGHUP", () => {
		log.info("SIGHUP: reloading the configuration");
		void proxy.reload();
	});
	return proxy.run();
}

// The arguments alone: in a compiled binary as under `bun run`, two come before them.
process.exit(await main(parseCommandLine(process.argv.slice(2))));

// The command line: flags and subcommands as PgDog has them. `parseCommandLine` only says what is asked for;
// main.ts does it. Reads no file and no environment, prints nothing, ends nothing.

import { isIP } from "node:net";
import { Command as Commander, CommanderError, InvalidArgumentError, Option } from "commander";
import { type HbaLogin, LOCAL } from "./config/hba.ts";
import { judge } from "./config/judge.ts";
import type { Overrides } from "./config/load.ts";
import type { Setting } from "./config/setting.ts";
import { general } from "./config/settings.ts";

export interface Files {
	readonly configPath: string;
	/** `--config` was given: the path is not the default. */
	readonly configNamed: boolean;
	/** Undefined when no flag names it: `load` then looks for it (config/load.ts, `usersPathFor`). */
	readonly usersPath: string | undefined;
	readonly databaseUrls: readonly string[];
}

export type CommandLine =
	/** Serve. */
	| { readonly kind: "run"; readonly files: Files; readonly overrides: Overrides; readonly takeover: boolean }
	/** Load both files, log the verdict, exit 0 or 1. With `login`: print what decides about it, exit 3 when it would be refused. */
	| { readonly kind: "configcheck"; readonly files: Files; readonly login?: HbaLogin | undefined }
	/** Print a SCRAM verifier on standard output; no file is read. Null: the password comes by standard input. */
	| { readonly kind: "hash"; readonly password: string | null }
	/** Print where each statement of a file would go; exit 1 when one would be refused. `database` undefined: the only one. */
	| { readonly kind: "route"; readonly files: Files; readonly file: string; readonly database?: string | undefined }
	/** Print what plugins must be built with; exit 1 when this build takes none. No file is read. */
	| { readonly kind: "plugin-info" }
	/**
	 * Print the unit for systemd on standard output; no file is read. `upgrades`: a reload starts the executable anew; `waits`: systemctl
	 * returns when it is over.
	 */
	| { readonly kind: "install"; readonly files: Files; readonly upgrades: boolean; readonly waits?: true }
	| { readonly kind: "version" }
	/** Print `text` on standard output, exit 0. */
	| { readonly kind: "help"; readonly text: string }
	/** Print `text` on standard error, exit 2. */
	| { readonly kind: "usage"; readonly text: string };

/** PgDog's subcommands that we do not serve yet. */
const later = ["setup", "schema-sync", "data-sync", "replicate-and-cutover"];

/** `argv`: the arguments alone, without executable and script. */
export function parseCommandLine(argv: readonly string[]): CommandLine {
	let command: CommandLine | undefined;
	let printed = "";
	const write = (text: string): void => {
		printed += text;
	};
	const program = new Commander("pgdog");
	// These two come before the subcommands are made, which take them over from their parent.
	program.exitOverride().configureOutput({ writeOut: write, writeErr: write }).showHelpAfterError();
	program
		.description("A PostgreSQL proxy: pools server connections. Without a command it runs.")
		.usage("[options] [command]")
		.option("-c, --config <path>", "main configuration file", "pgdog.toml")
		.option(
			"-u, --users <path>",
			"users file (default: users.toml beside a config file that is named with its folder, else here)",
		)
		.option("-d, --database-url <url>", "database to serve instead of those in the files; repeatable", collect, [])
		.option("--takeover", "go on in place of the process that runs with this configuration (takeover_socket)", false)
		.version("", "-V, --version", "print the version")
		.allowExcessArguments()
		.action(() => {
			const [name] = program.args;
			if (name === undefined)
				command = { kind: "run", files: files(program), overrides: {}, takeover: program.opts().takeover };
			else if (later.includes(name)) program.error(`error: command '${name}' is known to PgDog, not served yet`);
			else program.error(`error: unknown command '${name}'`);
		});
	program
		.command("run")
		.allowExcessArguments(false)
		.description("serve clients")
		.option("-p, --pool-size <n>", "instead of default_pool_size", valueOf(general.default_pool_size))
		.option("-m, --min-pool-size <n>", "instead of min_pool_size", valueOf(general.min_pool_size))
		.addOption(new Option("-s, --session-mode <bool>", "session or transaction mode").choices(["true", "false"]))
		.action((options: { poolSize?: number; minPoolSize?: number; sessionMode?: "true" | "false" }) => {
			const { poolSize, minPoolSize, sessionMode } = options;
			const overrides: Overrides = {
				...(poolSize !== undefined && { default_pool_size: poolSize }),
				...(minPoolSize !== undefined && { min_pool_size: minPoolSize }),
				...(sessionMode !== undefined && { pooler_mode: sessionMode === "true" ? "session" : "transaction" }),
			};
			command = { kind: "run", files: files(program), overrides, takeover: program.opts().takeover };
		});
	program
		.command("hash")
		.allowExcessArguments(false)
		.description("print the SCRAM verifier of a password, for password_hash")
		.argument("[password]", "without it, or as `-`: asked for, where ps and the shell's history do not show it")
		.action((password = "-") => {
			command = { kind: "hash", password: password === "-" ? null : password };
		});
	addOthers(program, (chosen) => {
		command = chosen;
	});
	try {
		program.parse(argv, { from: "user" });
	} catch (error) {
		if (!(error instanceof CommanderError)) throw error;
		if (error.code === "commander.version") return { kind: "version" };
		return { kind: error.exitCode === 0 ? "help" : "usage", text: printed };
	}
	return command ?? { kind: "usage", text: program.helpInformation() };
}

/** Subcommands that print what they know, of the files or of this executable. */
function addOthers(program: Commander, choose: (command: CommandLine) => void): void {
	program
		.command("configcheck")
		.allowExcessArguments(false)
		.description("check both files and exit")
		.option(
			"-l, --login <login>",
			"print which [[hba]] it would meet: user=NAME,database=NAME,address=IP or local,tls (exit code 3: refused)",
			readLogin,
		)
		.action(({ login }: { login?: HbaLogin }) => choose({ kind: "configcheck", files: files(program), login }));
	program
		.command("route")
		.allowExcessArguments(false)
		.description("print where each statement of a file would go, and why (exit code 1: one would be refused)")
		.requiredOption("-f, --file <path>", "a file of SQL statements; `-`: standard input")
		.option("--database <name>", "the database that they are for, by its name in [[databases]] (default: the only one)")
		.action(({ file, database }: { file: string; database?: string }) =>
			choose({ kind: "route", files: files(program), file, database }),
		);
	program
		.command("plugin-info")
		.allowExcessArguments(false)
		.description("print the versions that Rust plugins must be built with")
		.action(() => choose({ kind: "plugin-info" }));
	program
		.command("install")
		.allowExcessArguments(false)
		.description("print what makes this executable a service, and the lines that install it")
		.requiredOption("--systemd", "a unit for systemd")
		.option(
			"--upgrade-on-reload",
			"systemctl reload starts the executable anew, in place of the running process",
			false,
		)
		.addOption(
			new Option(
				"--notify-reload",
				"systemctl reload returns when the configuration has been read (systemd 253 or later)",
			).conflicts("upgradeOnReload"),
		)
		.action(({ upgradeOnReload: upgrades, notifyReload }: { upgradeOnReload: boolean; notifyReload?: true }) =>
			choose({
				kind: "install",
				files: files(program),
				upgrades,
				...(notifyReload === true ? { waits: notifyReload } : {}),
			}),
		);
}

function files(program: Commander): Files {
	const { config, users, databaseUrl } = program.opts<{ config: string; users?: string; databaseUrl: string[] }>();
	const configNamed = program.getOptionValueSource("config") !== "default";
	return { configPath: config, configNamed, usersPath: users, databaseUrls: databaseUrl };
}

function collect(value: string, before: readonly string[]): string[] {
	return [...before, value];
}

/** `user=alice,database=app,address=10.0.0.7,tls`; without a database it is of the user's name, as for PostgreSQL. */
function readLogin(text: string): HbaLogin {
	const given = new Map<string, string>();
	for (const part of text.split(",")) {
		const [name = "", value = ""] = part.split(/=(.*)/s);
		const isKnown = name === "tls" ? part === name : ["user", "database", "address"].includes(name) && value !== "";
		if (!isKnown || given.has(name)) throw new InvalidArgumentError(`Not understood: ${JSON.stringify(part)}.`);
		given.set(name, value);
	}
	const [user, host, isEncrypted] = [given.get("user"), given.get("address"), given.has("tls")];
	if (user === undefined || host === undefined) throw new InvalidArgumentError("It needs user= and address=.");
	if (host !== LOCAL && isIP(host) === 0) throw new InvalidArgumentError(`address= takes an IP address, or ${LOCAL}.`);
	if (host === LOCAL && isEncrypted) throw new InvalidArgumentError("There is no TLS by the Unix socket.");
	return { user, database: given.get("database") ?? user, host, isEncrypted };
}

/** Reads an option as the setting that it overrides is read from the environment, and with the same limits. */
function valueOf<T>(setting: Setting<T>): (text: string) => T {
	return (text) => {
		const result = judge(setting, setting.fromText(text));
		if (result.success) return result.data;
		throw new InvalidArgumentError(`Accepted is ${setting.accepted}.`);
	};
}

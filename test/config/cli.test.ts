import { expect, test } from "bun:test";
import { type CommandLine, parseCommandLine } from "../../src/cli.ts";

const files = { configPath: "pgdog.toml", configNamed: false, usersPath: undefined, databaseUrls: [] };

test.each<[string, string[], CommandLine]>([
	[
		"nothing serves with the files of the working directory",
		[],
		{ kind: "run", files, overrides: {}, takeover: false },
	],
	["run does the same", ["run"], { kind: "run", files, overrides: {}, takeover: false }],
	[
		"flags may stand before the command or after it",
		["-c", "/etc/a.toml", "run", "--users", "b.toml"],
		{
			kind: "run",
			files: { ...files, configPath: "/etc/a.toml", configNamed: true, usersPath: "b.toml" },
			overrides: {},
			takeover: false,
		},
	],
	[
		"database URLs add up",
		["-d", "postgres://a/b", "--database-url=postgres://c/d"],
		{
			kind: "run",
			files: { ...files, databaseUrls: ["postgres://a/b", "postgres://c/d"] },
			overrides: {},
			takeover: false,
		},
	],
	[
		"run overrides sizes and mode",
		["run", "-p", "5", "--min-pool-size", "0", "-s", "true"],
		{
			kind: "run",
			files,
			overrides: { default_pool_size: 5, min_pool_size: 0, pooler_mode: "session" },
			takeover: false,
		},
	],
	[
		"session mode false is transaction mode",
		["run", "--session-mode", "false"],
		{ kind: "run", files, overrides: { pooler_mode: "transaction" }, takeover: false },
	],
	[
		"configcheck",
		["configcheck", "-c", "x.toml"],
		{ kind: "configcheck", files: { ...files, configPath: "x.toml", configNamed: true } },
	],
	[
		"configcheck of a log-in",
		["configcheck", "--login", "user=a=b,database=d,address=::1,tls"],
		{ kind: "configcheck", files, login: { user: "a=b", database: "d", host: "::1", isEncrypted: true } },
	],
	[
		"a log-in by the Unix socket, to the database of the user's name",
		["configcheck", "-l", "address=local,user=u"],
		{ kind: "configcheck", files, login: { user: "u", database: "u", host: "local", isEncrypted: false } },
	],
	[
		"the default's name, when a flag says it, is a name like another",
		["-c", "pgdog.toml"],
		{ kind: "run", files: { ...files, configNamed: true }, overrides: {}, takeover: false },
	],
	["hash takes one password", ["hash", "pass word"], { kind: "hash", password: "pass word" }],
	["hash takes a password of standard input", ["hash", "-"], { kind: "hash", password: null }],
	["hash alone does, too", ["hash"], { kind: "hash", password: null }],
	["hash takes a password that looks like a flag after --", ["hash", "--", "-V"], { kind: "hash", password: "-V" }],
	["plugin-info", ["plugin-info"], { kind: "plugin-info" }],
	["route", ["route", "--file", "q.sql"], { kind: "route", files, file: "q.sql" }],
	[
		"route for a database, of standard input",
		["route", "-f", "-", "--database", "app", "-c", "x.toml"],
		{
			kind: "route",
			files: { ...files, configPath: "x.toml", configNamed: true },
			file: "-",
			database: "app",
		},
	],
	["--takeover", ["--takeover"], { kind: "run", files, overrides: {}, takeover: true }],
	["run after --takeover", ["--takeover", "run"], { kind: "run", files, overrides: {}, takeover: true }],
	["install --systemd", ["install", "--systemd"], { kind: "install", files, upgrades: false }],
	[
		"install --upgrade-on-reload",
		["install", "--systemd", "--upgrade-on-reload"],
		{ kind: "install", files, upgrades: true },
	],
	[
		"install --notify-reload",
		["install", "--systemd", "--notify-reload"],
		{ kind: "install", files, upgrades: false, waits: true },
	],
	["-V", ["-V"], { kind: "version" }],
	["--version", ["--version"], { kind: "version" }],
])("%s", (_, argv, command) => {
	expect(parseCommandLine(argv)).toEqual(command);
});

test.each<[string, string[]]>([
	["-h", ["-h"]],
	["--help", ["--help"]],
	["help of a command", ["run", "--help"]],
])("%s is help, with exit code 0", (_, argv) => {
	const command = parseCommandLine(argv);
	expect(command.kind).toBe("help");
	expect(command.kind === "help" && command.text).toContain("Usage: pgdog");
});

test.each<[string, string[], string]>([
	["an unknown flag", ["--nope"], "--nope"],
	["an unknown command", ["serve"], "unknown command 'serve'"],
	["a command of PgDog's that is not served", ["schema-sync"], "'schema-sync' is known to PgDog, not served yet"],
	["a flag without its value", ["-c"], "argument missing"],
	["install without what for", ["install"], "required option '--systemd'"],
	[
		"a reload that upgrades and is waited for",
		["install", "--systemd", "--upgrade-on-reload", "--notify-reload"],
		"cannot be used with option '--upgrade-on-reload'",
	],
	["hash with two passwords", ["hash", "a", "b"], "too many arguments"],
	["plugin-info with a plugin", ["plugin-info", "x.so"], "too many arguments"],
	["a pool size that is no number", ["run", "-p", "many"], "an integer from 1 to 65535"],
	["a pool size of 0", ["run", "-p", "0"], "an integer from 1 to 65535"],
	["a log-in without a user", ["configcheck", "-l", "address=local"], "It needs user= and address=."],
	["a log-in from a name", ["configcheck", "-l", "user=u,address=db"], "address= takes an IP address, or local."],
	["a log-in with an unknown word", ["configcheck", "-l", "user=u,host=::1"], 'Not understood: "host=::1".'],
	["a log-in with an empty user", ["configcheck", "-l", "user=,address=::1"], 'Not understood: "user=".'],
	["a log-in with two users", ["configcheck", "-l", "user=u,user=v"], 'Not understood: "user=v".'],
	["a log-in with a value for tls", ["configcheck", "-l", "user=u,tls=1"], 'Not understood: "tls=1".'],
	["TLS by the Unix socket", ["configcheck", "-l", "user=u,address=local,tls"], "There is no TLS by the Unix socket."],
	["a session mode that is no truth value", ["run", "-s", "maybe"], "true, false"],
])("%s is a usage error, with exit code 2", (_, argv, text) => {
	const command = parseCommandLine(argv);
	expect(command.kind).toBe("usage");
	expect(command.kind === "usage" && command.text).toContain(text);
	expect(command.kind === "usage" && command.text).toContain("Usage: pgdog");
});

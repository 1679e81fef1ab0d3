// Secrets that stand in files of their own or in the environment: what is taken, and what is said of each that cannot be had.

import { afterAll, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Loaded, type LoadInput, load } from "../../src/config/load.ts";
import { problemText } from "../../src/config/problem.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-secrets-"));
afterAll(() => rmSync(folder, { recursive: true }));
const configPath = join(folder, "pgdog.toml");
const usersPath = join(folder, "users.toml");
const credentials = join(folder, "credentials");
mkdirSync(credentials);

function secretFile(name: string, content: string | Uint8Array, mode = 0o600): string {
	const path = join(folder, name);
	writeFileSync(path, content);
	chmodSync(path, mode);
	return path;
}

function loadUser(entry: string, env: LoadInput["env"] = {}, admin = ""): Loaded {
	writeFileSync(configPath, `[[databases]]\nname = "app"\nhost = "127.0.0.1"\n${admin}`);
	writeFileSync(usersPath, `[[users]]\nname = "alice"\ndatabase = "app"\n${entry}\n`);
	return load({ configPath, usersPath, databaseUrls: [], overrides: {}, env });
}

/** What is said, without the folder. */
function said(loaded: Loaded): string[] {
	const lines = loaded.ok ? loaded.snapshot.warnings : loaded.problems.map(problemText);
	return lines.map((line) => line.replaceAll(`${folder}/`, ""));
}

function userOf(loaded: Loaded) {
	if (!loaded.ok) throw new Error(said(loaded).join("\n"));
	return loaded.snapshot.users[0]!;
}

test.each([
	["sécret\n", "sécret"],
	["secret", "secret"],
	["secret\r\n", "secret"],
	["two\nlines\n\n", "two\nlines\n"],
	[" blanks \n", " blanks "],
])("of a file with %j the password is %j", (content, password) => {
	const path = secretFile("alice", content);
	const loaded = loadUser(`password_file = "${path}"`);
	expect(userOf(loaded).passwords).toEqual([password]);
	expect(said(loaded)).toEqual([]);
});

test("a user's password towards servers and the admin's come from files, or from the environment", () => {
	secretFile("own", "own\n");
	secretFile("theirs", "theirs\n");
	secretFile("admins", "admins\n");
	const files = loadUser(
		'password_file = "own"\nserver_password_file = "theirs"',
		{},
		'[admin]\npassword_file = "admins"',
	);
	expect(userOf(files)).toEqual({ name: "alice", database: "app", passwords: ["own"], server_password: "theirs" });
	expect(files.ok && files.snapshot.clusters[0]!.pools[0]!.server_passwords).toEqual(["theirs"]);
	expect(files.ok && files.snapshot.admin).toEqual({
		name: "admin",
		user: "admin",
		password: "admins",
		generated: false,
	});
	const env = { A: "own", B: "theirs", C: "admins" };
	const variables = loadUser('password_env = "A"\nserver_password_env = "B"', env, '[admin]\npassword_env = "C"');
	expect(userOf(variables)).toEqual(userOf(files));
	expect(variables.ok && variables.snapshot.admin.password).toBe("admins");
});

test("a relative path is looked for among systemd's credentials first, then beside the file that names it", () => {
	secretFile("alice", "beside\n");
	const env = { CREDENTIALS_DIRECTORY: credentials };
	expect(userOf(loadUser('password_file = "alice"', env)).passwords).toEqual(["beside"]);
	secretFile("credentials/alice", "credential\n", 0o400);
	expect(userOf(loadUser('password_file = "alice"', env)).passwords).toEqual(["credential"]);
	expect(userOf(loadUser('password_file = "alice"')).passwords).toEqual(["beside"]);
});

test("who is not started by systemd is told why he does not see the service's credentials", () => {
	const missing = "users.toml:4: users[0].password_file cannot be read: secrets_alice: there is no such file";
	const elsewhere =
		", and no CREDENTIALS_DIRECTORY: systemd gives it to the service only (docs/operating.md says how to check as the service)";
	expect(said(loadUser('password_file = "secrets_alice"'))).toEqual([`${missing}${elsewhere}`]);
	expect(said(loadUser('password_file = "secrets_alice"', { CREDENTIALS_DIRECTORY: credentials }))).toEqual([missing]);
});

test("a file that everybody may read is taken, with a warning", () => {
	secretFile("open", "secret\n", 0o644);
	expect(said(loadUser('password_file = "open"'))).toEqual([
		"users.toml:4: users[0].password_file: everybody on this machine may read open (mode 644)",
	]);
	secretFile("group", "secret\n", 0o640);
	expect(said(loadUser('password_file = "group"'))).toEqual([]);
});

test.each([
	['password_file = "none"', "users[0].password_file cannot be read: none: there is no such file"],
	['password_file = "credentials"', "users[0].password_file cannot be read: credentials: it is no regular file"],
	['password_file = "/dev/zero"', "users[0].password_file cannot be read: /dev/zero: it is no regular file"],
	['password_file = "empty"', "users[0].password_file cannot be read: empty: it is empty"],
	['password_file = "zero"', "users[0].password_file cannot be read: zero: it has a zero byte"],
	['password_file = "latin"', "users[0].password_file cannot be read: latin: it is not UTF-8"],
	['password_file = "long"', "users[0].password_file cannot be read: long: it is longer than 65536 bytes"],
	[
		'password_env = "NONE"',
		'users[0].password_env = "NONE": accepted is an environment variable that is set, and not empty',
	],
	[
		'password_env = "EMPTY"',
		'users[0].password_env = "EMPTY": accepted is an environment variable that is set, and not empty',
	],
])("%s is a problem with file, line and key", (entry, text) => {
	secretFile("empty", "\n");
	secretFile("zero", "a\0b");
	secretFile("latin", new Uint8Array([0x61, 0xe9]));
	secretFile("long", "x".repeat(65537));
	expect(said(loadUser(entry, { EMPTY: "" }))).toEqual([`users.toml:4: ${text}`]);
});

test("a secret stands in one place", () => {
	secretFile("alice", "secret");
	expect(said(loadUser('password = "geheim"\npassword_file = "alice"'))).toEqual([
		"users.toml:5: users[0].password_file = ***: accepted is only one of password and password_file",
	]);
});

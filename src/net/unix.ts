// Unix sockets: which hosts mean one, where it is, and a listener that takes over what a dead process has left behind. A folder
// that starts with `@` is a name of Linux's abstract namespace, where there are no files, as for libpq.

import { chmodSync, existsSync, lstatSync, renameSync, rmSync, statSync, unlinkSync } from "node:fs";
import type { Socket, SocketHandler, UnixSocketListener } from "bun";
import { cannotListen, reasonOf } from "../errors.ts";

/** Whether a host is the folder of a Unix socket: neither a name nor an IP address. */
export function isSocketFolder(host: string): boolean {
	return host.startsWith("/") || isAbstract(host);
}

function isAbstract(path: string): boolean {
	return path.startsWith("@");
}

/** Where PostgreSQL's clients look for a Unix socket in a folder (libpq, "host"). */
export function unixSocketPath(folder: string, port: number): string {
	return `${folder}/.s.PGSQL.${port}`;
}

/** The path as the kernel has it: abstract names start with a NUL (unix(7)). */
export function socketAddress(path: string): string {
	return isAbstract(path) ? `\0${path.slice(1)}` : path;
}

/** Why a connection to `path` failed. Bun (1.4.5) says ECONNREFUSED also where what is there is no socket, or no folder. */
export function socketFailure(path: string, error: unknown): string {
	if ((error as { code?: string }).code !== "ECONNREFUSED" || isAbstract(path)) return reasonOf(error);
	try {
		return statSync(path).isSocket() ? reasonOf(error) : "Not a socket";
	} catch (found) {
		return reasonOf(found);
	}
}

type Handlers = Omit<SocketHandler<undefined>, "open">;

/** A Unix socket that listens, which another process has, too. */
export interface SharedSocket {
	readonly path: string;
	readonly fd: number;
	/** The service manager's, who has made its file and goes on listening: that is nobody else's to take away. */
	readonly isManaged: boolean;
}

/** A Unix socket that listens. Its file goes with it, unless another process listens by it from then on. */
export class UnixListener implements SharedSocket {
	readonly path: string;
	readonly fd: number;
	readonly isManaged: boolean;
	private readonly listener: UnixSocketListener<undefined>;

	constructor(listener: UnixSocketListener<undefined>, path: string, isManaged = false) {
		this.listener = listener;
		this.path = path;
		this.isManaged = isManaged;
		this.fd = (listener as unknown as { fd: number }).fd;
	}

	/** @param keepsFile another process has the socket, too */
	stop(keepsFile = false): void {
		this.listener.stop();
		if (!keepsFile && !this.isManaged && !isAbstract(this.path)) rmSync(this.path, { force: true });
	}
}

/**
 * Listens on `path`.
 * @param mode the file's permissions
 * @throws Error that says why not: a living process listens there, or what is there is no socket
 */
export async function listenUnix(
	path: string,
	mode: number,
	open: (socket: Socket<undefined>) => void,
	handlers: Handlers = { data() {} },
): Promise<UnixListener> {
	const name = nameAtFirst(path);
	const listen = () => Bun.listen<undefined>({ unix: socketAddress(name), socket: { error() {}, ...handlers, open } });
	try {
		// Bun makes the file with what the umask leaves, which lets nobody else write to it until `chmod`.
		const listener = await listenOver(name, listen);
		if (!isAbstract(path)) chmodSync(name, mode);
		if (name !== path) await become(path, name, listener);
		return new UnixListener(listener, path);
	} catch (error) {
		throw cannotListen(error, path);
	}
}

/**
 * Goes on where another process has listened.
 * @param passed its socket, which is closed where nobody would find it, unless it is the service manager's
 * @param path where it is to be found; null: nowhere
 * @param managed the service manager's, which takes its place, perhaps by the same path: clients wait there
 * @returns null: it is to be listened there anew, if at all
 */
export function listenUnixPassed(
	passed: SharedSocket | null,
	path: string | null,
	open: (socket: Socket<undefined>) => void,
	managed: SharedSocket | null = null,
): UnixListener | null {
	if (passed === null) return null;
	const { fd, isManaged } = passed;
	const isThere = isManaged || (passed.path === path && (isAbstract(path) || existsSync(path)));
	const isFound = isThere && managed === null;
	// `fd` is not in Bun's types.
	const options = { fd, socket: { data() {}, error() {}, open } } as unknown as Parameters<typeof Bun.listen>[0];
	const listener = new UnixListener(Bun.listen(options) as UnixSocketListener<undefined>, passed.path, isManaged);
	if (!isFound) listener.stop(passed.path === managed?.path);
	return isFound ? listener : null;
}

/**
 * The name under which a socket's file is made. Bun (1.4.5) takes away the file that it has made when the listener stops, also where
 * another process goes on with the socket: of clients' sockets it knows another name than they have in the end.
 */
function nameAtFirst(path: string): string {
	return isAbstract(path) ? path : path.replace(/\/\.s(\.PGSQL\.\d+)$/, "/.n$1");
}

/** Gives the file `name` of a listener its own name. */
async function become(path: string, name: string, listener: { stop(): void }): Promise<void> {
	try {
		if (existsSync(path) && !(await isAbandoned(path)))
			throw Object.assign(new Error("address already in use"), { code: "EADDRINUSE" });
		renameSync(name, path);
	} catch (error) {
		listener.stop();
		throw error;
	}
}

async function listenOver<T>(path: string, listen: () => T): Promise<T> {
	try {
		return listen();
	} catch (error) {
		if ((error as { code?: string }).code !== "EADDRINUSE" || !(await isAbandoned(path))) throw error;
		unlinkSync(path);
		return listen();
	}
}

/** Whether it is a socket that nobody answers on: a killed process leaves its file behind. */
async function isAbandoned(path: string): Promise<boolean> {
	if (isAbstract(path)) return false;
	if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) throw new Error("what is there is no socket");
	try {
		const living = await Bun.connect({ unix: path, socket: { data() {} } });
		living.end();
		return false;
	} catch (error) {
		return (error as { code?: string }).code === "ECONNREFUSED";
	}
}

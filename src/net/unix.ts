// Unix sockets: which hosts mean one, where it is, and a listener that takes over what a dead process has left behind. A folder
// that starts with `@` is a name of Linux's abstract namespace, where there are no files, as for libpq.

import { chmodSync, lstatSync, statSync, unlinkSync } from "node:fs";
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

/**
 * Listens on `path`; its file goes with the listener.
 * @param mode the file's permissions
 * @throws Error that says why not: a living process listens there, or what is there is no socket
 */
export async function listenUnix(
	path: string,
	mode: number,
	open: (socket: Socket<undefined>) => void,
	handlers: Omit<SocketHandler<undefined>, "open"> = { data() {} },
): Promise<UnixSocketListener<undefined>> {
	const listen = () => Bun.listen<undefined>({ unix: socketAddress(path), socket: { error() {}, ...handlers, open } });
	try {
		// Bun makes the file with what the umask leaves, which lets nobody else write to it until `chmod`.
		const listener = await listenOver(path, listen);
		if (!isAbstract(path)) chmodSync(path, mode);
		return listener;
	} catch (error) {
		throw cannotListen(error, path);
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

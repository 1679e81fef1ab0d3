// Socket options, descriptors and pages that Bun does not offer, through libc. The only file outside plugin/ that imports
// bun:ffi. Every call is optional: where libc is not found, the option stays as the system has it.

import { dlopen, type Pointer, ptr } from "bun:ffi";
import type { Socket } from "bun";

/** `[tcp]` of the configuration: durations in ms, `retries` a number; undefined leaves the system's default. */
export interface KeepAlive {
	readonly keepalive: boolean;
	readonly time?: number | undefined;
	readonly interval?: number | undefined;
	readonly retries?: number | undefined;
	readonly user_timeout?: number | undefined;
}

const linux = process.platform === "linux";

/** Linux and macOS numbers of the same options. */
const IPPROTO_TCP = 6;
const SOL_SOCKET = linux ? 1 : 0xffff;
const SO_KEEPALIVE = linux ? 9 : 0x0008;
const TCP_KEEPIDLE = linux ? 4 : 0x10;
const TCP_KEEPINTVL = linux ? 5 : 0x101;
const TCP_KEEPCNT = linux ? 6 : 0x102;
/** Linux only. */
const TCP_USER_TIMEOUT = 18;

/** For this room only. */
export const libc = open();
const linuxLibc = linux ? openLinux() : null;

function openLinux() {
	try {
		return dlopen("libc.so.6", { memfd_create: { args: ["ptr", "u32"], returns: "i32" } }).symbols;
	} catch {
		return null;
	}
}

function open() {
	try {
		return dlopen(linux ? "libc.so.6" : "libSystem.dylib", {
			setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
			dup: { args: ["i32"], returns: "i32" },
			close: { args: ["i32"], returns: "i32" },
			shutdown: { args: ["i32", "i32"], returns: "i32" },
			send: { args: ["i32", "ptr", "u64", "i32"], returns: "i64" },
			socket: { args: ["i32", "i32", "i32"], returns: "i32" },
			getrlimit: { args: ["i32", "ptr"], returns: "i32" },
			setrlimit: { args: ["i32", "ptr"], returns: "i32" },
			poll: { args: ["ptr", "u64", "i32"], returns: "i32" },
			getsockopt: { args: ["i32", "i32", "i32", "ptr", "ptr"], returns: "i32" },
			getsockname: { args: ["i32", "ptr", "ptr"], returns: "i32" },
			sendto: { args: ["i32", "ptr", "u64", "i32", "ptr", "u32"], returns: "i64" },
			fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
			clock_gettime: { args: ["i32", "ptr"], returns: "i32" },
			connect: { args: ["i32", "ptr", "u32"], returns: "i32" },
			sendmsg: { args: ["i32", "ptr", "i32"], returns: "i64" },
			recvmsg: { args: ["i32", "ptr", "i32"], returns: "i64" },
			madvise: { args: ["ptr", "u64", "i32"], returns: "i32" },
			getpwuid_r: { args: ["u32", "ptr", "ptr", "u64", "ptr"], returns: "i32" },
		}).symbols;
	} catch {
		return null;
	}
}

/** Where `bytes` is; of an `ArrayBuffer` of its own, which stays there as long as something holds it. */
export function addressOf(bytes: Uint8Array | BigUint64Array): bigint {
	return BigInt(ptr(bytes));
}

/** One int of native memory; `new Uint8Array(n)` would move when touched (see Bun's FFI docs, "Pointers"). */
const value = new Int32Array(new ArrayBuffer(4));

function setOption(fd: number, level: number, option: number, to: number): void {
	if (libc === null || fd < 0) return;
	value[0] = to;
	libc.setsockopt(fd, level, option, value, 4);
}

/** The descriptor of a socket; not in Bun's types. */
export function descriptor(socket: Socket<unknown>): number {
	return (socket as unknown as { fd: number }).fd ?? -1;
}

export function setKeepAlive(socket: Socket<unknown>, options: KeepAlive): void {
	const fd = descriptor(socket);
	setOption(fd, SOL_SOCKET, SO_KEEPALIVE, options.keepalive ? 1 : 0);
	if (!options.keepalive) return;
	const seconds = (ms: number) => Math.max(1, Math.round(ms / 1000));
	if (options.time !== undefined) setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds(options.time));
	if (options.interval !== undefined) setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds(options.interval));
	if (options.retries !== undefined) setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, options.retries);
	if (options.user_timeout !== undefined && linux) setOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, options.user_timeout);
}

/** A second descriptor for the same connection, which outlives the socket; -1 when it cannot be had. */
export function duplicate(socket: Socket<unknown>): number {
	return libc === null ? -1 : libc.dup(descriptor(socket));
}

/** Closes a descriptor that no socket owns (yet). */
export function closeDescriptor(fd: number): void {
	libc?.close(fd);
}

const SHUT_RDWR = 2;

/**
 * Ends a listener from another thread than its own: clients in its queue are reset, and other listeners on the port get all new
 * ones. Its own thread has to open another one.
 */
export function endListener(fd: number): void {
	if (fd >= 0) libc?.shutdown(fd, SHUT_RDWR);
}

const MSG_DONTWAIT = linux ? 0x40 : 0x80;
/** Linux: no SIGPIPE, which Bun ignores anyway. */
const MSG_NOSIGNAL = linux ? 0x4000 : 0;

/** Writes to a socket what it takes at once, whatever mode it is in. @returns how much that was, or -1 */
export function sendNow(fd: number, bytes: Uint8Array): number {
	if (libc === null) return -1;
	return Number(libc.send(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL));
}

const POLLOUT = 4;
/** A struct pollfd: the descriptor, and two shorts of events. */
const asked = new Int32Array(new ArrayBuffer(8));

/** Whether something can be written to `fd` without waiting; true where that cannot be found out. */
export function hasRoom(fd: number): boolean {
	if (libc === null) return true;
	asked[0] = fd;
	asked[1] = POLLOUT;
	return libc.poll(asked, 1, 0) !== 0;
}

const RLIMIT_NOFILE = linux ? 7 : 8;
/** A struct rlimit: what is in force, and what it may be raised to. */
const limits = new BigUint64Array(new ArrayBuffer(16));

/** How many files the process may open; Infinity where that cannot be found out. */
export function descriptorLimit(): number {
	if (libc === null || libc.getrlimit(RLIMIT_NOFILE, limits) !== 0) return Number.POSITIVE_INFINITY;
	return Number(limits[0]);
}

/** Raises the limit on open files (RLIMIT_NOFILE) to the most that is allowed, its hard limit. */
export function raiseDescriptorLimit(): void {
	if (libc === null || libc.getrlimit(RLIMIT_NOFILE, limits) !== 0 || limits[0] === limits[1]) return;
	limits[0] = limits[1]!;
	libc.setrlimit(RLIMIT_NOFILE, limits);
}

const AF_UNIX = 1;
const SOCK_STREAM = 1;

/** The descriptor that the kernel gives out next; -1: none, which Bun would report as a refused connection. 0 without libc. */
export function lowestFreeDescriptor(): number {
	if (libc === null) return 0;
	const fd = libc.socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd >= 0) libc.close(fd);
	return fd;
}

const SOCK_DGRAM = 2;

/** Sends one datagram to a Unix socket, without waiting; `@` as first letter: a name of Linux's abstract namespace (unix(7)). */
export function sendDatagram(path: string, text: string): void {
	if (libc === null || !linux) return;
	const name = Buffer.from(path.startsWith("@") ? `\0${path.slice(1)}` : `${path}\0`);
	const address = Buffer.alloc(2 + name.length);
	address.writeUInt16LE(AF_UNIX);
	name.copy(address, 2);
	const message = Buffer.from(text);
	const fd = libc.socket(AF_UNIX, SOCK_DGRAM, 0);
	if (fd < 0) return;
	libc.sendto(fd, message, message.length, MSG_DONTWAIT | MSG_NOSIGNAL, address, address.length);
	libc.close(fd);
}

const SO_DOMAIN = 39;
const SO_TYPE = 3;
const SO_ACCEPTCONN = 30;
const AF_INET = 2;
const AF_INET6 = 10;
/** Length of what `getsockopt` writes. */
const valueLength = new Uint32Array(new ArrayBuffer(4));

function optionOf(fd: number, option: number): number {
	valueLength[0] = 4;
	return libc?.getsockopt(fd, SOL_SOCKET, option, value, valueLength) === 0 ? value[0]! : -1;
}

/** By what a descriptor listens for connections; null: it does not, or by something else. Linux only. */
export function listensBy(fd: number): "tcp" | "unix" | null {
	if (!linux || optionOf(fd, SO_ACCEPTCONN) !== 1 || optionOf(fd, SO_TYPE) !== SOCK_STREAM) return null;
	const domain = optionOf(fd, SO_DOMAIN);
	if (domain === AF_UNIX) return "unix";
	return domain === AF_INET || domain === AF_INET6 ? "tcp" : null;
}

/** Bytes of a struct sockaddr_un: its family, and a path that may be without its NUL. */
const LONGEST_ADDRESS = 2 + 108 + 1;

/** Where a Unix socket is to be found: its path, or `@` and a name without a file (unix(7)). */
export function boundTo(fd: number): string {
	const address = Buffer.from(new ArrayBuffer(LONGEST_ADDRESS));
	valueLength[0] = LONGEST_ADDRESS;
	if (libc?.getsockname(fd, address, valueLength) !== 0) return "";
	const name = address.toString("utf8", 2, valueLength[0]);
	return name.startsWith("\0") ? `@${name.slice(1)}` : name.replace(/\0.*$/s, "");
}

const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0x800;

/** Linux only. */
export function setNonBlocking(fd: number): void {
	if (linux) libc?.fcntl(fd, F_SETFL, libc.fcntl(fd, F_GETFL, 0) | O_NONBLOCK);
}

/** A second descriptor for the same socket; -1 when it cannot be had. */
export function duplicateDescriptor(fd: number): number {
	return libc === null ? -1 : libc.dup(fd);
}

const MFD_CLOEXEC = 1;
const MEMORY_FILE = Buffer.from("pgdog\0");

/** A file without a name, in memory; -1 when it cannot be had. */
export function openMemoryFile(): number {
	return linuxLibc === null ? -1 : linuxLibc.memfd_create(MEMORY_FILE, MFD_CLOEXEC);
}

const POLLIN = 1;

/** Whether there is something to be read from `fd`, or its end. */
export function hasNews(fd: number): boolean {
	if (libc === null) return false;
	asked[0] = fd;
	asked[1] = POLLIN;
	return libc.poll(asked, 1, 0) > 0;
}

const CLOCK_MONOTONIC = linux ? 1 : 6;
/** A struct timespec: seconds and nanoseconds. */
const timespec = new BigInt64Array(new ArrayBuffer(16));

/** The system's clock that never goes back, µs. */
export function monotonicMicroseconds(): bigint {
	if (libc?.clock_gettime(CLOCK_MONOTONIC, timespec) !== 0) return 0n;
	return timespec[0]! * 1_000_000n + timespec[1]! / 1000n;
}

const MADV_DONTNEED = 4;

/** Lets go of pages of a mapped file: they are read again where they are used. What was changed in them is lost. */
export function letGo(start: number, bytes: number): void {
	if (linux) libc?.madvise(start as Pointer, bytes, MADV_DONTNEED);
}

// systemd, or what speaks as it does (sd_notify(3), sd_listen_fds(3)): it is told how the service is by datagrams to the Unix socket
// that `NOTIFY_SOCKET` names, and hands over sockets that it listens on already. Where there is none, nothing is said.

import type { Contain } from "../contain.ts";
import { boundTo, listensBy, monotonicMicroseconds, sendDatagram, setNonBlocking } from "./options.ts";
import type { SharedSocket } from "./unix.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** ms between two lines for `systemctl status`. */
const STATUS_PERIOD = 5_000;
/** The first descriptor that a service manager passes on (SD_LISTEN_FDS_START). */
const FIRST_PASSED = 3;

interface Attended {
	/** Whether all threads come back to their loops: else nothing is said, and the manager may start the process anew. */
	isWell(): boolean;
	/** One line for `systemctl status`. */
	status(): string;
}

/** A process that was started to go on in place of this one. */
interface Heir {
	readonly pid: number;
	kill(signal: "SIGKILL"): void;
}

export class ServiceManager {
	private socket: string | undefined;
	/** ms within which it wants to hear of us twice; null: it does not watch. */
	private readonly watchdog: number | null;
	/** Descriptors of TCP sockets to accept clients on that it has passed on (`LISTEN_FDS`); empty: we open our own. */
	readonly sockets: readonly number[];
	/** The Unix socket that it has passed on; null: we open our own, if any. */
	readonly unix: SharedSocket | null;
	private status = "";
	/** null: none. */
	heir: Heir | null = null;
	/** Another process is the service, and this one says nothing any more: its end is not the service's. */
	hasPassedOn = false;

	/** @throws Error that names what was passed on and is no socket for us */
	constructor(env: Environment) {
		this.socket = env.NOTIFY_SOCKET || undefined;
		const { tcp, unix } = passedSockets(env);
		this.sockets = tcp;
		this.unix = unix;
		const { WATCHDOG_USEC, WATCHDOG_PID } = env;
		const isForUs = WATCHDOG_PID === undefined || Number(WATCHDOG_PID) === process.pid;
		this.watchdog =
			this.socket !== undefined && isForUs && Number(WATCHDOG_USEC) > 0 ? Number(WATCHDOG_USEC) / 1000 : null;
	}

	private tell(...lines: readonly string[]): void {
		if (this.socket !== undefined) sendDatagram(this.socket, lines.join("\n"));
	}

	/** It listens, or has read the configuration anew, in force or refused. */
	ready(): void {
		this.tell("READY=1");
	}

	reloading(): void {
		this.tell("RELOADING=1", `MONOTONIC_USEC=${monotonicMicroseconds()}`);
	}

	/**
	 * The process `pid` listens in place of this one: it is the service from now on, if it runs within it. Said before
	 * it is told that it may go on, and says that it is ready: it would not be believed.
	 */
	passOn(pid: number): void {
		if (pid !== this.heir?.pid) return;
		this.tell(`MAINPID=${pid}`);
		this.socket = undefined;
		this.hasPassedOn = true;
	}

	/** This process ends: an heir that does not go on in its place by now would be left alone, and may come to serve unasked. */
	endHeir(): void {
		if (!this.hasPassedOn) this.heir?.kill("SIGKILL");
	}

	/** @param patience ms that it may take, at most */
	stopping(patience: number): void {
		this.endHeir();
		this.tell("STOPPING=1", `EXTEND_TIMEOUT_USEC=${Math.min(patience * 1000, Number.MAX_SAFE_INTEGER)}`);
	}

	/** Keeps it informed from now on. @returns what is to be cleared in the end */
	attend(contain: Contain, { isWell, status }: Attended): Timer[] {
		if (this.socket === undefined) return [];
		const timers = [contain.every(STATUS_PERIOD, () => this.say(status()))];
		if (this.watchdog !== null)
			timers.push(contain.every(this.watchdog / 2, () => isWell() && this.tell("WATCHDOG=1")));
		this.say(status());
		return timers;
	}

	private say(status: string): void {
		if (status === this.status) return;
		this.status = status;
		this.tell(`STATUS=${status}`);
	}
}

function passedSockets({ LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = "" }: Environment) {
	const tcp: number[] = [];
	let unix: SharedSocket | null = null;
	const count = Number(LISTEN_PID) === process.pid ? Number(LISTEN_FDS) || 0 : 0;
	const names = LISTEN_FDNAMES.split(":");
	for (let i = 0; i < count; i++) {
		const fd = FIRST_PASSED + i;
		const failure = (why: string) => new Error(`LISTEN_FDS: descriptor ${fd} (${names[i] || "unknown"}) is ${why}`);
		const by = listensBy(fd);
		if (by === null) throw failure("no TCP or Unix socket that listens");
		if (by === "tcp") tcp.push(fd);
		else if (unix === null) unix = { path: boundTo(fd), fd, isManaged: true };
		else throw failure(`one Unix socket too many: clients come by ${unix.path}`);
		// Several threads accept there: one that comes too late must not wait.
		setNonBlocking(fd);
	}
	return { tcp, unix };
}

// A new executable in place of this process, which starts it itself (SIGUSR2): the service manager believes the service's main process
// alone (systemd.service(5), NotifyAccess=main), and nobody who does not run within the service may become that. Made by main.ts.

import { isAbsolute } from "node:path";
import type { Contain } from "./contain.ts";
import type { Log } from "./log.ts";
import type { ServiceManager } from "./net/service-manager.ts";

/** The path by which this was started, where it leads now: as a link, it may lead to another version than it did. */
const EXECUTABLE = isAbsolute(process.argv0) ? process.argv0 : process.execPath;

/** The proxy of this process. */
interface Replaced {
	readonly contain: Contain;
	/** Whether it listens, and is not about to end. */
	readonly isServing: boolean;
	/** Where another process comes to take over. */
	readonly takeover: { readonly isOpen: boolean };
}

export class Upgrade {
	private readonly log: Log;
	private readonly service: ServiceManager;
	private readonly pid: number;

	constructor(log: Log, service: ServiceManager, pid = process.pid) {
		this.log = log;
		this.service = service;
		this.pid = pid;
	}

	/** @param args of the command line @param patience ms in which it has to have taken over */
	begin(proxy: Replaced, args: readonly string[], patience: number): void {
		if (!proxy.isServing || this.service.heir !== null) {
			this.log.warn("SIGUSR2: nothing is started while the proxy starts, stops, or is being replaced");
			return;
		}
		if (!proxy.takeover.isOpen) {
			this.log.warn("SIGUSR2: nothing is started: this process listens on no takeover_socket");
			return;
		}
		if (this.pid === 1) {
			this.log.warn("SIGUSR2: nothing is started: all others end with this process, which is process 1 of a container");
			return;
		}
		this.service.reloading();
		const others = args.filter((arg) => arg !== "--takeover");
		// Who is watched is said by MAINPID from then on; sockets that were passed on, to whoever had this pid, come by takeover_socket.
		const env = { ...process.env, WATCHDOG_PID: undefined, LISTEN_PID: undefined };
		const over = (how: string) => this.onFailed(proxy, how);
		try {
			const child = Bun.spawn([EXECUTABLE, "--takeover", ...others], {
				env,
				stdio: ["ignore", "inherit", "inherit"],
				onExit: (_, code, signal) =>
					proxy.contain.guard(null, () => over(`has ended with ${signal ?? `exit code ${code}`}`)),
			});
			this.service.heir = child;
			this.log.info(`SIGUSR2: process ${child.pid} is to take over, from ${EXECUTABLE}`);
			proxy.contain.later(patience, null, () => this.service.hasPassedOn || child.kill("SIGKILL"));
		} catch (error) {
			over(`could not be started: ${(error as Error).message}`);
		}
	}

	/** Says so, unless this one goes, too: it is told to stop, or was replaced before, and others watch that. */
	private onFailed({ isServing }: Replaced, how: string): void {
		this.service.heir = null;
		if (!isServing) return;
		this.log.error(`${EXECUTABLE} ${how}: this process goes on`);
		this.service.ready();
	}
}

// Addresses of host names: looked up again after `dns_ttl`, since Bun keeps what it has resolved for half a minute, and when no
// connection could be had there. A name that cannot be looked up keeps the addresses it had. One for each thread.

import { isIP } from "node:net";
import { dns } from "bun";
import { now } from "../clock.ts";
import { startTimer } from "../contain.ts";
import { OnceAMinute, timesText } from "../once-a-minute.ts";
import { isSocketFolder } from "./unix.ts";

/** ms that a connection waits for a look-up when the name's last addresses are known; then it goes to those. */
const PATIENCE = 1_000;

interface Name {
	/** Null before the first answer. */
	addresses: readonly string[] | null;
	/** When the last look-up ended, well or not; 0 when the next connection has to look up. */
	at: number;
	pending: Promise<readonly string[]> | null;
}

/** The address of `address:port`, as a client is called by; of one without a port, as by the Unix socket, all of it. */
export function hostOf(address: string): string {
	const port = address.lastIndexOf(":");
	return port < 0 ? address : address.slice(0, port);
}

export type Lookup = (host: string) => Promise<readonly string[]>;

export class Names {
	private readonly names = new Map<string, Name>();
	private readonly ttl: () => number;
	private readonly say: (line: string) => void;
	private readonly failures = new OnceAMinute();
	private readonly lookup: Lookup;

	/** @param ttl `dns_ttl`, ms @param say writes a warning */
	constructor(ttl: () => number, say: (line: string) => void = () => {}, lookup: Lookup = getaddrinfo) {
		this.ttl = ttl;
		this.say = say;
		this.lookup = lookup;
	}

	/**
	 * Addresses to connect to, in this order; `host` itself when it is no name.
	 * @param timeout ms
	 * @throws Error when no address of the name is known
	 */
	async addresses(host: string, timeout: number): Promise<readonly string[]> {
		if (!isName(host)) return [host];
		const name = this.of(host);
		const known = name.addresses;
		if (known !== null && now() - name.at < this.ttl()) return known;
		const found = this.look(host, name);
		return within(found, known === null ? timeout : Math.min(timeout / 2, PATIENCE), host).catch((error) => {
			if (known === null) throw error;
			return known;
		});
	}

	/** The last known addresses of a name, the same array for as long as they are the same; null when there are none. */
	known(host: string): readonly string[] | null {
		return this.names.get(host)?.addresses ?? null;
	}

	/** Whether `address` is among the last known addresses of the host; true when none are known. */
	has(host: string, address: string): boolean {
		return this.known(host)?.includes(address) ?? true;
	}

	/** Looks a name up in the background if that is due. @param time `now()` */
	refresh(host: string, time: number): void {
		if (!isName(host)) return;
		const name = this.of(host);
		if (time - name.at < Math.max(this.ttl(), PATIENCE)) return;
		this.look(host, name).catch((error) => {
			const times = this.failures.due(time);
			if (times > 0) this.say(`host name "${host}" cannot be looked up: ${error.message}${timesText(times)}`);
		});
	}

	/** No connection could be had at any address of `host`: the next connection looks the name up first. */
	distrust(host: string): void {
		const name = this.names.get(host);
		if (name !== undefined) name.at = 0;
	}

	private of(host: string): Name {
		let name = this.names.get(host);
		if (name === undefined) {
			name = { addresses: null, at: 0, pending: null };
			this.names.set(host, name);
		}
		return name;
	}

	/** Looks the name up, or joins the look-up that is under way. */
	private look(host: string, name: Name): Promise<readonly string[]> {
		name.pending ??= this.ask(host, name).finally(() => {
			name.at = now();
			name.pending = null;
		});
		return name.pending;
	}

	private async ask(host: string, name: Name): Promise<readonly string[]> {
		const found = [...new Set(await this.lookup(host))];
		if (found.length === 0) throw new Error(`host name "${host}" has no address`);
		const before = name.addresses;
		// The same addresses in another order are no change: a name server's round robin does that.
		if (before?.length === found.length && found.every((address) => before.includes(address))) return before;
		name.addresses = found;
		if (before !== null)
			this.say(`host name "${host}" has other addresses: ${found.join(", ")}; before: ${before.join(", ")}`);
		return found;
	}
}

/** Whether a host is a name: neither an IP address nor the folder of a Unix socket. */
function isName(host: string): boolean {
	return !isSocketFolder(host) && isIP(host) === 0;
}

/** Resolves by libc, as everything else on the machine does: /etc/hosts, nsswitch.conf. */
async function getaddrinfo(host: string): Promise<readonly string[]> {
	const found = await dns.lookup(host, { backend: "libc" });
	return found.map(({ address }) => address);
}

async function within<T>(promise: Promise<T>, timeout: number, host: string): Promise<T> {
	let timer: Timer | undefined;
	const late = new Promise<never>((_, reject) => {
		timer = startTimer(timeout, () => reject(new Error(`host name "${host}" was not resolved within ${timeout} ms`)));
	});
	try {
		return await Promise.race([promise, late]);
	} finally {
		clearTimeout(timer);
	}
}

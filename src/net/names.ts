// Addresses of host names: looked up again after `dns_ttl`, since Bun keeps what it has resolved for half a minute, and when no
// connection could be had there. A name that cannot be looked up keeps the addresses it had. One for each thread.

import { isIP } from "node:net";
import { dns } from "bun";
import { now } from "../clock.ts";
import { OnceAMinute, timesText } from "../once-a-minute.ts";

/** How long a connection waits for a name whose last addresses are known, ms: then it goes there. */
const PATIENCE = 1_000;

interface Name {
	/** Null before the first answer. */
	addresses: readonly string[] | null;
	/** When they were found, or could not be found anew. */
	at: number;
	pending: Promise<readonly string[]> | null;
}

export type Lookup = (host: string) => Promise<readonly string[]>;

export class Names {
	private readonly names = new Map<string, Name>();
	private readonly ttl: () => number;
	private readonly say: (line: string) => void;
	private readonly failures = new OnceAMinute();
	private readonly lookup: Lookup;

	/** @param ttl ms @param say what an operator should know */
	constructor(ttl: () => number, say: (line: string) => void = () => {}, lookup: Lookup = getaddrinfo) {
		this.ttl = ttl;
		this.say = say;
		this.lookup = lookup;
	}

	/**
	 * Where to connect to, in this order.
	 * @param timeout ms
	 * @throws Error when nothing is known of the name
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

	/** The addresses that a name has now, as far as is known: the same object for as long as they are the same; null for anything else. */
	known(host: string): readonly string[] | null {
		return this.names.get(host)?.addresses ?? null;
	}

	/** Whether a connection to `address` is one to the host as things are now. */
	has(host: string, address: string): boolean {
		return this.known(host)?.includes(address) ?? true;
	}

	/** Looks a name up in the background if that is due. */
	refresh(host: string, time: number): void {
		if (!isName(host)) return;
		const name = this.of(host);
		if (time - name.at < Math.max(this.ttl(), PATIENCE)) return;
		this.look(host, name).catch((error) => {
			const times = this.failures.due(time);
			if (times > 0) this.say(`host name "${host}" cannot be looked up: ${error.message}${timesText(times)}`);
		});
	}

	/** No connection could be had at any of its addresses: the next one looks it up first. */
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

	/** One question at a time for each name. */
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
		// In another order, as a name server's round robin has them, they are the same.
		if (before?.length === found.length && found.every((address) => before.includes(address))) return before;
		name.addresses = found;
		if (before !== null)
			this.say(`host name "${host}" has other addresses: ${found.join(", ")}; before: ${before.join(", ")}`);
		return found;
	}
}

/** Not an address, and not the folder of a Unix socket. */
function isName(host: string): boolean {
	return !host.startsWith("/") && isIP(host) === 0;
}

/** As everything else on the machine resolves names: /etc/hosts, nsswitch.conf. */
async function getaddrinfo(host: string): Promise<readonly string[]> {
	const found = await dns.lookup(host, { backend: "libc" });
	return found.map(({ address }) => address);
}

async function within<T>(promise: Promise<T>, timeout: number, host: string): Promise<T> {
	let timer: Timer | undefined;
	const late = new Promise<never>((_, reject) => {
		timer = setTimeout(() => reject(new Error(`host name "${host}" was not resolved within ${timeout} ms`)), timeout);
	});
	try {
		return await Promise.race([promise, late]);
	} finally {
		clearTimeout(timer);
	}
}

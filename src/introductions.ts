// Users whose clients cannot just move to the process that takes over: it does not know them (`Learning`), or has not the keys by which
// they log in to servers (`Keyring`). The old process introduces them (`Introductions`), the new one asks a server of its own whether it
// is as was said, as at a log-in (`Configuration.introduce`), and says whether their clients may come.
//
// What lets them in crosses with it, passwords too where `passthrough_auth` has some or `auth_query` answers them: by the takeover socket
// only, which nobody but the same user may open and where each end looks at who the other is (net/passing.ts), in a file in memory that has
// no name. How old what the old process believes is does not cross: the new one begins by asking, so that nobody is let in by it for longer.

import type { ScramKeys } from "./auth/scram-keys.ts";
import { now } from "./clock.ts";
import { type LoginKey, loginKey } from "./config/diff.ts";
import type { Found } from "./pool/informant.ts";

export interface Introduction extends LoginKey {
	/** What has let its clients in; nothing of a user whom the configuration names. */
	readonly found: Pick<Found, "passwords" | "password_hash" | "passed">;
	/** Those that a client has proven to have, if any. */
	readonly keys: ScramKeys | null;
}

/** Users whom the other process is asked about at a time. A guess: it may ask a server about each. */
const MOST_AT_ONCE = 16;
/** ms after which it is asked again about whom it does not know. A guess. */
const RETRY = 10_000;

/** The process that has these users. */
interface Host {
	/** Users who have clients here and have to be introduced. */
	strangers(): Introduction[];
	/** @returns false when that cannot be said now */
	introduce(id: number, bytes: Uint8Array): boolean;
	/** Their clients may go. */
	onKnown(login: LoginKey): void;
	/** They may not, for now. */
	onUnknown(login: LoginKey, why: string): void;
}

/** Whom the process after knows, as far as it has said so. */
export class Introductions {
	private readonly host: Host;
	/** Those whose turn comes. */
	private waiting: Introduction[] = [];
	private readonly asked = new Map<number, LoginKey>();
	/** When each may be introduced again, `now()`. */
	private readonly met = new Map<string, number>();
	private last = 0;

	constructor(host: Host) {
		this.host = host;
	}

	/** Introduces whoever is not known yet. */
	look(time = now()): void {
		if (this.waiting.length === 0)
			this.waiting = this.host
				.strangers()
				.filter((each) => (this.met.get(loginKey(each.user, each.database)) ?? 0) <= time);
		this.next();
	}

	private next(): void {
		while (this.asked.size < MOST_AT_ONCE && this.waiting.length > 0) {
			const next = this.waiting.at(-1)!;
			if (!this.host.introduce(++this.last, writeIntroduction(next))) break;
			this.waiting.pop();
			this.asked.set(this.last, next);
			this.met.set(loginKey(next.user, next.database), Number.POSITIVE_INFINITY);
		}
	}

	onKnown(id: number): void {
		const login = this.take(id);
		if (login !== undefined) this.host.onKnown(login);
		this.next();
	}

	onUnknown(id: number, why: string, time = now()): void {
		const login = this.take(id);
		if (login !== undefined) {
			this.met.set(loginKey(login.user, login.database), time + RETRY);
			this.host.onUnknown(login, why);
		}
		this.next();
	}

	private take(id: number): LoginKey | undefined {
		const login = this.asked.get(id);
		this.asked.delete(id);
		return login;
	}
}

/** Goes up with every change of what stands in an introduction, or of what it means. */
const FORMAT = 1;

function writeIntroduction({ user, database, found, keys }: Introduction): Uint8Array {
	const { passwords, password_hash: hash = null, passed = false } = found;
	const both = keys && [keys.clientKey, keys.serverKey].map((key) => Buffer.from(key).toString("base64"));
	return Buffer.from(JSON.stringify({ format: FORMAT, user, database, passwords, hash, passed, keys: both }));
}

/** What a process of another version, perhaps, has written; null: it is something else. */
export function readIntroduction(bytes: Uint8Array): Introduction | null {
	const said = parsed(bytes);
	if (typeof said !== "object" || said === null) return null;
	const { format, user, database, passwords, hash, passed, keys } = said as Record<string, unknown>;
	if (format !== FORMAT || !isText(user) || !isText(database) || !(hash === null || isText(hash))) return null;
	if (!isTexts(passwords) || typeof passed !== "boolean" || !(keys === null || isTexts(keys))) return null;
	const found = { passwords, ...(hash === null ? {} : { password_hash: hash }), ...(passed ? { passed } : {}) };
	const [clientKey, serverKey] = (keys ?? []).map((key) => Uint8Array.from(Buffer.from(key, "base64")));
	const both = clientKey !== undefined && serverKey !== undefined ? { clientKey, serverKey } : null;
	return { user, database, found, keys: both };
}

/** Nothing of it goes to the log: there may be passwords in it. */
function parsed(bytes: Uint8Array): unknown {
	try {
		return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
	} catch {
		return null;
	}
}

function isText(value: unknown): value is string {
	return typeof value === "string";
}

function isTexts(value: unknown): value is string[] {
	return Array.isArray(value) && value.every(isText);
}

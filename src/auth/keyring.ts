// Keys that clients have proven (`ClientLogin.keys`), by the verifier (`password_hash`) that they fit: they log in to servers that
// keep the same verifier, so that nobody has to write a password down. One for each thread; what one learns it tells the others.
// In memory only, and gone with the verifier.

import { asBuffer, sha256 } from "./bytes.ts";
import { isMd5Hash } from "./md5.ts";
import type { ScramKeys, ScramVerifier } from "./scram-keys.ts";
import type { ServerCredentials } from "./server-login.ts";
import { parseVerifier } from "./verifier.ts";

interface Entry {
	readonly verifier: ScramVerifier | undefined;
	/** Null before the first client has logged in. */
	keys: ScramKeys | null;
}

export class Keyring {
	/** By the text of the verifier: those of the configuration, no others. */
	private entries = new Map<string, Entry>();

	/** Takes over which verifiers the configuration has. Keys of others are forgotten. */
	reach(verifiers: Iterable<string | undefined>): void {
		const before = this.entries;
		this.entries = new Map();
		for (const text of verifiers) {
			if (text === undefined || this.entries.has(text)) continue;
			this.entries.set(text, before.get(text) ?? { verifier: parseVerifier(text) ?? undefined, keys: null });
		}
	}

	/** What logs in to a server that has this verifier, or this MD5 hash. */
	credentials(verifier: string): ServerCredentials {
		if (isMd5Hash(verifier)) return { md5: verifier };
		return this.entries.get(verifier) ?? { keys: null };
	}

	/** Those that a client has proven, for another process. */
	keysOf(verifier: string): ScramKeys | null {
		return this.entries.get(verifier)?.keys ?? null;
	}

	has(verifier: string): boolean {
		return this.entries.get(verifier)?.keys != null;
	}

	/** A client has proven to have these keys. @returns whether it is news: not when they are another verifier's, of before a reload */
	learn(text: string, { clientKey, serverKey }: ScramKeys): boolean {
		const entry = this.entries.get(text);
		if (entry?.verifier === undefined || entry.keys !== null) return false;
		if (!asBuffer(sha256(clientKey)).equals(entry.verifier.storedKey)) return false;
		// Copies: a Buffer is part of a larger one, all of which would go to other threads with it.
		entry.keys = { clientKey: Uint8Array.from(clientKey), serverKey: Uint8Array.from(serverKey) };
		return true;
	}
}

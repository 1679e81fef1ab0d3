// The keys of SCRAM-SHA-256 (RFC 5802, "SCRAM Algorithm Overview"; RFC 7677) and the cache that makes them cheap.
// Called by scram.ts, login.ts and verifier.ts; knows nothing of messages.
//
// A derivation costs about half a millisecond on the runtime's thread pool, everything after it a microsecond.

import { createHmac, hkdfSync, pbkdf2, randomBytes } from "node:crypto";
import { promisify } from "node:util";
import { LRUCache } from "lru-cache";
import { sha256 } from "./bytes.ts";
import { preparePassword } from "./saslprep.ts";

/** Bytes of a SHA-256 key or proof. */
export const KEY_LENGTH = 32;
/** `SCRAM_DEFAULT_SALT_LEN` in PostgreSQL's scram-common.h. */
export const SALT_LENGTH = 16;
/** Default of PostgreSQL's `scram_iterations`. */
export const DEFAULT_ITERATIONS = 4096;

/** What logs a client in without its password. ServerKey is there to check that the server is who it should be. */
export interface ScramKeys {
	readonly clientKey: Uint8Array;
	readonly serverKey: Uint8Array;
}

/** What checks a client's proof. StoredKey is the hash of ClientKey, so it does not log anybody in. */
export interface StoredKeys {
	readonly storedKey: Uint8Array;
	readonly serverKey: Uint8Array;
}

/** What a server keeps of a password. */
export interface ScramVerifier extends StoredKeys {
	readonly iterations: number;
	readonly salt: Uint8Array;
}

/** All that follows from a password, a salt and an iteration count. */
export interface DerivedKeys extends ScramKeys, StoredKeys {}

const pbkdf2Async = promisify(pbkdf2);

export function hmac(key: Uint8Array, data: Uint8Array | string): Buffer {
	return createHmac("sha256", key).update(data).digest();
}

/** Runs on the thread pool: the event loop goes on. Prepares the password itself. */
export async function deriveKeys(
	password: string | Uint8Array,
	salt: Uint8Array,
	iterations: number,
): Promise<DerivedKeys> {
	const salted = await pbkdf2Async(preparePassword(password), salt, iterations, KEY_LENGTH, "sha256");
	const clientKey = hmac(salted, "Client Key");
	return { clientKey, storedKey: sha256(clientKey), serverKey: hmac(salted, "Server Key") };
}

export interface ScramCacheOptions {
	/** 32 random bytes. All threads of a process must be given the same, or the salt of a user would depend on the thread. */
	secret?: Uint8Array;
	/** Most derivations kept. One is about 0.5 KB. Default 1024. */
	max?: number;
}

/** One per thread, held by its owner: derived keys by (password, salt, iterations), and the salts we choose ourselves. */
export class ScramCache {
	readonly #keys: LRUCache<string, DerivedKeys>;
	/** Derivations under way, so that a storm of first logins derives once. Bounded by the logins under way. */
	readonly #pending = new Map<string, Promise<DerivedKeys>>();
	readonly #saltKey: Uint8Array;
	readonly #mockKey: Uint8Array;
	readonly #nameKey: Uint8Array;

	constructor(options: ScramCacheOptions = {}) {
		const secret = options.secret ?? randomBytes(KEY_LENGTH);
		this.#keys = new LRUCache({ max: options.max ?? 1024 });
		this.#saltKey = subkey(secret, "salt");
		this.#mockKey = subkey(secret, "mock");
		this.#nameKey = subkey(secret, "name");
	}

	/**
	 * The salt of a user who has a plaintext password, or who does not exist: stable for the life of the secret, and the
	 * same function for both, so that asking twice, or before and after a reload, tells nothing.
	 */
	saltFor(user: string): Buffer {
		return hmac(this.#saltKey, user).subarray(0, SALT_LENGTH);
	}

	/** Keys that no password has, for a user who does not exist. */
	mockKeys(user: string): StoredKeys {
		const storedKey = hmac(this.#mockKey, user);
		return { storedKey, serverKey: hmac(storedKey, user) };
	}

	/** Keys of a password of the configuration: at once when known; otherwise a promise, shared by all who ask meanwhile. */
	keys(password: string, salt: Uint8Array, iterations: number): DerivedKeys | Promise<DerivedKeys> {
		const name = this.#name(password, salt, iterations);
		return this.#keys.get(name) ?? this.#pending.get(name) ?? this.#derive(name, password, salt, iterations);
	}

	/** Keys of a password that a client sent, if known. Only proven ones are remembered, or guesses would push out the rest. */
	known(password: Uint8Array, salt: Uint8Array, iterations: number): DerivedKeys | undefined {
		return this.#keys.get(this.#name(password, salt, iterations));
	}

	remember(password: Uint8Array, salt: Uint8Array, iterations: number, keys: DerivedKeys): void {
		this.#keys.set(this.#name(password, salt, iterations), keys);
	}

	#derive(name: string, password: string, salt: Uint8Array, iterations: number): Promise<DerivedKeys> {
		const pending = deriveKeys(password, salt, iterations)
			.then((keys) => {
				this.#keys.set(name, keys);
				return keys;
			})
			.finally(() => this.#pending.delete(name));
		this.#pending.set(name, pending);
		return pending;
	}

	/** Name in the cache: a keyed hash, so that the cache holds no passwords and nobody can make two of them collide. */
	#name(password: string | Uint8Array, salt: Uint8Array, iterations: number): string {
		const name = createHmac("sha256", this.#nameKey);
		// Lengths first: (password "a", salt "bc") must not meet (password "ab", salt "c").
		name.update(`${iterations}:${salt.length}:`).update(salt).update(password);
		return name.digest("base64");
	}
}

function subkey(secret: Uint8Array, purpose: string): Uint8Array {
	return new Uint8Array(hkdfSync("sha256", secret, "", purpose, KEY_LENGTH));
}

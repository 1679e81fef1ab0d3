// The text form of a SCRAM verifier, as PostgreSQL keeps it in `pg_authid.rolpassword` and users.toml in `password_hash`.
// Called by login.ts for clients and by main.ts for `pgdog hash`. PostgreSQL docs, catalog "pg_authid".

import { randomBytes } from "node:crypto";
import { decodeBase64 } from "./bytes.ts";
import { DEFAULT_ITERATIONS, deriveKeys, KEY_LENGTH, SALT_LENGTH, type ScramVerifier } from "./scram-keys.ts";

/** Reads `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`; null when the text is anything else. */
export function parseVerifier(text: string): ScramVerifier | null {
	const parts = /^SCRAM-SHA-256\$([1-9][0-9]{0,9}):([^$:]+)\$([^$:]+):([^$:]+)$/.exec(text);
	if (parts === null) return null;
	const iterations = Number(parts[1]);
	const [salt, storedKey, serverKey] = parts.slice(2).map(decodeBase64);
	if (!salt || !storedKey || !serverKey || salt.length === 0) return null;
	if (storedKey.length !== KEY_LENGTH || serverKey.length !== KEY_LENGTH) return null;
	// The iteration count is an int in PostgreSQL.
	if (iterations > 0x7fffffff) return null;
	return { iterations, salt, storedKey, serverKey };
}

export function formatVerifier(verifier: ScramVerifier): string {
	const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
	const { iterations, salt, storedKey, serverKey } = verifier;
	return `SCRAM-SHA-256$${iterations}:${base64(salt)}$${base64(storedKey)}:${base64(serverKey)}`;
}

/** A new verifier for `password` as text. A fresh 16-byte salt and 4096 iterations unless given. */
export async function hashPassword(
	password: string,
	salt: Uint8Array = randomBytes(SALT_LENGTH),
	iterations = DEFAULT_ITERATIONS,
): Promise<string> {
	const { storedKey, serverKey } = await deriveKeys(password, salt, iterations);
	return formatVerifier({ iterations, salt, storedKey, serverKey });
}

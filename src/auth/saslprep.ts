// Turns a password into the bytes that SCRAM hashes: SASLprep (RFC 4013) where it applies, the raw bytes where it does not.
// Called by scram-keys.ts and login.ts; knows nothing of SCRAM.

// `fatal` because invalid UTF-8 must be noticed, `ignoreBOM` because a leading U+FEFF is part of the password until
// SASLprep maps it to nothing; without it the decoder would drop it even where the raw bytes count.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Bytes of a client's password beyond which it is taken raw. Normalization is quadratic in a run of combining marks: 64 KB
 * of them, sent by somebody who is not logged in yet, would hold the event loop for over a second. Our guess.
 */
const MAX_UNTRUSTED = 1024;

/** The profile itself. Its tables take 30 ms and 4 MB to unpack in each thread, which few have to: most passwords are ASCII. */
function saslprep(password: string): string {
	const library: typeof import("@mongodb-js/saslprep") = require("@mongodb-js/saslprep");
	return library.saslprep(password);
}

/**
 * PostgreSQL's rule (`pg_saslprep` and its callers): SASLprep when the password is valid UTF-8 and the profile allows it,
 * otherwise the bytes as they came. So both ends agree even on passwords that RFC 4013 prohibits. Never throws.
 * A string is a password of the configuration, bytes are what a client sent.
 */
export function preparePassword(password: string | Uint8Array): Uint8Array {
	const raw = typeof password === "string" ? Buffer.from(password, "utf8") : password;
	if (isAscii(raw) || (raw === password && raw.length > MAX_UNTRUSTED)) return raw;
	try {
		const prepared = saslprep(utf8.decode(raw));
		// Nothing left after mapping: PostgreSQL falls back to the raw bytes rather than accept an empty password.
		return prepared.length === 0 ? raw : Buffer.from(prepared, "utf8");
	} catch {
		return raw;
	}
}

function isAscii(bytes: Uint8Array): boolean {
	for (let i = 0; i < bytes.length; i++) if ((bytes[i] as number) > 0x7f) return false;
	return true;
}

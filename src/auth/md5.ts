// The MD5 challenge, the same function for both ends: PostgreSQL docs, "Message Flow", AuthenticationMD5Password.
// Called by login.ts and server-login.ts; knows nothing of messages.

import { createHash } from "node:crypto";

/** What a PasswordMessage carries (without its NUL): `md5` + md5(md5(password + user) + salt). `salt` is 4 bytes. */
export function md5Response(password: string | Uint8Array, user: string, salt: Uint8Array): string {
	return md5Salted(md5Hash(password, user), salt);
}

/** As `md5Response`, by the hash alone. */
export function md5Salted(hash: string, salt: Uint8Array): string {
	return `md5${createHash("md5").update(hash.slice(3)).update(salt).digest("hex")}`;
}

/** What a server with `password_encryption = md5` keeps: `md5` + md5(password + user). */
export function md5Hash(password: string | Uint8Array, user: string): string {
	return `md5${createHash("md5").update(password).update(user).digest("hex")}`;
}

/** Whether a secret is such a hash. */
export function isMd5Hash(secret: string): boolean {
	return /^md5[0-9a-f]{32}$/.test(secret);
}

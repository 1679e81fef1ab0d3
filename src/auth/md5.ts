// The MD5 challenge, the same function for both ends: PostgreSQL docs, "Message Flow", AuthenticationMD5Password.
// Called by login.ts and server-login.ts; knows nothing of messages.

import { createHash } from "node:crypto";

/** What a PasswordMessage carries (without its NUL): `md5` + md5(md5(password + user) + salt). `salt` is 4 bytes. */
export function md5Response(password: string | Uint8Array, user: string, salt: Uint8Array): string {
	const inner = createHash("md5").update(password).update(user).digest("hex");
	return `md5${createHash("md5").update(inner).update(salt).digest("hex")}`;
}

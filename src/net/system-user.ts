// A user of the operating system by its number, which the kernel says of whoever has connected by a Unix socket (`peerOf`): its name in
// the user database (getpwuid_r(3): /etc/passwd, and whatever else nsswitch.conf has). Asked by Stream.

import { readFileSync } from "node:fs";
import { addressOf, libc } from "./options.ts";

/** `uid` -1: nobody knows. `name` null: nobody has that number here, or everybody (`overflow`). */
export interface SystemUser {
	readonly uid: number;
	readonly name: string | null;
}

/** Bytes for what there is to say of a user; one of whom there is more has no name. A guess. */
const LONGEST = 16 << 10;
/** At least as many as a struct passwd has; the name's address is the first. */
const WORDS = 16;
/** As the kernel has it until somebody changes it. */
const OVERFLOW = 65_534;

/**
 * Takes some µs for a user of /etc/passwd. A directory (LDAP) that has to be asked keeps the thread waiting, as it does PostgreSQL's
 * process.
 */
export function systemUser(uid: number): SystemUser {
	return { uid, name: uid < 0 || uid === overflow() ? null : nameOf(uid) };
}

/**
 * The number of all users who have none in this process's namespace (user_namespaces(7)): with systemd's `PrivateUsers=yes`, and in some
 * containers, nobody can be told from anybody else by it.
 */
function overflow(): number {
	try {
		return Number(readFileSync("/proc/sys/kernel/overflowuid", "latin1"));
	} catch {
		return OVERFLOW;
	}
}

function nameOf(uid: number): string | null {
	const user = new BigUint64Array(new ArrayBuffer(8 * WORDS));
	const texts = Buffer.from(new ArrayBuffer(LONGEST));
	const found = new BigUint64Array(new ArrayBuffer(8));
	if (libc?.getpwuid_r(uid, user, texts, BigInt(LONGEST), found) !== 0 || found[0] === 0n) return null;
	const start = Number(user[0]! - addressOf(texts));
	return texts.toString("utf8", start, texts.indexOf(0, start));
}

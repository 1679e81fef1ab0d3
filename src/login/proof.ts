// How a client has to prove who it is: as the entry of `[[hba]]` says that its log-in meets, else as `auth_type` says; and what its
// certificate is good for. Asked by startup.ts; sends nothing.

import type { AuthType } from "../auth/login.ts";
import { parseVerifier } from "../auth/verifier.ts";
import type { ClientContext } from "../client/context.ts";
import { type HbaEntry, LOCAL, meets, refusedBy } from "../config/hba.ts";
import type { General } from "../config/settings.ts";
import type { User } from "../config/snapshot.ts";
import { PgError } from "../errors.ts";
import { hostOf } from "../net/names.ts";
import type { SystemUser } from "../net/system-user.ts";
import type { Secured, TlsIdentity } from "../net/tls.ts";
import { noUser, RELOADED } from "./refusals.ts";

/** A client that has said who it is. */
interface Comer {
	readonly user: string;
	readonly database: string;
	/** `address:port`, or `unix`. */
	readonly address: string;
	readonly isAdmin: boolean;
}

/** What its log-in has come to so far; `entry` null: there is no list, or nothing in it fits. */
export interface Admission {
	readonly list: readonly HbaEntry[];
	readonly entry: HbaEntry | null;
	/** Whether it was the admin's name: a reload may give that to another. */
	readonly isAdmin: boolean;
	/** Decides where there is no list. */
	readonly authType: AuthType;
	readonly refusal: PgError | null;
}

/** What decides about it. */
interface Rules {
	/** Empty: there is none, and all clients are let on. */
	readonly hba: readonly HbaEntry[];
	readonly general: Pick<General, "auth_type">;
}

/** What the list says of a client, before anybody asks whether there is such a user: whoever is refused by it learns of the list only. */
export function admit(rules: Rules, { user, database, address, isAdmin }: Comer, isEncrypted: boolean): Admission {
	const { hba: list, general } = rules;
	const common = { list, isAdmin, authType: general.auth_type };
	if (list.length === 0) return { ...common, entry: null, refusal: null };
	const host = address === "unix" ? LOCAL : hostOf(address);
	const login = { user, database, host, isEncrypted };
	const entry = meets(list, login);
	const message = refusedBy(entry, login);
	return { ...common, entry, refusal: message === null ? null : new PgError("FATAL", "28000", message) };
}

/**
 * Why what a client has proven is not enough: a reload has come since, and nobody gets in partly by what was in force before.
 * @param byCertificate nothing else has let it in
 */
export function readmit(
	before: Admission,
	rules: Rules & Pick<ClientContext, "tls">,
	comer: Comer,
	identity: TlsIdentity | null,
	byCertificate: boolean,
): PgError | null {
	if (byCertificate && identity?.authorities !== rules.tls.clients?.authorities) return RELOADED;
	if (comer.isAdmin !== before.isAdmin) return RELOADED;
	if (rules.hba === before.list && rules.general.auth_type === before.authType) return null;
	const next = admit(rules, comer, identity !== null);
	const isEnough = ["trust", proofOf(before)].includes(proofOf(next));
	return next.refusal ?? (isEnough ? null : RELOADED);
}

/**
 * What a client has to have: `trust` is nothing, `cert` a certificate, `peer` a user of the system, all else a password, in whatever way
 * that is asked for; and so are `trust` and `cert` where the admin comes.
 */
function proofOf({ entry, authType, isAdmin }: Admission): string {
	const method = entry?.method ?? authType;
	if (method === "peer") return method;
	return !isAdmin && (method === "trust" || method === "cert") ? method : "password";
}

/**
 * Why `peer` does not let a client in; null: it does, or is not what is asked for. The admin comes so, too, as he does not by `trust`:
 * it proves as much as a password, and from the network nobody has a way to try.
 */
export function judgePeer({ entry }: Admission, user: string, peer: () => SystemUser): string | null {
	if (entry?.method !== "peer") return null;
	const { uid, name } = peer();
	if (name === user) return null;
	return name === null ? `nobody knows the system's user ${uid}` : `it is the system's user ${JSON.stringify(name)}`;
}

/**
 * Whether a client gets in by what is known of it without a question: by its certificate, or by `peer`, which has been judged already.
 * @param account, tls, names as in `judgeCertificate`
 * @returns what lets it in, or why nothing does; null: it is asked
 */
export function judgeShown(
	account: Known | null,
	entry: HbaEntry | null,
	comer: Comer,
	tls: TlsIdentity | null,
	names: Secured["names"],
): { readonly by: "cert" | "peer" } | { readonly wrong: string; readonly error?: PgError } | null {
	const wrong = judgeCertificate(account, entry, comer, tls, names);
	if (wrong !== null) return wrong === "" ? { by: "cert" } : { wrong };
	if (entry?.method !== "peer") return null;
	if (account !== null || comer.isAdmin) return { by: "peer" };
	return { wrong: "unknown user or database, or no password is configured", error: noUser(comer) };
}

/** A user that there is. */
type Known = Pick<User, "identity" | "password_hash" | "tls_client_certificate_required">;

/**
 * What a client's certificate is good for.
 * @param account null: the admin, or nobody whom we know
 * @param tls null: the connection is not encrypted
 * @returns what is wrong with it, or with there being none; "" when it lets the client in; null: it is not what lets it in
 */
export function judgeCertificate(
	account: Known | null,
	entry: HbaEntry | null,
	comer: { readonly user: string; readonly isAdmin: boolean },
	tls: TlsIdentity | null,
	names: Secured["names"],
): string | null {
	const isCert = entry?.method === "cert" && !comer.isAdmin;
	const identity = account?.identity ?? (isCert ? comer.user : undefined);
	if (identity === undefined) {
		const asked = tls !== null && tls.authorities !== null;
		const isMissing = asked && names === null && account?.tls_client_certificate_required !== false;
		return isMissing ? "it has shown no certificate" : null;
	}
	const asks = account?.identity === undefined ? "method cert asks for" : "its identity asks for";
	if (names === null) return `it has shown no certificate, which ${asks}`;
	if (account === null) return "unknown user or database, or no password is configured";
	const name = names.dns[0] ?? names.common;
	const other = account.identity === undefined ? "its user is another" : "its identity is another";
	return name === identity ? "" : `its certificate is of ${JSON.stringify(name)}, ${other}`;
}

/** How a client is asked that its certificate does not let in. */
export function methodOf(
	{ entry, authType }: Pick<Admission, "entry" | "authType">,
	account: Known | null,
	isAdmin: boolean,
): AuthType {
	const method = entry === null ? authType : METHODS[entry.method];
	// Whoever may reach the port could stop the proxy there.
	if (isAdmin && method === "trust") return "scram";
	// PostgreSQL's md5 means both: what the user's secret is good for. Others are asked as one is who has a password.
	if (entry !== null && method === "md5" && parseVerifier(account?.password_hash ?? "") !== null) return "scram";
	return method;
}

/** `reject`, `peer` and `cert` have decided before, but for the admin, who needs no certificate of its name beside its password. */
const METHODS = {
	trust: "trust",
	"scram-sha-256": "scram",
	md5: "md5",
	password: "plain",
	cert: "scram",
	peer: "scram",
	reject: "scram",
} as const satisfies Record<HbaEntry["method"], AuthType>;

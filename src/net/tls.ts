// TLS on a connection that is open already, as PostgreSQL begins it: after SSLRequest and its answer, or with the first byte.
// Nobody but this room knows how bytes are encrypted; others ask a Stream whether they are (`Stream.secured`).

import { createHash, X509Certificate } from "node:crypto";
import type { Socket } from "bun";
import { reasonOf } from "../errors.ts";

/** What we show the peer, and what we ask of it. PEM texts. One frozen object for each load of the files: Bun keeps a context for it. */
export interface TlsIdentity {
	readonly certificate: string;
	readonly key: string;
	/** Whose certificates a peer may show; null: none is asked for. */
	readonly authorities: string | null;
	/** 0x303: TLS 1.2, 0x304: TLS 1.3. */
	readonly minimum: number;
	/** What SCRAM binds a login to, in base64: `tls-server-end-point` (RFC 5929, section 4) of the certificate; null: there is none. */
	readonly endPoint: string | null;
}

/** What a server has to show us, and what we show it. PEM texts; one frozen object for each load of the files. */
export interface TlsDemands {
	/** `prefer`: plain text where it has no TLS, and any certificate will do. */
	readonly verify: "prefer" | "verify_ca" | "verify_full";
	/** Whose certificates we trust; null: those authorities' that Bun has built in. */
	readonly authorities: string | null;
	readonly identity: { readonly certificate: string; readonly key: string } | null;
}

/** How a connection is encrypted, and who the peer has shown itself to be. */
export interface Secured {
	/** `TLSv1.3`. */
	readonly version: string;
	readonly cipher: string;
	/** Names in a client's certificate, which is valid: CN, then DNS names. Null: it has shown none. */
	readonly names: PeerNames | null;
	/** As `TlsIdentity.endPoint`, of the certificate that a server has shown us. */
	readonly endPoint: string | null;
}

interface PeerNames {
	readonly common: string | null;
	readonly dns: readonly string[];
}

/** The protocol that both ends have to agree on where TLS begins with the first byte (PostgreSQL docs, "SSL Session Encryption"). */
export const ALPN = "postgresql";
/** Asks a server for TLS (PostgreSQL docs, "Message Formats"). */
export const SSL_REQUEST: Buffer = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);

/** A list of names as ALPN has it on the wire: each after its length. */
export const ALPN_LIST: Buffer = Buffer.from(`\x0a${ALPN}`, "latin1");

/** The first byte of a TLS record that holds a ClientHello: TLS without SSLRequest (`sslnegotiation=direct`). */
export const CLIENT_HELLO = 0x16;

/** What the methods of an encrypted socket say of a peer's certificate; not all in Bun's types. */
interface PeerCertificate {
	/** DER. */
	readonly raw?: Buffer;
	readonly subject?: { readonly CN?: string | readonly string[] };
	readonly subjectaltname?: string;
}

type Inspected = Pick<Socket<unknown>, "getTLSVersion" | "getCipher"> & {
	getPeerCertificate(): PeerCertificate | undefined;
};

/** Judges a finished handshake. @returns how the connection is encrypted, or why it is not to be used */
export type Judge = (socket: Socket<unknown>, ok: boolean, verified: Error | undefined) => Secured | string;

/** Of a client: it need not show a certificate, but one that it shows has to be valid. */
export const judgeClient: Judge = (socket, ok, verified) => {
	if (!ok) return reasonOf(verified ?? "broken off");
	const certificate = certificateOf(socket);
	if (certificate === null) return secured(socket, null, null);
	return verified === undefined ? secured(socket, namesOf(certificate), null) : reasonOf(verified);
};

/** Of a server: what is wrong with its certificate counts as far as `verify` says. */
export function judgeServer(verify: TlsDemands["verify"]): Judge {
	return (socket, ok, verified) => {
		const certificate = certificateOf(socket);
		// Bun (1.4.5) says "not ok" of some of what is wrong with a certificate, too (a root that it does not know, another's name), which
		// is for `verify` to judge. A handshake that was broken off may have got as far as the certificate: that proves nothing.
		const isBroken = !ok && (verified === undefined || verified.message.startsWith("error:"));
		if (certificate === null || isBroken) return reasonOf(verified ?? "broken off");
		// Its name is looked at last: whoever has the wrong one only is of an authority that we trust.
		const isName = (verified as { code?: string } | undefined)?.code === "ERR_TLS_CERT_ALTNAME_INVALID";
		if (verified !== undefined && (verify === "verify_full" || (verify === "verify_ca" && !isName)))
			return reasonOf(verified);
		return secured(socket, null, endPointOf(certificate.raw));
	};
}

function certificateOf(socket: Socket<unknown>): PeerCertificate | null {
	// An empty object from node:tls, nothing from Bun.
	const certificate = (socket as unknown as Inspected).getPeerCertificate() ?? {};
	return Object.keys(certificate).length > 0 ? certificate : null;
}

function secured(socket: Socket<unknown>, names: PeerNames | null, endPoint: string | null): Secured {
	const inspected = socket as unknown as Inspected;
	const cipher = inspected.getCipher() as { name?: string } | undefined;
	return { version: inspected.getTLSVersion() || "TLS", cipher: cipher?.name ?? "", names, endPoint };
}

/**
 * `tls-server-end-point` of a certificate, in base64: its hash by the algorithm that it is signed with, SHA-256 in place of MD5 and
 * SHA-1 (RFC 5929, section 4.1). Null: its signature has no hash function of that kind (Ed25519).
 */
export function endPointOf(der: Uint8Array | undefined): string | null {
	if (der === undefined) return null;
	const { signatureAlgorithm = "" } = new X509Certificate(der);
	const name = /sha-?(1|224|256|384|512)|md5/i.exec(signatureAlgorithm);
	if (name === null) return null;
	const bits = name[1] === undefined || name[1] === "1" ? "256" : name[1];
	return createHash(`sha${bits}`).update(der).digest("base64");
}

function namesOf({ subject, subjectaltname }: PeerCertificate): PeerNames {
	const common = subject?.CN;
	const dns = (subjectaltname ?? "").split(", ").flatMap((name) => (name.startsWith("DNS:") ? [name.slice(4)] : []));
	return { common: typeof common === "string" ? common : (common?.[0] ?? null), dns };
}

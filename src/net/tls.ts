// TLS on a connection that is open already, as PostgreSQL begins it: after SSLRequest and its answer, or with the first byte.
// Nobody but this room knows how bytes are encrypted; others ask a Stream whether they are (`Stream.secured`).

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

/** How a connection is encrypted, and who the peer has shown itself to be. */
export interface Secured {
	/** `TLSv1.3`. */
	readonly version: string;
	readonly cipher: string;
	/** Names in the peer's certificate, which is valid: CN, then DNS names. Null: it has shown none. */
	readonly names: PeerNames | null;
}

interface PeerNames {
	readonly common: string | null;
	readonly dns: readonly string[];
}

/** The protocol that both ends have to agree on where TLS begins with the first byte (PostgreSQL docs, "SSL Session Encryption"). */
export const ALPN = "postgresql";
/** A list of names as ALPN has it on the wire: each after its length. */
export const ALPN_LIST: Buffer = Buffer.from(`\x0a${ALPN}`, "latin1");

/** The first byte of a TLS record that holds a ClientHello: TLS without SSLRequest (`sslnegotiation=direct`). */
export const CLIENT_HELLO = 0x16;

/** What the methods of an encrypted socket say of a peer's certificate; not all in Bun's types. */
interface PeerCertificate {
	readonly subject?: { readonly CN?: string | readonly string[] };
	readonly subjectaltname?: string;
}

type Inspected = Pick<Socket<unknown>, "getTLSVersion" | "getCipher"> & {
	getPeerCertificate(): PeerCertificate | undefined;
};

/** What a finished handshake has come to. @param verified what OpenSSL said of the peer's certificate; undefined: nothing wrong */
export function inspect(socket: Socket<unknown>, verified: Error | undefined): Secured | string {
	const inspected = socket as unknown as Inspected;
	// An empty object from node:tls, nothing from Bun.
	const certificate = inspected.getPeerCertificate() ?? {};
	const shown = Object.keys(certificate).length > 0;
	if (shown && verified !== undefined) return reasonOf(verified);
	const cipher = inspected.getCipher() as { name?: string } | undefined;
	return {
		version: inspected.getTLSVersion() || "TLS",
		cipher: cipher?.name ?? "",
		names: shown ? namesOf(certificate) : null,
	};
}

function namesOf({ subject, subjectaltname }: PeerCertificate): PeerNames {
	const common = subject?.CN;
	const dns = (subjectaltname ?? "").split(", ").flatMap((name) => (name.startsWith("DNS:") ? [name.slice(4)] : []));
	return { common: typeof common === "string" ? common : (common?.[0] ?? null), dns };
}

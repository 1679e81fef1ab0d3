// Reads the files that TLS needs. What they hold is part of the snapshot, so that a reload that cannot read one changes nothing,
// and workers touch no files.

import { createHash, createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import type { TlsIdentity } from "../net/tls.ts";
import { type Findings, show, type ValueSource } from "./problem.ts";
import type { General } from "./settings.ts";

/** What is read of the files that `[general]` names. */
export interface TlsFiles {
	/** For clients; null: they are not offered TLS. */
	readonly clients: TlsIdentity | null;
}

export const NO_TLS: TlsFiles = { clients: null };

/** Less than this before a certificate ends, ms: it is warned of. */
const SOON = 7 * 24 * 3600 * 1000;

/** Gathers what is wrong with the files under the setting that names each. */
class Files {
	private readonly source: ValueSource;
	private readonly report: Findings;

	constructor(source: ValueSource, report: Findings) {
		this.source = source;
		this.report = report;
	}

	/** @returns the text of a file; undefined when it cannot be read, which has been reported */
	read(name: keyof General, path: string, what: string): string | undefined {
		try {
			return readFileSync(path, "utf8");
		} catch (error) {
			const { code } = error as NodeJS.ErrnoException;
			this.wrong(name, path, what, code === "ENOENT" ? "there is no such file" : (code ?? String(error)));
			return undefined;
		}
	}

	wrong(name: keyof General, path: string, what: string, why: string): void {
		this.report.problem(this.source, `general.${name}`, "value", show(path), `${what} (${why})`);
	}

	/**
	 * The certificates of a PEM file, at least one, and their text with nothing around it, which Bun may stumble over at each
	 * handshake. Undefined: they cannot be read, which has been reported.
	 */
	certificates(
		name: keyof General,
		path: string,
	): { readonly pem: string; readonly chain: X509Certificate[] } | undefined {
		const text = this.read(name, path, CERTIFICATES);
		if (text === undefined) return undefined;
		const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
		try {
			if (text.split("-----BEGIN CERTIFICATE-----").length > blocks.length + 1) throw new Error("one is cut off");
			if (blocks.length === 0) throw new Error("it holds none");
			return { pem: blocks.join("\n"), chain: blocks.map((block) => new X509Certificate(block)) };
		} catch (error) {
			this.wrong(name, path, CERTIFICATES, (error as Error).message);
			return undefined;
		}
	}

	/** Warns of a certificate that clients will refuse, or will soon. */
	judgeDates(name: keyof General, path: string, { validFromDate, validToDate }: X509Certificate, now: number): void {
		const what = `${name} ${show(path)}`;
		const warn = (text: string) => this.report.warn(this.source, `general.${name}`, text);
		if (now > validToDate.getTime()) warn(`${what} has expired on ${validToDate.toISOString()}`);
		else if (now > validToDate.getTime() - SOON) warn(`${what} expires on ${validToDate.toISOString()}`);
		if (now < validFromDate.getTime()) warn(`${what} is not valid before ${validFromDate.toISOString()}`);
	}
}

const CERTIFICATES = "a PEM file of certificates";
const KEY = "a PEM file of a private key without passphrase";

/** @param now for the dates in certificates, ms since the epoch */
export function readTls(general: General, source: ValueSource, report: Findings, now = Date.now()): TlsFiles {
	return { clients: readIdentity(general, new Files(source, report), source, report, now) };
}

function readIdentity(
	general: General,
	files: Files,
	source: ValueSource,
	report: Findings,
	now: number,
): TlsIdentity | null {
	const { tls_certificate, tls_private_key, tls_client_ca_certificate, tls_client_required, tls_min_version } = general;
	if (tls_certificate === undefined || tls_private_key === undefined) {
		const half = tls_certificate === undefined ? "tls_certificate" : "tls_private_key";
		const whole = tls_certificate === undefined && tls_private_key === undefined;
		if (!whole)
			report.problem(source, `general.${half}`, "missing", "", "tls_certificate and tls_private_key, or neither");
		else if (tls_client_required) needed("tls_client_required", "true");
		else if (tls_client_ca_certificate !== undefined)
			needed("tls_client_ca_certificate", show(tls_client_ca_certificate));
		return null;
	}
	const own = files.certificates("tls_certificate", tls_certificate);
	const key = files.read("tls_private_key", tls_private_key, KEY);
	const authorities =
		tls_client_ca_certificate === undefined
			? null
			: files.certificates("tls_client_ca_certificate", tls_client_ca_certificate);
	if (own === undefined || key === undefined || authorities === undefined) return null;
	const leaf = own.chain[0]!;
	try {
		if (!leaf.checkPrivateKey(createPrivateKey(key))) {
			files.wrong("tls_private_key", tls_private_key, "the key of tls_certificate", "it does not fit the certificate");
			return null;
		}
	} catch (error) {
		files.wrong("tls_private_key", tls_private_key, KEY, (error as Error).message);
		return null;
	}
	files.judgeDates("tls_certificate", tls_certificate, leaf, now);
	for (const authority of authorities?.chain ?? [])
		files.judgeDates("tls_client_ca_certificate", tls_client_ca_certificate!, authority, now);
	return {
		certificate: own.pem,
		key,
		authorities: authorities?.pem ?? null,
		minimum: tls_min_version === "1.3" ? 0x304 : 0x303,
		endPoint: endPointOf(leaf),
	};

	function needed(name: string, value: string): void {
		report.problem(
			source,
			`general.${name}`,
			"value",
			value,
			"that only together with tls_certificate and tls_private_key",
		);
	}
}

/**
 * `tls-server-end-point` of a certificate, in base64: its hash by the algorithm that it is signed with, SHA-256 in place of MD5 and
 * SHA-1 (RFC 5929, section 4.1). Null: its signature has no hash function of that kind (Ed25519).
 */
function endPointOf(certificate: X509Certificate): string | null {
	const name = /sha-?(1|224|256|384|512)|md5/i.exec(certificate.signatureAlgorithm ?? "");
	if (name === null) return null;
	const bits = name[1] === undefined || name[1] === "1" ? "256" : name[1];
	return createHash(`sha${bits}`).update(certificate.raw).digest("base64");
}

// Reads the files that TLS needs. What they hold is part of the snapshot, so that a reload that cannot read one changes nothing,
// and workers touch no files.

import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { endPointOf, type TlsDemands, type TlsIdentity } from "../net/tls.ts";
import { type Findings, show, type ValueSource } from "./problem.ts";
import type { General } from "./settings.ts";

/** What is read of the files that `[general]` names. */
export interface TlsFiles {
	/** For clients; null: they are not offered TLS. */
	readonly clients: TlsIdentity | null;
	/** For servers; null: they are not asked for TLS. */
	readonly servers: TlsDemands | null;
}

export const NO_TLS: TlsFiles = { clients: null, servers: null };

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

	missing(name: keyof General, accepted: string): void {
		this.report.problem(this.source, `general.${name}`, "missing", "", accepted);
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
	const files = new Files(source, report);
	return {
		clients: readIdentity(general, files, source, report, now),
		servers: readDemands(general, files, source, report, now),
	};
}

/** A certificate with its key, of which both have to be named, or neither. */
function readPair(
	general: General,
	certificate: "tls_certificate" | "tls_server_certificate",
	key: "tls_private_key" | "tls_server_private_key",
	files: Files,
	now: number,
): { readonly certificate: string; readonly key: string; readonly leaf: X509Certificate } | null {
	const [path, keyPath] = [general[certificate], general[key]];
	if (path === undefined || keyPath === undefined) {
		if (path !== keyPath)
			files.missing(path === undefined ? certificate : key, `${certificate} and ${key}, or neither`);
		return null;
	}
	const own = files.certificates(certificate, path);
	const secret = files.read(key, keyPath, KEY);
	if (own === undefined || secret === undefined) return null;
	const leaf = own.chain[0]!;
	try {
		if (!leaf.checkPrivateKey(createPrivateKey(secret))) {
			files.wrong(key, keyPath, `the key of ${certificate}`, "it does not fit the certificate");
			return null;
		}
	} catch (error) {
		files.wrong(key, keyPath, KEY, (error as Error).message);
		return null;
	}
	files.judgeDates(certificate, path, leaf, now);
	return { certificate: own.pem, key: secret, leaf };
}

/** The certificates of authorities; null where none are named. */
function readAuthorities(
	general: General,
	name: "tls_client_ca_certificate" | "tls_server_ca_certificate",
	files: Files,
	now: number,
): string | null {
	const path = general[name];
	if (path === undefined) return null;
	const found = files.certificates(name, path);
	for (const authority of found?.chain ?? []) files.judgeDates(name, path, authority, now);
	return found?.pem ?? null;
}

function readIdentity(
	general: General,
	files: Files,
	source: ValueSource,
	report: Findings,
	now: number,
): TlsIdentity | null {
	const pair = readPair(general, "tls_certificate", "tls_private_key", files, now);
	if (general.tls_certificate === undefined && general.tls_private_key === undefined) {
		const alone = "that only together with tls_certificate and tls_private_key";
		const { tls_client_ca_certificate: path } = general;
		if (general.tls_client_required) report.problem(source, "general.tls_client_required", "value", "true", alone);
		if (path !== undefined) report.problem(source, "general.tls_client_ca_certificate", "value", show(path), alone);
		return null;
	}
	const authorities = readAuthorities(general, "tls_client_ca_certificate", files, now);
	if (pair === null) return null;
	const { certificate, key, leaf } = pair;
	const minimum = general.tls_min_version === "1.3" ? 0x304 : 0x303;
	return { certificate, key, authorities, minimum, endPoint: endPointOf(leaf.raw) };
}

function readDemands(
	general: General,
	files: Files,
	source: ValueSource,
	report: Findings,
	now: number,
): TlsDemands | null {
	const identity = readPair(general, "tls_server_certificate", "tls_server_private_key", files, now);
	const authorities = readAuthorities(general, "tls_server_ca_certificate", files, now);
	const { tls_verify: verify, tls_server_ca_certificate: path } = general;
	if (path !== undefined && (verify === "disabled" || verify === "prefer")) {
		const text = `tls_server_ca_certificate has no effect with tls_verify = "${verify}": no certificate is verified`;
		report.warn(source, "general.tls_server_ca_certificate", text);
	}
	if (verify === "disabled") return null;
	return { verify, authorities, identity: identity && { certificate: identity.certificate, key: identity.key } };
}

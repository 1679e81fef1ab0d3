// Reads the files that TLS needs. What they hold is part of the snapshot, so that a reload that cannot read one changes nothing,
// and workers touch no files.

import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { endPointOf, type TlsDemands, type TlsIdentity } from "../net/tls.ts";
import { joinKey } from "./locate.ts";
import { type Findings, show, type ValueSource } from "./problem.ts";
import type { General } from "./settings.ts";

/** What is read of the files that `[general]` names. */
export interface TlsFiles {
	/** For clients; null: they are not offered TLS. */
	readonly clients: TlsIdentity | null;
	/** For servers, where their entry says nothing; null: they are not asked for TLS. */
	readonly servers: TlsDemands | null;
}

export const NO_TLS: TlsFiles = { clients: null, servers: null };

type FileSetting =
	| "tls_certificate"
	| "tls_private_key"
	| "tls_client_ca_certificate"
	| "tls_server_certificate"
	| "tls_server_private_key"
	| "tls_server_ca_certificate";

/** Paths, as `[general]` or an entry has them. */
type Paths = { readonly [name in FileSetting]?: string | undefined };

/** What `[[databases]]` may say in the place of `[general]`. */
interface ServerSettings
	extends Pick<Paths, "tls_server_certificate" | "tls_server_private_key" | "tls_server_ca_certificate"> {
	readonly tls_verify?: General["tls_verify"] | undefined;
}

/** Where settings stand. */
interface Place {
	/** `general`, `databases[1]`, `users[0]`. */
	readonly at: string;
	readonly source: ValueSource;
}

/** Less than this before a certificate ends, ms: it is warned of. */
const SOON = 7 * 24 * 3600 * 1000;

/** Gathers what is wrong with the files under the setting that names each. */
class Files {
	private readonly place: Place;
	private readonly report: Findings;
	/** For the dates in certificates, ms since the epoch. */
	private readonly now: number;

	constructor(place: Place, report: Findings, now: number) {
		this.place = place;
		this.report = report;
		this.now = now;
	}

	/** @returns the text of a file; undefined when it cannot be read, which has been reported */
	read(name: FileSetting, path: string, what: string): string | undefined {
		try {
			return readFileSync(path, "utf8");
		} catch (error) {
			const { code } = error as NodeJS.ErrnoException;
			this.wrong(name, path, what, code === "ENOENT" ? "there is no such file" : (code ?? String(error)));
			return undefined;
		}
	}

	problem(name: keyof General, wrong: "missing" | "value", found: string, accepted: string): void {
		const { at, source } = this.place;
		this.report.problem(source, joinKey(at, name), wrong, found, accepted);
	}

	warn(name: FileSetting, text: string): void {
		const { at, source } = this.place;
		this.report.warn(source, joinKey(at, name), text);
	}

	wrong(name: FileSetting, path: string, what: string, why: string): void {
		this.problem(name, "value", show(path), `${what} (${why})`);
	}

	/**
	 * The certificates of a PEM file, at least one, and their text with nothing around it, which Bun may stumble over at each
	 * handshake. Undefined: they cannot be read, which has been reported.
	 */
	certificates(
		name: FileSetting,
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
	judgeDates(name: FileSetting, path: string, { validFromDate, validToDate }: X509Certificate): void {
		const { now } = this;
		const what = `${name} ${show(path)}`;
		const warn = (text: string) => this.warn(name, text);
		if (now > validToDate.getTime()) warn(`${what} has expired on ${validToDate.toISOString()}`);
		else if (now > validToDate.getTime() - SOON) warn(`${what} expires on ${validToDate.toISOString()}`);
		if (now < validFromDate.getTime()) warn(`${what} is not valid before ${validFromDate.toISOString()}`);
	}
}

const CERTIFICATES = "a PEM file of certificates";
const KEY = "a PEM file of a private key without passphrase";

/** Reads the files that `[general]` names, then those of entries, which win over them. */
export class TlsReading {
	readonly files: TlsFiles;
	private readonly report: Findings;
	private readonly now: number;
	/** What `[general]` says of servers, `tls_verify` apart. */
	private readonly general: General;
	private readonly servers: Omit<TlsDemands, "verify">;

	/** @param now for the dates in certificates, ms since the epoch */
	constructor(general: General, source: ValueSource, report: Findings, now = Date.now()) {
		this.report = report;
		this.now = now;
		this.general = general;
		const files = this.at({ at: "general", source });
		const clients = readIdentity(general, files);
		const { identity, authorities } = readServerFiles(general, general.tls_verify, files);
		this.servers = { identity, authorities };
		this.files = { clients, servers: demands(general.tls_verify, this.servers) };
	}

	private at(place: Place): Files {
		return new Files(place, this.report, this.now);
	}

	/** What is asked of the servers of an entry of `[[databases]]`. */
	ofDatabase(entry: ServerSettings, place: Place): TlsDemands | null {
		const { tls_verify: own, tls_server_certificate, tls_server_private_key, tls_server_ca_certificate } = entry;
		const given = [own, tls_server_certificate, tls_server_private_key, tls_server_ca_certificate];
		if (given.every((value) => value === undefined)) return this.files.servers;
		const verify = own ?? this.general.tls_verify;
		const { identity, authorities } = readServerFiles(entry, verify, this.at(place));
		const { servers } = this;
		return demands(verify, {
			identity: identity ?? servers.identity,
			authorities: authorities ?? servers.authorities,
		});
	}

	/** What servers are shown for an entry of `[[users]]`; null: what their own entry says. */
	ofUser(entry: Paths, place: Place): TlsDemands["identity"] {
		return readServerPair(entry, this.at(place));
	}
}

function demands(verify: General["tls_verify"], files: Omit<TlsDemands, "verify">): TlsDemands | null {
	return verify === "disabled" ? null : { verify, ...files };
}

/** A certificate with its key, of which both have to be named, or neither. */
function readPair(
	paths: Paths,
	certificate: "tls_certificate" | "tls_server_certificate",
	key: "tls_private_key" | "tls_server_private_key",
	files: Files,
): { readonly certificate: string; readonly key: string; readonly leaf: X509Certificate } | null {
	const [path, keyPath] = [paths[certificate], paths[key]];
	if (path === undefined || keyPath === undefined) {
		if (path !== keyPath)
			files.problem(path === undefined ? certificate : key, "missing", "", `${certificate} and ${key}, or neither`);
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
	files.judgeDates(certificate, path, leaf);
	return { certificate: own.pem, key: secret, leaf };
}

/** The certificates of authorities; null where none are named. */
function readAuthorities(
	paths: Paths,
	name: "tls_client_ca_certificate" | "tls_server_ca_certificate",
	files: Files,
): string | null {
	const path = paths[name];
	if (path === undefined) return null;
	const found = files.certificates(name, path);
	for (const authority of found?.chain ?? []) files.judgeDates(name, path, authority);
	return found?.pem ?? null;
}

function readIdentity(general: General, files: Files): TlsIdentity | null {
	const pair = readPair(general, "tls_certificate", "tls_private_key", files);
	if (general.tls_certificate === undefined && general.tls_private_key === undefined) {
		const alone = "that only together with tls_certificate and tls_private_key";
		const { tls_client_ca_certificate: path } = general;
		if (general.tls_client_required) files.problem("tls_client_required", "value", "true", alone);
		if (path !== undefined) files.problem("tls_client_ca_certificate", "value", show(path), alone);
		return null;
	}
	const authorities = readAuthorities(general, "tls_client_ca_certificate", files);
	if (pair === null) return null;
	const { certificate, key, leaf } = pair;
	const minimum = general.tls_min_version === "1.3" ? 0x304 : 0x303;
	return { certificate, key, authorities, minimum, endPoint: endPointOf(leaf.raw) };
}

function readServerPair(paths: Paths, files: Files): TlsDemands["identity"] {
	const pair = readPair(paths, "tls_server_certificate", "tls_server_private_key", files);
	return pair && { certificate: pair.certificate, key: pair.key };
}

function readServerFiles(paths: Paths, verify: General["tls_verify"], files: Files): Omit<TlsDemands, "verify"> {
	const identity = readServerPair(paths, files);
	const authorities = readAuthorities(paths, "tls_server_ca_certificate", files);
	if (paths.tls_server_ca_certificate !== undefined && (verify === "disabled" || verify === "prefer")) {
		const text = `tls_server_ca_certificate has no effect with tls_verify = "${verify}": no certificate is verified`;
		files.warn("tls_server_ca_certificate", text);
	}
	return { identity, authorities };
}

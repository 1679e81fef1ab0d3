// Certificates for tests of TLS, made anew by each run: an authority and what it signs. By @peculiar/x509, the library that Node's
// WebCrypto lacks, so that no test needs the openssl program.

import "reflect-metadata";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";

const DAY = 24 * 3600 * 1000;

export interface Wanted {
	/** CN. */
	readonly name: string;
	readonly dns?: readonly string[];
	readonly ips?: readonly string[];
	/** When it becomes valid, and ends, in days from now. Default: yesterday and in ten days. */
	readonly from?: number;
	readonly to?: number;
	readonly kind?: Kind;
}

/** Of a key, and of what it signs. */
type Kind = keyof typeof ALGORITHMS;

/** A certificate and its key, as PEM files. */
export interface Pair {
	readonly certificate: string;
	readonly key: string;
	readonly certificatePem: string;
	readonly keyPem: string;
}

const ALGORITHMS = {
	ecdsa: { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" },
	"ecdsa-384": { name: "ECDSA", namedCurve: "P-384", hash: "SHA-384" },
	rsa: {
		name: "RSASSA-PKCS1-v1_5",
		modulusLength: 2048,
		publicExponent: new Uint8Array([1, 0, 1]),
		hash: "SHA-256",
	},
	"rsa-sha1": {
		name: "RSASSA-PKCS1-v1_5",
		modulusLength: 2048,
		publicExponent: new Uint8Array([1, 0, 1]),
		hash: "SHA-1",
	},
	ed25519: { name: "Ed25519" },
} as const;

/** An authority with a folder for its files, which goes with it. */
export class Authority implements Disposable {
	readonly folder: string;
	/** Its own certificate's file. */
	readonly path: string;
	readonly pem: string;
	private readonly name: string;
	private readonly kind: Kind;
	private readonly keys: CryptoKeyPair;
	private serial = 1;

	private constructor(name: string, kind: Kind, keys: CryptoKeyPair, certificate: x509.X509Certificate) {
		this.name = name;
		this.kind = kind;
		this.keys = keys;
		this.pem = certificate.toString("pem");
		this.folder = mkdtempSync(join(tmpdir(), "pgdog-tls-"));
		this.path = this.write("authority.pem", this.pem);
	}

	static async create(name = "Test authority", kind: Kind = "ecdsa"): Promise<Authority> {
		const keys = await generate(kind);
		const certificate = await x509.X509CertificateGenerator.createSelfSigned({
			serialNumber: "01",
			name: `CN=${name}`,
			notBefore: new Date(Date.now() - DAY),
			notAfter: new Date(Date.now() + 100 * DAY),
			signingAlgorithm: ALGORITHMS[kind],
			keys,
			extensions: [
				new x509.BasicConstraintsExtension(true, undefined, true),
				new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
			],
		});
		return new Authority(name, kind, keys, certificate);
	}

	/** A certificate that this authority has signed, with its key. */
	async issue(wanted: Wanted): Promise<Pair> {
		const { name, dns = [], ips = [], from = -1, to = 10, kind = "ecdsa" } = wanted;
		const keys = await generate(kind);
		const names = [
			...dns.map((value) => ({ type: "dns" as const, value })),
			...ips.map((value) => ({ type: "ip" as const, value })),
		];
		const serial = ++this.serial;
		const certificate = await x509.X509CertificateGenerator.create({
			serialNumber: serial.toString(16).padStart(2, "0"),
			subject: `CN=${name}`,
			issuer: `CN=${this.name}`,
			notBefore: new Date(Date.now() + from * DAY),
			notAfter: new Date(Date.now() + to * DAY),
			signingAlgorithm: ALGORITHMS[this.kind],
			publicKey: keys.publicKey,
			signingKey: this.keys.privateKey,
			extensions: names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : [],
		});
		const certificatePem = certificate.toString("pem");
		const keyPem = x509.PemConverter.encode(await crypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY");
		return {
			certificatePem,
			keyPem,
			certificate: this.write(`${serial}.pem`, certificatePem),
			key: this.write(`${serial}.key`, keyPem),
		};
	}

	write(file: string, text: string | Uint8Array): string {
		const path = join(this.folder, file);
		writeFileSync(path, text, { mode: 0o600 });
		return path;
	}

	[Symbol.dispose](): void {
		rmSync(this.folder, { recursive: true, force: true });
	}
}

async function generate(kind: Kind): Promise<CryptoKeyPair> {
	return (await crypto.subtle.generateKey(ALGORITHMS[kind], true, ["sign", "verify"])) as CryptoKeyPair;
}

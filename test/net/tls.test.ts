// Who is let in by the certificate that it shows, and what a login is bound to.

import { describe, expect, test } from "bun:test";
import { createHash, X509Certificate } from "node:crypto";
import type { Socket } from "bun";
import { endPointOf, judgeClient, judgeServer } from "../../src/net/tls.ts";
import { Authority } from "../support/certificates.ts";

/** A socket whose peer has shown `certificate`. */
function shown(certificate: object | undefined, version = "TLSv1.3", cipher: object | null = { name: "AES" }) {
	return {
		getPeerCertificate: () => certificate,
		getTLSVersion: () => version,
		getCipher: () => cipher ?? undefined,
	} as unknown as Socket<unknown>;
}

function fault(code: string): Error {
	return Object.assign(new Error(`${code}, in words`), { code });
}
const EXPIRED = fault("CERT_HAS_EXPIRED");

describe("a client", () => {
	const secured = { version: "TLSv1.3", cipher: "AES", names: null, endPoint: null };

	test("need not show a certificate", () => {
		expect(judgeClient(shown(undefined), true, undefined)).toEqual(secured);
		expect(judgeClient(shown({}), true, EXPIRED)).toEqual(secured);
		expect(judgeClient(shown({}, "", null), true, undefined)).toEqual({ ...secured, version: "TLS", cipher: "" });
	});

	test.each([
		[{ subject: { CN: "alice" } }, { common: "alice", dns: [] }],
		[{ subject: { CN: ["alice", "bob"] } }, { common: "alice", dns: [] }],
		[
			{ subject: {}, subjectaltname: "DNS:a.example, IP Address:10.0.0.1, DNS:b" },
			{ common: null, dns: ["a.example", "b"] },
		],
		[{ subjectaltname: "IP Address:10.0.0.1, DNS:" }, { common: null, dns: [""] }],
	])("whose certificate %j is valid has its names", (certificate, names) => {
		expect(judgeClient(shown(certificate), true, undefined)).toEqual({ ...secured, names });
	});

	test("whose certificate is wrong is told why, as is whoever breaks off", () => {
		const certificate = { subject: { CN: "alice" } };
		expect(judgeClient(shown(certificate), true, EXPIRED)).toBe("CERT_HAS_EXPIRED, in words");
		expect(judgeClient(shown(certificate), false, EXPIRED)).toBe("CERT_HAS_EXPIRED, in words");
		expect(judgeClient(shown(undefined), false, undefined)).toBe("broken off");
	});
});

describe("a server", () => {
	const certificate = { subject: { CN: "db" } };

	test.each([
		["prefer", null, true],
		["prefer", "CERT_HAS_EXPIRED", true],
		["prefer", "ERR_TLS_CERT_ALTNAME_INVALID", true],
		["verify_ca", null, true],
		["verify_ca", "CERT_HAS_EXPIRED", false],
		["verify_ca", "ERR_TLS_CERT_ALTNAME_INVALID", true],
		["verify_full", null, true],
		["verify_full", "CERT_HAS_EXPIRED", false],
		["verify_full", "ERR_TLS_CERT_ALTNAME_INVALID", false],
	] as const)("with %s, and %p to say of its certificate, it is in: %p", (verify, code, isIn) => {
		const wrong = code === null ? undefined : fault(code);
		const outcome = judgeServer(verify)(shown(certificate), true, wrong);
		if (isIn) expect(outcome).toEqual({ version: "TLSv1.3", cipher: "AES", names: null, endPoint: null });
		else expect(outcome).toBe(wrong!.message);
	});

	test.each(["prefer", "verify_ca", "verify_full"] as const)("with %s, is refused without a certificate", (verify) => {
		expect(judgeServer(verify)(shown(undefined), false, undefined)).toBe("broken off");
		expect(judgeServer(verify)(shown({}), false, EXPIRED)).toBe(EXPIRED.message);
	});

	test.each(["prefer", "verify_ca", "verify_full"] as const)(
		"with %s, is refused where all it did was show one",
		(verify) => {
			expect(judgeServer(verify)(shown(certificate), false, undefined)).toBe("broken off");
			const alert = new Error("error:1000040b:SSL routines:OPENSSL_internal:TLSV1_ALERT_DECRYPT_ERROR");
			expect(judgeServer(verify)(shown(certificate), false, alert)).toBe(alert.message);
			// Bun says so of the name, whatever came of the handshake.
			const outcome = judgeServer(verify)(shown(certificate), false, fault("ERR_TLS_CERT_ALTNAME_INVALID"));
			expect(typeof outcome === "string").toBe(verify === "verify_full");
		},
	);
});

test.each([
	["ecdsa", "sha256"],
	["ecdsa-384", "sha384"],
	["rsa", "sha256"],
	["rsa-sha1", "sha256"],
	["ed25519", "none"],
] as const)("a login is bound to a certificate signed by %s by its hash: %s", async (kind, hash) => {
	using authority = await Authority.create("Test authority", kind);
	const { certificatePem } = await authority.issue({ name: "db" });
	const { raw } = new X509Certificate(certificatePem);
	const endPoint = hash === "none" ? null : createHash(hash).update(raw).digest("base64");
	expect(endPointOf(raw)).toBe(endPoint);
	// As of a server that shows it.
	const outcome = judgeServer("prefer")(shown({ raw }), true, undefined);
	expect(outcome).toMatchObject({ endPoint });
});

test("a login is bound to nothing where there is no certificate", () => {
	expect(endPointOf(undefined)).toBe(null);
});

// What is read of the files that TLS needs, and what is said of each that is not what it should be.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { load } from "../../src/config/load.ts";
import { Findings, problemText } from "../../src/config/problem.ts";
import { type General, general as table } from "../../src/config/settings.ts";
import { NO_TLS, type TlsFiles, TlsReading } from "../../src/config/tls.ts";
import { defaults } from "../pool/support.ts";
import { Authority, type Pair } from "../support/certificates.ts";

let authority: Authority;
let pair: Pair;
let other: Pair;

beforeAll(async () => {
	authority = await Authority.create();
	[pair, other] = await Promise.all([authority.issue({ name: "one" }), authority.issue({ name: "other" })]);
});
afterAll(() => authority[Symbol.dispose]());

/** What is read, and said without the folder and the name of the file. */
function read(settings: Partial<General>, now?: number): { tls: TlsFiles; problems: string[]; warnings: string[] } {
	const report = new Findings();
	const source = { name: "pgdog.toml", lines: new Map<string, number>() };
	const tls = new TlsReading({ ...defaults<General>(table), ...settings }, source, report, now).files;
	const plain = (line: string) => line.replaceAll(`${authority.folder}/`, "").replace(/^pgdog\.toml: /, "");
	return {
		tls,
		problems: report.problems.map((problem) => plain(problemText(problem))),
		warnings: report.warnings.map(plain),
	};
}

/** The settings of both ends' certificate. */
const clients = (certificate: string, key: string) => ({ tls_certificate: certificate, tls_private_key: key });
const servers = (certificate: string, key: string) => ({
	tls_server_certificate: certificate,
	tls_server_private_key: key,
});
const text = (pem: string) => pem.trim();

test("without a file clients are offered none, and servers are asked for it as tls_verify says", () => {
	expect(read({ tls_verify: "disabled" })).toEqual({ tls: NO_TLS, problems: [], warnings: [] });
	for (const verify of ["prefer", "verify_ca", "verify_full"] as const)
		expect(read({ tls_verify: verify }).tls).toEqual({
			clients: null,
			servers: { verify, authorities: null, identity: null },
		});
});

test("a certificate and its key are what clients are shown, with what it binds a login to", () => {
	const { tls, problems, warnings } = read({ ...clients(pair.certificate, pair.key), tls_min_version: "1.2" });
	expect([problems, warnings]).toEqual([[], []]);
	expect(tls.clients).toMatchObject({ certificate: text(pair.certificatePem), authorities: null, minimum: 0x303 });
	expect(tls.clients?.key).toBe(pair.keyPem);
	// The hash of another certificate is another.
	const another = read(clients(other.certificate, other.key)).tls.clients?.endPoint;
	expect(tls.clients?.endPoint).toHaveLength(44);
	expect(another).toHaveLength(44);
	expect(another).not.toBe(tls.clients!.endPoint);
	const strict = read({
		...clients(pair.certificate, pair.key),
		tls_min_version: "1.3",
		tls_client_ca_certificate: authority.path,
	});
	expect(strict.tls.clients).toMatchObject({ minimum: 0x304, authorities: text(authority.pem) });
});

test("of a file of several certificates all are kept, and nothing that stands around them", () => {
	const chain = `Bag Attributes\n${pair.certificatePem}\nissuer=CN = Test authority\n${authority.pem}\n\n`;
	const path = authority.write("chain.pem", chain);
	const { tls, problems } = read(clients(path, pair.key));
	expect(problems).toEqual([]);
	expect(tls.clients?.certificate).toBe(`${text(pair.certificatePem)}\n${text(authority.pem)}`);
	// The key has to be that of the first.
	const turned = authority.write("turned.pem", `${authority.pem}\n${pair.certificatePem}`);
	expect(read(clients(turned, pair.key)).problems.join()).toContain("it does not fit the certificate");
});

test("servers are shown a certificate of our own, and theirs are verified by the authorities that are named", () => {
	const files = { ...servers(pair.certificate, pair.key), tls_server_ca_certificate: authority.path };
	const { tls, warnings } = read({ ...files, tls_verify: "verify_full" });
	expect(tls.servers).toEqual({
		verify: "verify_full",
		authorities: text(authority.pem),
		identity: { certificate: text(pair.certificatePem), key: pair.keyPem },
	});
	expect(warnings).toEqual([]);
	for (const verify of ["prefer", "disabled"] as const)
		expect(read({ ...files, tls_verify: verify }).warnings).toEqual([
			`tls_server_ca_certificate has no effect with tls_verify = "${verify}": no certificate is verified`,
		]);
});

test("an entry of [[databases]] may ask for something else, and a user be known by a certificate of his own", () => {
	const report = new Findings();
	const source = { name: "pgdog.toml", lines: new Map<string, number>() };
	const general = { ...defaults<General>(table), ...servers(pair.certificate, pair.key) };
	const reading = new TlsReading(general, source, report);
	const ours = { certificate: text(pair.certificatePem), key: pair.keyPem };
	const theirs = { certificate: text(other.certificatePem), key: other.keyPem };
	const of = (entry: Parameters<TlsReading["ofDatabase"]>[0]) =>
		reading.ofDatabase(entry, { at: "databases[1]", source });
	// What says nothing of its own has what all have, the object itself.
	expect(of({})).toBe(reading.files.servers);
	expect(of({ tls_verify: "disabled" })).toBe(null);
	expect(of({ tls_verify: "verify_full", tls_server_ca_certificate: authority.path })).toEqual({
		verify: "verify_full",
		authorities: text(authority.pem),
		identity: ours,
	});
	expect(of(servers(other.certificate, other.key))).toEqual({ verify: "prefer", authorities: null, identity: theirs });
	expect(reading.ofUser(servers(other.certificate, other.key), { at: "users[0]", source })).toEqual(theirs);
	expect(reading.ofUser({}, { at: "users[0]", source })).toBe(null);
	// Where all have none, one may.
	const off = new TlsReading({ ...general, tls_verify: "disabled" }, source, report);
	expect(off.ofDatabase({ tls_verify: "prefer" }, { at: "databases[0]", source })).toMatchObject({ identity: ours });
	expect([report.problems, report.warnings]).toEqual([[], []]);
	// What is wrong is said of the entry.
	expect(of({ tls_server_certificate: pair.certificate })).toMatchObject({ identity: ours });
	reading.ofUser(servers(pair.certificate, other.key), { at: "users[0]", source });
	of({ tls_server_ca_certificate: authority.path });
	expect(report.problems.map(({ key }) => key)).toEqual([
		"databases[1].tls_server_private_key",
		"users[0].tls_server_private_key",
	]);
	expect(report.warnings).toEqual([
		'pgdog.toml: tls_server_ca_certificate has no effect with tls_verify = "prefer": no certificate is verified',
	]);
});

const CERTIFICATES = "accepted is a PEM file of certificates";
const KEY = "accepted is a PEM file of a private key without passphrase";

test.each([
	["tls_certificate", "tls_private_key", clients],
	["tls_server_certificate", "tls_server_private_key", servers],
] as const)("what is wrong with %s and %s is said under the setting that names the file", (name, keyName, files) => {
	const broken = authority.write("broken.pem", pair.certificatePem.split("-----END")[0]!);
	const noise = authority.write("noise.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
	const empty = authority.write("empty.pem", "\n");
	const problemsOf = (certificate: string, key: string) => read(files(certificate, key)).problems;
	const both = `${name} and ${keyName}, or neither`;
	expect(read({ [name]: pair.certificate }).problems).toContain(`general.${keyName} is missing: accepted is ${both}`);
	expect(read({ [keyName]: pair.key }).problems).toContain(`general.${name} is missing: accepted is ${both}`);
	const certificateIs = (file: string, why: string) => `general.${name} = "${file}": ${CERTIFICATES} (${why})`;
	const keyIs = (path: string, accepted: string) => `general.${keyName} = "${basename(path)}": ${accepted}`;
	expect(problemsOf(broken, pair.key)).toEqual([certificateIs("broken.pem", "one is cut off")]);
	expect(problemsOf(empty, pair.key)).toEqual([certificateIs("empty.pem", "it holds none")]);
	// Why, is for the library to say.
	expect(problemsOf(noise, pair.key).map((line) => line.split(" (")[0])).toEqual([
		`general.${name} = "noise.pem": ${CERTIFICATES}`,
	]);
	expect(problemsOf(pair.certificate, empty).map((line) => line.split(" (")[0])).toEqual([keyIs(empty, KEY)]);
	expect(problemsOf(pair.certificate, other.key)).toEqual([
		keyIs(other.key, `accepted is the key of ${name} (it does not fit the certificate)`),
	]);
	// Both are told at once.
	expect(problemsOf(`${authority.folder}/none`, `${authority.folder}/.`)).toEqual([
		certificateIs("none", "there is no such file"),
		keyIs(".", `${KEY} (EISDIR)`),
	]);
	// Of no file any text is repeated.
	expect(problemsOf(broken, other.key).join()).not.toContain("BEGIN");
});

test("what is asked of clients is a mistake where they are not offered TLS at all", () => {
	const alone = "accepted is that only together with tls_certificate and tls_private_key";
	const { tls, problems } = read({ tls_client_required: true, tls_client_ca_certificate: authority.path });
	expect(tls.clients).toBe(null);
	expect(problems).toEqual([
		`general.tls_client_required = true: ${alone}`,
		`general.tls_client_ca_certificate = "authority.pem": ${alone}`,
	]);
});

test("a certificate that has ended, ends soon or is not valid yet is warned of, and taken", () => {
	const day = 24 * 3600 * 1000;
	const settings = { ...clients(pair.certificate, pair.key), tls_client_ca_certificate: authority.path };
	const at = (days: number) => {
		const { tls, problems, warnings } = read(settings, Date.now() + days * day);
		expect([tls.clients === null, problems]).toEqual([false, []]);
		return warnings.map((line) => line.replace(/"\d+\.pem"/, "own").replace(/ on .*| before .*/, ""));
	};
	expect(at(0)).toEqual([]);
	expect(at(4)).toEqual(["tls_certificate own expires"]);
	expect(at(11)).toEqual(["tls_certificate own has expired"]);
	expect(at(99)).toEqual(["tls_certificate own has expired", 'tls_client_ca_certificate "authority.pem" expires']);
	expect(at(-2)).toEqual([
		"tls_certificate own is not valid",
		'tls_client_ca_certificate "authority.pem" is not valid',
	]);
});

test("of a whole configuration the snapshot has what the files hold, and a file that is gone refuses it", () => {
	const configPath = join(authority.folder, "pgdog.toml");
	const loadWith = (certificate: string) => {
		writeFileSync(configPath, `[general]\ntls_certificate = "${certificate}"\ntls_private_key = "${pair.key}"\n`);
		return load({
			configPath,
			databaseUrls: ["postgres://u:p@10.0.0.1:5432/d"],
			overrides: {},
			env: {},
		});
	};
	const loaded = loadWith(pair.certificate);
	expect(loaded.ok && loaded.snapshot.tls.clients?.certificate).toBe(text(pair.certificatePem));
	const refused = loadWith(`${authority.folder}/none`);
	expect(refused.ok ? [] : refused.problems.map(({ line, key }) => `${line} ${key}`)).toEqual([
		"2 general.tls_certificate",
	]);
});

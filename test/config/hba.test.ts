// The list [[hba]]: what may stand in it, which of its entries a log-in meets, and what `configcheck --login` says of that.

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { explainLogin, type HbaEntry, type HbaLogin, meets, readNetwork, refusedBy } from "../../src/config/hba.ts";
import { load } from "../../src/config/load.ts";
import { problemText } from "../../src/config/problem.ts";
import { Authority } from "../support/certificates.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-hba-"));
const authority = await Authority.create();
const pair = await authority.issue({ name: "localhost" });
afterAll(() => {
	authority[Symbol.dispose]();
	rmSync(folder, { recursive: true });
});

const TLS = `tls_certificate = "${pair.certificate}"\ntls_private_key = "${pair.key}"\n`;
const CA = `${TLS}tls_client_ca_certificate = "${authority.path}"\n`;

/** Entries as lines of pg_hba.conf would have them, between bars: type | database | user | address | method. */
function toml(lines: readonly string[]): string {
	return lines
		.map((line) => {
			const [type, database, user, address, method] = line.split("|").map((word) => word.trim());
			const at = address === "" ? "" : `address = '${address}'\n`;
			return `[[hba]]\ntype = '${type}'\ndatabase = '${database}'\nuser = '${user}'\n${at}method = '${method}'\n`;
		})
		.join("");
}

/** What comes of a file: the list, and what is said of it, without the folder. */
function read(text: string, general = "", top = "") {
	const configPath = join(folder, "pgdog.toml");
	writeFileSync(configPath, `${top}[general]\n${general}${text}`);
	const loaded = load({
		configPath,
		usersPath: configPath,
		databaseUrls: ["postgres://a:b@c/d"],
		overrides: {},
		env: {},
	});
	const plain = (line: string) => line.replaceAll(`${folder}/`, "");
	if (loaded.ok) {
		const { hba, warnings } = loaded.snapshot;
		return { list: hba, problems: [], warnings: warnings.map(plain) };
	}
	return {
		list: [],
		problems: loaded.problems.map((problem) => plain(problemText(problem))),
		warnings: loaded.warnings.map(plain),
	};
}

/** The list that lines make. */
function list(...lines: string[]): readonly HbaEntry[] {
	const { list, problems } = read(toml(lines), TLS);
	expect(problems).toEqual([]);
	return list;
}

const LOGIN: HbaLogin = { user: "u", database: "d", host: "10.1.2.3", isEncrypted: false };

describe("meets", () => {
	const entries = list(
		"local     | all      | all      |             | password",
		"hostssl   | all      | tls      | all         | md5",
		"hostnossl | all      | tls      | all         | reject",
		"host      | sameuser | all      | 10.0.0.0/8  | scram-sha-256",
		"host      | a, b     | x,y      | 10.1.2.3    | trust",
		'host      | "all"  | "a,b"  | all         | password',
		"host      | all      | six      | fd00::/8    | md5",
		"host      | all      | all      | 192.168.0.0/16, 172.16.0.9/12 | md5",
	);
	const number = (more: Partial<HbaLogin>) => {
		const entry = meets(entries, { ...LOGIN, ...more });
		return entry === null ? null : entries.indexOf(entry);
	};

	test.each<[string, Partial<HbaLogin>, number | null]>([
		["by the Unix socket", { host: "local" }, 0],
		["an entry for the Unix socket is for nobody else", {}, null],
		["with TLS", { user: "tls", isEncrypted: true }, 1],
		["without TLS", { user: "tls" }, 2],
		["host is with TLS as without", { user: "d", isEncrypted: true }, 3],
		["the database of the user's name", { user: "d" }, 3],
		["from elsewhere not", { user: "d", host: "11.1.2.3" }, null],
		["one of several databases and users", { user: "y", database: "b" }, 4],
		["the user not", { user: "z", database: "b" }, null],
		["the database not", { user: "y", database: "c" }, null],
		["an address is one address", { user: "y", database: "b", host: "10.1.2.4" }, null],
		["a word in quotes is a name", { user: "a,b", database: "all" }, 5],
		["names are as they are written", { user: "A,B", database: "all" }, null],
		["IPv6", { user: "six", host: "fd12:3::4" }, 6],
		["IPv6 with the name of an interface", { user: "six", host: "fd12:3::4%eth0" }, 6],
		["another's IPv6", { user: "six", host: "fe80::4" }, null],
		["one of several networks", { host: "192.168.7.7" }, 7],
		["what is behind the mask does not count", { host: "172.31.255.255" }, 7],
		["IPv4 by way of IPv6", { host: "::ffff:192.168.7.7" }, 7],
		["and so in hexadecimal", { host: "::FFFF:c0a8:0707" }, 7],
		["what only ends like it is none", { host: "::1:192.168.7.7" }, null],
		["an address that nobody knows is not even in all", { user: "a,b", database: "all", host: "unknown" }, null],
	])("%s", (_, login, expected) => {
		expect(number(login)).toBe(expected);
	});

	test("the first one decides, whatever comes later", () => {
		const both = list("host|all|all|all|reject", "host|all|all|all|trust");
		expect(meets(both, LOGIN)?.method).toBe("reject");
		expect(meets([...both].reverse(), LOGIN)?.method).toBe("trust");
	});

	test("all of a family is not all of the other", () => {
		const [four, six] = [list("host|all|all|0.0.0.0/0|trust"), list("host|all|all|::/0|trust")];
		for (const [host, isFour] of [
			["10.0.0.1", true],
			["::ffff:10.0.0.1", true],
			["::1", false],
		] as const) {
			expect(meets(four, { ...LOGIN, host }) !== null).toBe(isFour);
			expect(meets(six, { ...LOGIN, host }) !== null).toBe(!isFour);
		}
	});

	test("samehost and samenet are this machine's addresses and networks", () => {
		const [same, net] = [list("host|all|all|samehost|trust"), list("host|all|all|samenet|trust")];
		const own = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
		expect(own.length).toBeGreaterThan(0);
		for (const { address: host } of own) {
			expect([host, meets(same, { ...LOGIN, host }) !== null]).toEqual([host, true]);
			expect([host, meets(net, { ...LOGIN, host }) !== null]).toEqual([host, true]);
		}
		expect(meets(same, { ...LOGIN, host: "127.9.9.9" })).toBeNull();
		expect(meets(net, { ...LOGIN, host: "127.9.9.9" })).not.toBeNull();
		expect(meets(net, { ...LOGIN, host: "203.0.113.9" })).toBeNull();
	});
});

describe("addresses", () => {
	const bytes = (count: number) => fc.uint8Array({ minLength: count, maxLength: count });
	const four = bytes(4);
	const six = bytes(16);
	const bitsOf = (address: Uint8Array) => [...address].map((byte) => byte.toString(2).padStart(8, "0")).join("");
	const groupsOf = (address: Uint8Array) =>
		Array.from({ length: 8 }, (_, i) => ((address[2 * i]! << 8) | address[2 * i + 1]!).toString(16));
	/** With or without its longest run of zeros written as ::, its last two groups as IPv4, and in capitals. */
	const written = (address: Uint8Array, short: boolean, dotted: boolean, capital: boolean): string => {
		if (address.length === 4) return address.join(".");
		const groups = groupsOf(address);
		const all = dotted ? [...groups.slice(0, 6), address.slice(12).join(".")] : groups;
		const full = all.join(":");
		const runs = (full.match(/(?:^|(?<=:))0(?::0)+(?=:|$)/g) ?? []).toSorted((a, b) => b.length - a.length);
		const cut = short && runs[0] !== undefined ? full.replace(new RegExp(`(^|:)${runs[0]}(:|$)`), "::") : full;
		return capital ? cut.toUpperCase() : cut;
	};
	const style = fc.tuple(fc.boolean(), fc.boolean(), fc.boolean());
	const entry = (network: string): HbaEntry[] => {
		const all = { all: true, sameuser: false, names: [] };
		const found = readNetwork(network);
		if (found === null) throw new Error(`${network} is none`);
		return [{ type: "host", databases: all, users: all, networks: [found], method: "trust", place: "", text: "" }];
	};
	const isIn = (host: string, network: string) => meets(entry(network), { ...LOGIN, host }) !== null;
	const isMapped = (address: Uint8Array) =>
		address.length === 16 && bitsOf(address).startsWith(`${"0".repeat(80)}${"1".repeat(16)}`);

	test("one is in a network when it begins with the network's bits, however both are written", () => {
		for (const kind of [four, six]) {
			const width = kind === four ? 32 : 128;
			const property = fc.property(
				kind,
				kind,
				fc.nat(width),
				fc.nat(width),
				style,
				style,
				(a, b, length, shared, m, n) => {
					// Two at random have few bits in common: the one gets some of the other's.
					const bits = bitsOf(a).slice(0, shared) + bitsOf(b).slice(shared);
					const near = Uint8Array.from(bits.match(/.{8}/g)!, (byte) => Number.parseInt(byte, 2));
					fc.pre(isMapped(a) === isMapped(near));
					const expected = bitsOf(near).slice(0, length) === bitsOf(a).slice(0, length);
					expect([isIn(written(near, ...m), `${written(a, ...n)}/${length}`)]).toEqual([expected]);
				},
			);
			fc.assert(property, { numRuns: 500 });
		}
	});

	test("one of IPv4 is the same by way of IPv6, as an address and as a network", () => {
		const property = fc.property(four, four, fc.nat(32), style, style, (a, b, length, m, n) => {
			const mapped = (address: Uint8Array) => Uint8Array.from([...Array(10).fill(0), 255, 255, ...address]);
			const expected = bitsOf(a).slice(0, length) === bitsOf(b).slice(0, length);
			for (const host of [a.join("."), written(mapped(a), ...m)])
				for (const network of [`${b.join(".")}/${length}`, `${written(mapped(b), ...n)}/${96 + length}`])
					expect([host, network, isIn(host, network)]).toEqual([host, network, expected]);
		});
		fc.assert(property, { numRuns: 200 });
		// A network of IPv6 that begins before it holds none of them.
		expect(isIn("10.0.0.1", "::ffff:10.0.0.1/95")).toBe(false);
		expect(isIn("::fffe:0:0", "::ffff:10.0.0.1/95")).toBe(true);
	});

	test("what is none is none", () => {
		for (const text of [
			"10.0.0",
			"10.0.0.0/33",
			"::/129",
			"10.0.0.0/",
			"/8",
			"10.0.0.0/8/8",
			"010.0.0.0/8",
			"a.b",
			"::1%lo/128",
			"1::2::3",
			"10.0.0.0/-1",
			" 10.0.0.0/8",
			"10.0.0.0/255.0.0.0",
			"",
		])
			expect([text, readNetwork(text)]).toEqual([text, null]);
	});
});

const ALIKE = "a regular expression that PostgreSQL and the proxy read alike (docs/logging-in.md),";

describe("the file", () => {
	const OK = "host|all|all|all|trust";

	test("an entry knows where it stands, and how PostgreSQL would have it written", () => {
		const { list } = read(`\n${toml(["local|all|a,b||md5", "host|sameuser|all|10.0.0.0/8|reject"])}`);
		expect(list.map(({ place, text }) => [place, text])).toEqual([
			[`${folder}/pgdog.toml:3: hba[0]`, "local all a,b md5"],
			[`${folder}/pgdog.toml:8: hba[1]`, "host sameuser all 10.0.0.0/8 reject"],
		]);
		const several = read('[[hba]]\ntype = "local"\ndatabase = ["a,b", "c"]\nuser = ["all"]\nmethod = "md5"\n').list;
		expect(several[0]?.databases).toEqual({ all: false, sameuser: false, names: ["a,b", "c"] });
		expect(several[0]?.users.all).toBe(true);
		expect(read("").list).toEqual([]);
	});

	test.each<[string, string, string]>([
		["host|all|+staff|all|trust", 'user = "+staff"', "names: who is a member of a role is known to the servers only"],
		[
			"host|samerole|all|all|trust",
			'database = "samerole"',
			"names: who is a member of a role is known to the servers only",
		],
		[
			"host|samegroup|all|all|trust",
			'database = "samegroup"',
			"names: who is a member of a role is known to the servers only",
		],
		["host|/|all|all|trust", 'database = "/"', `${ALIKE} not with "its end" there`],
		["host|all|/(?i)a|all|trust", 'user = "/(?i)a"', `${ALIKE} not with "?i)a" there`],
		['host|all|"/(a*){1,2}*"|all|trust', 'user = "\\"/(a*){1,2}*\\""', `${ALIKE} not with "*" there`],
		["host|all|/(a*)*b|all|trust", 'user = "/(a*)*b"', `${ALIKE} with fewer ways to match`],
		["host|all|/[z-a]|all|trust", 'user = "/[z-a]"', `${ALIKE} with ranges in order`],
		["host|@dbs|all|all|trust", 'database = "@dbs"', "names: no files of names are read"],
		["host|*|all|all|reject", 'database = "*"', 'all, or "*" in double quotes for that name'],
		['host|a"b"|all|all|trust', 'database = "a\\"b\\""', "a name, in double quotes or without any"],
		["host|a,,b|all|all|trust", 'database = "a,,b"', "a word, several with commas between them, or a list of words"],
		["host|all||all|trust", 'user = ""', "a word, several with commas between them, or a list of words"],
		[
			"host|all|all|db.example|trust",
			'address = "db.example"',
			"all, samehost, samenet, an address or a network as 10.0.0.0/8; host names are not looked up",
		],
		[
			"host|all|all|10.0.0.0/40|trust",
			'address = "10.0.0.0/40"',
			"all, samehost, samenet, an address or a network as 10.0.0.0/8; host names are not looked up",
		],
		["local|all|all|all|trust", 'address = "all"', 'none with type = "local": the Unix socket has no addresses'],
		["hostgssenc|all|all|all|trust", 'type = "hostgssenc"', '"local", "host", "hostssl", "hostnossl"'],
		[
			"local|all|all||ident",
			'method = "ident"',
			'"trust", "reject", "scram-sha-256", "md5", "password", "cert", "peer" (PostgreSQL\'s other methods are not served)',
		],
		["host|all|all|all|peer", 'method = "peer"', 'peer with type = "local" only'],
		["hostssl|all|all|all|peer", 'method = "peer"', 'peer with type = "local" only'],
		["hostnossl|all|all|all|peer", 'method = "peer"', 'peer with type = "local" only'],
		["host|all|all|all|cert", 'method = "cert"', 'cert with type = "hostssl" only'],
		["hostssl|all|all|all|cert", 'method = "cert"', "cert together with tls_client_ca_certificate only"],
	])("%s is refused", (line, found, accepted) => {
		const { problems } = read(toml([OK, line]), TLS);
		expect(problems.map((text) => text.replace(/^pgdog\.toml:\d+: hba\[1\]\./, ""))).toEqual([
			`${found}: accepted is ${accepted}`,
		]);
	});

	test("what has to be there is, with the line of its entry", () => {
		const { problems } = read(
			'[[hba]]\ntype = "host"\n[[hba]]\ntype = "host"\ndatabase = "all"\nuser = "all"\nmethod = "md5"\n',
		);
		const words = "a word, several with commas between them, or a list of words";
		expect(problems).toEqual([
			`pgdog.toml:2: hba[0].database is missing: accepted is ${words}`,
			`pgdog.toml:2: hba[0].user is missing: accepted is ${words}`,
			'pgdog.toml:2: hba[0].method is missing: accepted is "trust", "reject", "scram-sha-256", "md5", "password", "cert", "peer" (PostgreSQL\'s other methods are not served)',
			`pgdog.toml:4: hba[1].address is missing: accepted is ${words}`,
		]);
	});

	test.each([
		["hostssl|all|all|all|trust", "", "there is no tls_certificate"],
		["local|all|all||trust", "", "there is no unix_socket_dir (unless systemd passes on a Unix socket)"],
		["local|all|all||trust", `unix_socket_dir = "${folder}"\n`, null],
		[
			"hostnossl|all|all|all|trust",
			`${TLS}tls_client_required = true\n`,
			"with tls_client_required all clients have TLS",
		],
		["host|replication|all|all|trust", "", "replication connections are not served"],
		["host|replication,all|all|all|trust", "", null],
		["hostssl|all|all|all|cert", CA, null],
	])("%s, with %j: is warned of as never met: %s", (line, general, why) => {
		const { warnings, problems } = read(toml([line]), general);
		expect(problems).toEqual([]);
		expect(warnings.filter((text) => text.includes("hba")).map((text) => text.replace(/^.*: hba/, "hba"))).toEqual(
			why === null ? [] : [`hba[0] is never met: ${why}`],
		);
	});

	test("a map of names is no part of it: who is whom is said by the names alone", () => {
		const { problems } = read(`${toml(["local|all|all||peer"])}map = "m"\n`);
		expect(problems).toEqual([
			"pgdog.toml:7: hba[0].map is not a known key: known are type, database, user, address, method",
		]);
	});

	test("a list without entries is none, which is warned of", () => {
		const said = (top: string) => read("", "", top).warnings.filter((text) => text.includes("hba"));
		expect(said("")).toEqual([]);
		expect(said("hba = []\n")).toEqual(["pgdog.toml:1: hba is empty: all clients may log in, as auth_type says"]);
	});

	test("replication is no name of a database, unless in quotes", () => {
		const [plain, quoted] = [list("host|replication|all|all|trust"), list('host|"replication"|all|all|trust')];
		expect(meets(plain, { ...LOGIN, database: "replication" })).toBeNull();
		expect(meets(quoted, { ...LOGIN, database: "replication" })).not.toBeNull();
	});
});

test("who is refused is told so in PostgreSQL's words", () => {
	const rejects = list("host|all|all|all|reject");
	expect(refusedBy(null, LOGIN)).toBe('no [[hba]] entry for host "10.1.2.3", user "u", database "d", no encryption');
	expect(refusedBy(null, { ...LOGIN, host: "local" })).toContain('host "[local]"');
	expect(refusedBy(rejects[0]!, { ...LOGIN, isEncrypted: true })).toBe(
		'[[hba]] rejects connection for host "10.1.2.3", user "u", database "d", SSL encryption',
	);
	expect(refusedBy(list("host|all|all|all|md5")[0]!, LOGIN)).toBeNull();
});

test("a log-in is explained by what decides about it", () => {
	const general = { auth_type: "md5", tls_certificate: "PEM", tls_client_required: false } as const;
	const entries = list("host|all|a|all|md5", "host|all|b|all|reject");
	const say = (login: Partial<HbaLogin>, of = entries, more = {}) => {
		const admin = { name: "admin", user: "root" };
		const snapshot = { hba: of, general: { ...general, ...more }, admin };
		const { text, isRefused } = explainLogin(snapshot, { ...LOGIN, ...login });
		return `${isRefused ? "refused" : "asked"}: ${text.replace(/^.*pgdog\.toml/, "pgdog.toml")}`;
	};
	expect(say({ user: "a" })).toMatch(/^asked: pgdog\.toml:\d+: hba\[0\]: host all a all md5$/);
	expect(say({ user: "b" })).toMatch(/^refused: pgdog\.toml:\d+: hba\[1\]: host all b all reject$/);
	expect(say({ user: "c" })).toBe(
		'refused: no [[hba]] entry for host "10.1.2.3", user "c", database "d", no encryption',
	);
	expect(say({}, [])).toBe('asked: there is no [[hba]]: auth_type = "md5" decides');
	const trusting = list("host|all|all|all|trust");
	const ofAdmin = say({ user: "root", database: "admin" }, trusting);
	expect(ofAdmin).toMatch(/^asked: .*: host all all all trust \(the admin database asks for its password\)$/);
	expect(say({ user: "root" }, trusting)).toMatch(/trust$/);
	const peer = list("local|all|all||peer");
	for (const database of ["d", "admin"])
		expect(say({ user: "root", host: "local", database }, peer)).toMatch(
			/^asked: .*: local all all peer \(for the system's user "root" alone\)$/,
		);
	const only = { tls_client_required: true };
	expect(say({ user: "a" }, entries, only)).toBe("refused: only TLS connections are allowed (tls_client_required)");
	expect(say({ user: "a", isEncrypted: true }, entries, only)).toContain("asked: ");
	expect(say({ host: "local" }, entries, only)).toContain('host "[local]"');
	const plain = { tls_certificate: undefined };
	expect(say({ user: "a", isEncrypted: true }, entries, plain)).toBe(
		"refused: there is no TLS without tls_certificate",
	);
});

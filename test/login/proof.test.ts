// How a client has to prove who it is, by the list [[hba]] and without one: each kind of user with each method, and that nobody
// learns by it which users there are.

import { afterAll, describe, expect, test } from "bun:test";
import type { HbaEntry } from "../../src/config/hba.ts";
import type { User } from "../../src/config/snapshot.ts";
import { admit, judgeCertificate, judgePeer, judgeShown, methodOf, readmit } from "../../src/login/proof.ts";
import type { TlsIdentity } from "../../src/net/tls.ts";
import { ScriptedServer, testPool } from "../pool/support.ts";
import { errorFields } from "../support/message.ts";
import { RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { frontend } from "../support/wire-frames.ts";
import { listen } from "./support.ts";

const postgres = new ScriptedServer();
afterAll(() => postgres[Symbol.dispose]());

const VERIFIER = `SCRAM-SHA-256$4096:${btoa("0123456789abcdef")}$${btoa("k".repeat(32))}:${btoa("s".repeat(32))}`;
const MD5 = `md5${"0".repeat(32)}`;
const ALL = { all: true, sameuser: false, names: [] };

/** An entry for all databases from everywhere. */
function entry(method: HbaEntry["method"], more: Partial<HbaEntry> = {}): HbaEntry {
	const place = "pgdog.toml:3: hba[0]";
	return { type: "host", databases: ALL, users: ALL, networks: null, method, place, text: "", ...more };
}

describe("admit", () => {
	const comer = (address: string) => ({ user: "u", database: "d", address, isAdmin: false });
	const come = (address: string, type: HbaEntry["type"], isEncrypted = false) =>
		admit({ hba: [entry("md5", { type })], general: { auth_type: "scram" } }, comer(address), isEncrypted);

	test("without a list all are let on", () => {
		const rules = { hba: [], general: { auth_type: "md5" } } as const;
		const admission = { list: [], isAdmin: false, entry: null, authType: "md5", refusal: null } as const;
		expect(admit(rules, comer("unknown"), false)).toEqual(admission);
	});

	test.each([
		["10.0.0.1:5000", "host", false, null],
		["::1:5000", "host", false, null],
		["::ffff:10.0.0.1:5000", "hostnossl", false, null],
		["10.0.0.1:5000", "hostssl", true, null],
		["unix", "local", false, null],
		["unix", "host", false, 'no [[hba]] entry for host "[local]", user "u", database "d", no encryption'],
		["::1:5000", "local", false, 'no [[hba]] entry for host "::1", user "u", database "d", no encryption'],
		["10.0.0.1:5", "hostnossl", true, 'no [[hba]] entry for host "10.0.0.1", user "u", database "d", SSL encryption'],
		["unknown", "host", false, 'no [[hba]] entry for host "unknown", user "u", database "d", no encryption'],
	] as const)("%s and %s, encrypted: %p", (address, type, isEncrypted, message) => {
		const { entry, refusal } = come(address, type, isEncrypted);
		expect([entry === null, refusal?.message ?? null]).toEqual([message !== null, message]);
		if (refusal !== null) expect([refusal.severity, refusal.sqlstate]).toEqual(["FATAL", "28000"]);
	});
});

test.each([
	["trust", null, "trust"],
	["password", null, "plain"],
	["md5", null, "md5"],
	["scram-sha-256", null, "scram"],
	["md5", VERIFIER, "scram"],
	["md5", MD5, "md5"],
	["scram-sha-256", MD5, "scram"],
	["password", VERIFIER, "plain"],
] as const)("%s asks a user with the secret %p by %s", (method, password_hash, expected) => {
	const user = password_hash === null ? {} : { password_hash };
	expect(methodOf({ entry: entry(method), authType: "plain" }, user, false)).toBe(expected);
});

test("without an entry auth_type asks, also for what it cannot check", () => {
	for (const type of ["trust", "plain", "md5", "scram"] as const)
		expect(methodOf({ entry: null, authType: type }, { password_hash: VERIFIER }, false)).toBe(type);
});

test("the admin is asked for his password whatever asks for none", () => {
	for (const method of ["trust", "cert"] as const)
		expect(methodOf({ entry: entry(method), authType: "trust" }, null, true)).toBe("scram");
	expect(methodOf({ entry: null, authType: "trust" }, null, true)).toBe("scram");
	expect(methodOf({ entry: entry("md5"), authType: "trust" }, null, true)).toBe("md5");
});

describe("a certificate", () => {
	const mutual = { authorities: "PEM" } as TlsIdentity;
	const cert = entry("cert", { type: "hostssl" });
	const names = (common: string, ...dns: string[]) => ({ common, dns });
	const judge = (
		account: Parameters<typeof judgeCertificate>[0],
		met: HbaEntry | null,
		shown: ReturnType<typeof names> | null,
		isAdmin = false,
	) => judgeCertificate(account, met, { user: "u", isAdmin }, mutual, shown);

	test("of the user's name lets in by cert, the DNS name first", () => {
		expect(judge({}, cert, names("u"))).toBe("");
		expect(judge({}, cert, names("other", "u"))).toBe("");
		expect(judge({}, cert, names("u", "other"))).toBe('its certificate is of "other", its user is another');
		expect(judge({}, cert, null)).toBe("it has shown no certificate, which method cert asks for");
		expect(judge({ tls_client_certificate_required: false }, cert, null)).toContain("has shown no certificate");
	});

	test("of the user's identity lets in, whatever is asked for, and that of the name then does not", () => {
		for (const met of [null, cert, entry("scram-sha-256"), entry("trust")]) {
			expect(judge({ identity: "i" }, met, names("i"))).toBe("");
			expect(judge({ identity: "i" }, met, names("u"))).toBe('its certificate is of "u", its identity is another');
			expect(judge({ identity: "i" }, met, null)).toBe("it has shown no certificate, which its identity asks for");
		}
	});

	test("lets in nobody who is not known, and not the admin", () => {
		expect(judge(null, cert, names("u"))).toContain("unknown user");
		expect(judge(null, cert, names("u"), true)).toBeNull();
		expect(judge(null, cert, null, true)).toBe("it has shown no certificate");
	});

	test("has to be shown where they are asked for, and is not enough", () => {
		expect(judge({}, entry("md5"), null)).toBe("it has shown no certificate");
		expect(judge({}, entry("md5"), names("u"))).toBeNull();
		expect(judge({ tls_client_certificate_required: false }, entry("md5"), null)).toBeNull();
		expect(judgeCertificate({}, entry("md5"), { user: "u", isAdmin: false }, null, null)).toBeNull();
	});
});

describe("peer", () => {
	const admission = (method: HbaEntry["method"], isAdmin = false) =>
		({ list: [], entry: entry(method), isAdmin, authType: "scram", refusal: null }) as const;

	test("lets in the system's user of the name that is asked for, and nobody else", () => {
		const judge = (name: string | null) => judgePeer(admission("peer"), "u", () => ({ uid: 7, name }));
		expect(judge("u")).toBeNull();
		for (const name of ["v", "U", "u ", ""])
			expect(judge(name)).toBe(`it is the system's user ${JSON.stringify(name)}`);
		expect(judge(null)).toBe("nobody knows the system's user 7");
	});

	test("alone has the kernel asked", () => {
		const ask = () => {
			throw new Error("asked");
		};
		for (const method of ["trust", "cert", "md5"] as const) expect(judgePeer(admission(method), "u", ask)).toBeNull();
		expect(judgePeer({ ...admission("peer"), entry: null }, "u", ask)).toBeNull();
	});

	test("asks for nothing, of users that there are and of the admin", () => {
		const comer = { user: "u", database: "d", address: "unix", isAdmin: false };
		const met = entry("peer", { type: "local" });
		const judge = (account: Parameters<typeof judgeShown>[0], isAdmin = false) =>
			judgeShown(account, met, { ...comer, isAdmin }, null, null);
		expect(judge({})).toEqual({ by: "peer" });
		expect(judge(null, true)).toEqual({ by: "peer" });
		expect(judge(null)).toMatchObject({
			error: { sqlstate: "28000", message: 'no user "u" is configured for database "d"' },
		});
		// An identity asks for its certificate, whatever else is enough; by the Unix socket nobody shows one.
		expect(judge({ identity: "u" })).toEqual({ wrong: "it has shown no certificate, which its identity asks for" });
		expect(judgeShown({}, entry("md5"), comer, null, null)).toBeNull();
	});

	test.each([
		["peer", "peer", false, null],
		["peer", "trust", false, null],
		["peer", "scram-sha-256", false, "57P03"],
		["peer", "reject", false, "28000"],
		["password", "peer", false, "57P03"],
		["trust", "peer", false, "57P03"],
		// Of the admin trust asks for a password.
		["peer", "trust", true, "57P03"],
		["peer", "peer", true, null],
		["trust", "peer", true, "57P03"],
		["trust", "password", true, null],
		["password", "trust", true, null],
	] as const)("%s before a reload and %s after it, the admin: %p", (before, after, isAdmin, refusal) => {
		const comer = { user: "u", database: "d", address: "unix", isAdmin };
		const rules = (method: HbaEntry["method"]) => {
			const clients = { authorities: "PEM" } as TlsIdentity;
			const tls = { clients } as unknown as Parameters<typeof readmit>[1]["tls"];
			return { hba: [entry(method, { type: "local" })], general: { auth_type: "scram" }, tls } as const;
		};
		const admission = admit(rules(before), comer, false);
		expect(readmit(admission, rules(after), comer, null, false)?.sqlstate ?? null).toBe(refusal);
	});
});

describe("a log-in", () => {
	const USERS: User[] = [
		{ name: "u", database: "d", passwords: ["secret"] },
		{ name: "hashed", database: "d", passwords: [], password_hash: VERIFIER },
		{ name: "old", database: "d", passwords: [], password_hash: MD5 },
	];
	const stage = (hba: HbaEntry[], settings: Parameters<typeof listen>[2] = {}, address?: string) => {
		// A pool of its own: what failed is counted in its memory.
		const { pool, ...rest } = testPool(postgres.port, { pool_size: 20 });
		const listening = listen({ pool, ...rest }, USERS, settings, address);
		listening.context.hba = hba;
		const dispose = () => {
			pool.shutDown();
			listening.stop();
		};
		return Object.assign(listening, { [Symbol.dispose]: dispose });
	};
	type Stage = ReturnType<typeof stage>;
	/** What is asked first, or the error. */
	const first = async ({ port }: Stage, user: string, database = "d") => {
		await using client = await RawClient.open({ port });
		client.send(frontend.startupMessage({ user, database }));
		const { code, body } = await client.next();
		if (code === "R") return body.readInt32BE(0);
		const { C, M } = errorFields(body);
		return `${C} ${M}`;
	};
	const none = (user: string, database = "d") =>
		`28000 no [[hba]] entry for host "10.0.0.1", user "${user}", database "${database}", no encryption`;

	test("that meets no entry, or one that rejects, is refused before anybody asks who that is", async () => {
		using listening = stage([entry("reject", { users: { ...ALL, all: false, names: ["old", "ghost"] } })], {
			auth_query_user: "asker",
		});
		const asked: string[] = [];
		listening.context.lookUp = async (user) => {
			asked.push(user);
			return { found: null };
		};
		listening.context.find = (user) => {
			asked.push(user);
			return null;
		};
		for (const user of ["u", "nobody"]) expect(await first(listening, user)).toBe(none(user));
		for (const user of ["old", "ghost"])
			expect(await first(listening, user)).toBe(
				`28000 [[hba]] rejects connection for host "10.0.0.1", user "${user}", database "d", no encryption`,
			);
		expect(asked).toEqual([]);
		expect(listening.lines.filter((line) => line.includes("(pgdog.toml:3: hba[0]) [10.0.0.1:5000]"))).toHaveLength(2);
		expect(listening.lines.filter((line) => line.includes("auth error: no [[hba]] entry for host"))).toHaveLength(2);
	});

	test("that is refused is told so after failed_login_delay, and counts as failed", async () => {
		using listening = stage([entry("md5", { users: { ...ALL, all: false, names: ["u"] } })], {
			failed_login_delay: 30,
			max_failed_logins: 2,
		});
		const at = performance.now();
		expect(await first(listening, "x")).toBe(none("x"));
		expect(performance.now() - at).toBeGreaterThan(25);
		expect(await first(listening, "y")).toBe(none("y"));
		expect(await first(listening, "u")).toBe('28000 too many failed log-ins from address "10.0.0.1"');
	});

	test("is asked as its entry says: as one with a password who does not exist, and with md5 by SCRAM for a verifier", async () => {
		for (const [method, code] of [
			["password", 3],
			["md5", 5],
			["scram-sha-256", 10],
		] as const) {
			using listening = stage([entry(method)], { auth_type: "trust" });
			for (const user of ["u", "old", "nobody"]) expect([user, await first(listening, user)]).toEqual([user, code]);
			const ofVerifier = method === "md5" ? 10 : code;
			expect([method, await first(listening, "hashed")]).toEqual([method, ofVerifier]);
			await using client = await RawClient.connect({
				port: listening.port,
				user: "u",
				database: "d",
				password: "secret",
			});
			expect(client.backendPid).toBeGreaterThan(0);
		}
	});

	test.each([
		["rejects it", [entry("password")], [entry("reject")], "28000"],
		["has no entry for it", [entry("password")], [entry("password", { type: "local" })], "28000"],
		["asks for a certificate", [entry("password")], [entry("cert")], "57P03"],
		["asks for nothing", [entry("password")], [entry("trust")], "in"],
		["asks for it in another way", [entry("password")], [entry("scram-sha-256")], "in"],
		["is no list", [entry("password")], [], "in"],
		["is the first", [], [entry("password")], "in"],
		["asks as before", [entry("password")], [entry("reject", { type: "local" }), entry("password")], "in"],
	])("during which a reload has come gets in by the new list only: one that %s", async (_, before, after, expected) => {
		using listening = stage(before, { auth_type: "plain" });
		await using client = await RawClient.open({ port: listening.port });
		client.send(frontend.startupMessage({ user: "u", database: "d" }));
		expect((await client.next()).body.readInt32BE(0)).toBe(3);
		listening.context.hba = after;
		client.send(frontend.passwordMessage("secret"));
		const { code, body } = await client.next();
		expect(code === "E" ? errorFields(body).C : "in").toBe(expected);
	});

	test("of the admin asks for the admin's password, whoever has the name when it ends", async () => {
		using listening = stage([], { auth_type: "plain" });
		const { context } = listening;
		await using client = await RawClient.open({ port: listening.port });
		client.send(frontend.startupMessage({ user: "u", database: "d" }));
		expect((await client.next()).code).toBe("R");
		context.admin = { ...context.admin, name: "d", user: "u" };
		client.send(frontend.passwordMessage("secret"));
		expect(errorFields((await client.next()).body).C).toBe("57P03");
	});

	test("is not asked by the auth_type that a reload has brought for those whom no list is about", async () => {
		using listening = stage([], { auth_type: "scram", auth_query_user: "asker" });
		const { context } = listening;
		const { promise, resolve } = Promise.withResolvers<Awaited<ReturnType<typeof context.lookUp>>>();
		const asked = Promise.withResolvers<void>();
		context.lookUp = () => {
			asked.resolve();
			return promise;
		};
		const said = first(listening, "stranger");
		await asked.promise;
		context.hba = [entry("scram-sha-256")];
		context.general = { ...context.general, auth_type: "trust" };
		resolve({ found: { passwords: ["secret"] } });
		expect(await said).toBe(10);
	});

	test("of which auth_type asked nothing does not end by that once a reload asks for a password", async () => {
		using listening = stage([], { auth_type: "trust", auth_query_user: "asker" });
		const { context } = listening;
		context.lookUp = async () => {
			context.general = { ...context.general, auth_type: "scram" };
			return { found: { passwords: ["secret"] } };
		};
		expect(await first(listening, "stranger")).toStartWith("57P03 ");
	});

	test("by an MD5 hash is nothing that SCRAM can check, and the log says so", async () => {
		using listening = stage([entry("scram-sha-256")]);
		await rejects(RawClient.connect({ port: listening.port, user: "old", database: "d", password: "x" }), "28000");
		expect(listening.lines.join()).toContain("method scram-sha-256 cannot check an MD5 hash (pgdog.toml:3: hba[0])");
	});

	test("of the admin meets the list, and is asked for the password", async () => {
		using listening = stage([entry("trust", { databases: { ...ALL, all: false, names: ["admin"] } })]);
		expect(await first(listening, "admin", "admin")).toBe(10);
		expect(await first(listening, "u", "admin")).toContain("28000 password for user");
		listening.context.hba = [entry("reject")];
		expect(await first(listening, "admin", "admin")).toContain("28000 [[hba]] rejects");
	});

	describe("by peer", () => {
		const peer = entry("peer", { type: "local" });
		const come = (name: string | null, settings: Parameters<typeof listen>[2] = {}) => {
			const coming = stage([peer], settings, "unix");
			coming.systemUser = { uid: 7, name };
			// It has nothing to do with certificates, which are asked for elsewhere.
			coming.context.tls = { ...coming.context.tls, clients: { authorities: "PEM" } as TlsIdentity };
			return coming;
		};

		test("is asked for nothing, and whoever else comes is told what PostgreSQL says, known or not", async () => {
			using listening = come("u");
			expect(await first(listening, "u")).toBe(0);
			for (const user of ["hashed", "nobody", "admin"])
				expect(await first(listening, user)).toBe(`28000 Peer authentication failed for user "${user}"`);
			listening.systemUser = { uid: 65_534, name: null };
			expect(await first(listening, "u")).toBe('28000 Peer authentication failed for user "u"');
			const log = listening.lines.join("\n");
			expect(log).toContain(`it is the system's user "u" (pgdog.toml:3: hba[0]) [unix]`);
			expect(log).toContain("nobody knows the system's user 65534 (pgdog.toml:3: hba[0]) [unix]");
		});

		test("of the system's user of the admin's name opens the admin database, and of no other", async () => {
			using listening = come("admin");
			const opened = Promise.withResolvers<void>();
			listening.context.openAdmin = (stream) => {
				opened.resolve();
				stream.end();
			};
			await using client = await RawClient.open({ port: listening.port });
			client.send(frontend.startupMessage({ user: "admin", database: "admin" }));
			await opened.promise;
			listening.systemUser = { uid: 0, name: "root" };
			const refused = '28000 Peer authentication failed for user "admin"';
			expect(await first(listening, "admin", "admin")).toBe(refused);
		});

		test("asks servers for users of that name only, and nobody for a password", async () => {
			using listening = come("stranger", { auth_query_user: "asker", passthrough_auth: "enabled_plain" });
			const asked: unknown[] = [];
			const { context } = listening;
			context.lookUp = async (...of) => {
				asked.push(of);
				return { found: null };
			};
			expect(await first(listening, "other")).toBe('28000 Peer authentication failed for user "other"');
			expect(asked).toEqual([]);
			expect(await first(listening, "stranger")).toBe('28000 no user "stranger" is configured for database "d"');
			expect(asked).toEqual([["stranger", "d"]]);
		});

		test.each([
			["asks for a password", [entry("scram-sha-256", { type: "local" })], "57P03"],
			["rejects it", [entry("reject", { type: "local" })], "28000"],
			["asks for nothing", [entry("trust", { type: "local" })], "in"],
			["has it, too", [entry("reject"), peer], "in"],
		])("meanwhile a reload has come: the list in force %s", async (_, after, expected) => {
			using listening = come("stranger", { auth_query_user: "asker" });
			const { context } = listening;
			const asked = Promise.withResolvers<void>();
			const said = Promise.withResolvers<Awaited<ReturnType<typeof context.lookUp>>>();
			context.lookUp = () => {
				asked.resolve();
				return said.promise;
			};
			// It has pools, and is in.
			const { find } = context;
			context.join = async () => {
				context.find = () => {
					const login = find("u", "d")!;
					return { ...login, user: { ...login.user, passwords: ["x"] } };
				};
				return null;
			};
			const coming = first(listening, "stranger");
			await asked.promise;
			context.hba = after;
			said.resolve({ found: { passwords: ["x"] } });
			const told = await coming;
			expect(told === 0 ? "in" : String(told).slice(0, 5)).toBe(expected);
		});
	});

	test("by the Unix socket meets entries for that, and counts for no address", async () => {
		using listening = stage(
			[entry("trust", { type: "local", users: { ...ALL, all: false, names: ["u"] } })],
			{ max_failed_logins: 1 },
			"unix",
		);
		for (let i = 0; i < 2; i++) expect(await first(listening, "x")).toContain('for host "[local]"');
		expect(await first(listening, "u")).toBe(0);
	});
});

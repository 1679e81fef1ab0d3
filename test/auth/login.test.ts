import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { type Account, type AuthRequest, type AuthType, ClientLogin } from "../../src/auth/login.ts";
import { deriveKeys, ScramCache } from "../../src/auth/scram-keys.ts";
import { NO_KEYS, type ServerCredentials, ServerLogin, type ServerStep } from "../../src/auth/server-login.ts";
import { hashPassword } from "../../src/auth/verifier.ts";
import type { PgError } from "../../src/errors.ts";

const cache = new ScramCache();
const account = (...passwords: string[]): Account => ({ passwords });
const request = (code: number, body: Uint8Array = new Uint8Array()) =>
	Buffer.concat([Uint8Array.of(0, 0, 0, code), body]);
const text = (value: string) => Buffer.from(`${value}\0`);

/** node-postgres's own SCRAM and MD5: code that has nothing to do with ours. */
interface Oracle {
	startSession(mechanisms: string[]): { response: string };
	continueSession(session: unknown, password: string, serverData: string): Promise<void>;
	finalizeSession(session: unknown, serverData: string): void;
	postgresMd5PasswordHash(user: string, password: string, salt: Uint8Array): Promise<string>;
}
const oracle: Oracle = {
	...(await import("pg/lib/crypto/sasl.js" as string)).default,
	...(await import("pg/lib/crypto/utils.js" as string)).default,
};

function initial(data: string | null, mechanism = "SCRAM-SHA-256"): Buffer {
	const length = Buffer.alloc(4);
	length.writeInt32BE(data === null ? -1 : Buffer.byteLength(data));
	return Buffer.concat([text(mechanism), length, Buffer.from(data ?? "")]);
}

interface Outcome {
	client: ClientLogin;
	server: ServerLogin;
	last: AuthRequest;
	/** What the other side made of it. */
	answer: ServerStep | null;
	/** Codes and body lengths of the Authentication messages sent. */
	shape: string[];
}

/** Lets our two roles talk to each other until one of them ends it. */
async function talk(type: AuthType, user: string, account: Account | null, credentials: ServerCredentials, by = cache) {
	const out: Outcome = {
		client: new ClientLogin(type, user, account, by),
		server: new ServerLogin(user, credentials, new ScramCache()),
		last: { kind: "refused", reason: "" },
		answer: null,
		shape: [],
	};
	const send = async (code: number, body?: Uint8Array) => {
		out.shape.push(`${code}:${body?.length ?? 0}`);
		out.answer = await out.server.step(request(code, body));
	};
	for (out.last = out.client.start(); out.last.kind === "ask"; ) {
		await send(out.last.code, out.last.body);
		if (out.answer?.kind !== "answer") return out;
		out.last = await out.client.step(out.answer.body);
	}
	if (out.last.kind === "ok") {
		if (out.last.saslFinal !== null) await send(12, out.last.saslFinal);
		await send(0);
	} else out.shape.push(out.last.kind);
	return out;
}

for (const type of ["scram", "md5", "plain"] as const) {
	test(`${type}: the right password lets in, another does not`, async () => {
		const right = await talk(type, "alice", account("secret"), { passwords: ["secret"] });
		expect(right.last.kind).toBe("ok");
		expect(right.answer).toEqual({ kind: "ok" });
		expect(right.client.passwordIndex).toBe(0);
		expect(right.server.usedPassword).toBe(0);
		const wrong = await talk(type, "alice", account("secret"), { passwords: ["Secret"] });
		expect(wrong.last).toEqual({ kind: "refused", reason: "wrong password" });
		expect(wrong.client.keys).toBeNull();
	});

	test(`${type}: any of several passwords lets in and is named`, async () => {
		const passwords = ["one", "two", "three"];
		for (const [index, password] of passwords.entries()) {
			const { last, client } = await talk(type, "alice", account(...passwords), { passwords: [password] });
			expect([last.kind, client.passwordIndex]).toEqual(["ok", index]);
		}
		expect((await talk(type, "alice", account(...passwords), { passwords: ["four"] })).last.kind).toBe("refused");
	});

	test(`${type}: an unknown user sees the same messages as a wrong password`, async () => {
		const unknown = await talk(type, "nobody", null, { passwords: ["x"] });
		const wrong = await talk(type, "alice", account("secret"), { passwords: ["x"] });
		const empty = await talk(type, "carol", account(), { passwords: ["x"] });
		expect(unknown.last.kind).toBe("refused");
		expect(unknown.shape).toEqual(wrong.shape);
		expect(empty.shape).toEqual(wrong.shape);
		expect(unknown.last).not.toEqual(wrong.last);
	});

	test(`${type}: an account whose hash is no verifier, or whose password is empty, lets nobody in`, async () => {
		for (const bad of [{ passwords: ["secret"], password_hash: "md5abc" }, account("")]) {
			for (const passwords of [["secret"], ["md5abc"]]) {
				expect((await talk(type, "alice", bad, { passwords })).last.kind).toBe("refused");
			}
		}
	});

	test(`${type}: random passwords agree between both roles`, async () => {
		const password = fc.string({ unit: "grapheme", minLength: 1, maxLength: 12 }).filter((p) => !p.includes("\0"));
		await fc.assert(
			fc.asyncProperty(password, fc.string({ unit: "grapheme" }), async (password, user) => {
				expect((await talk(type, user, account(password), { passwords: [password] })).answer?.kind).toBe("ok");
			}),
			{ numRuns: 25 },
		);
	});
}

test("every refusal but that of MD5 costs a derivation, known user or not", async () => {
	const hashed = { passwords: [], password_hash: await hashPassword("secret") };
	// Warm, so that what is measured is not the first derivation of a known user.
	await talk("scram", "alice", account("secret"), { passwords: ["secret"] });
	for (const who of [account("secret"), hashed, null]) {
		const plain = new ClientLogin("plain", "alice", who, cache);
		plain.start();
		expect(plain.step(text("wrong"))).toBeInstanceOf(Promise);

		const scram = new ClientLogin("scram", "alice", who, cache);
		const server = new ServerLogin("alice", { passwords: ["wrong"] }, cache);
		scram.start();
		const first = (await server.step(request(10, text("SCRAM-SHA-256\0")))) as { body: Uint8Array };
		const challenge = scram.step(first.body);
		// The challenge itself must come at once for everybody.
		expect(challenge).not.toBeInstanceOf(Promise);
		const { body } = challenge as unknown as { body: Uint8Array };
		const proof = (await server.step(request(11, body))) as { body: Uint8Array };
		expect(scram.step(proof.body)).toBeInstanceOf(Promise);
	}
});

test("a later login of a known user waits for nothing", async () => {
	const own = new ScramCache();
	await talk("scram", "alice", account("secret"), { passwords: ["secret"] }, own);
	const client = new ClientLogin("scram", "alice", account("secret"), own);
	client.start();
	const session = oracle.startSession(["SCRAM-SHA-256"]) as { response: string };
	const challenge = client.step(initial(session.response)) as unknown as { body: Buffer };
	await oracle.continueSession(session, "secret", challenge.body.toString());
	expect(client.step(Buffer.from(session.response))).toMatchObject({ kind: "ok" });
});

test("an unknown user is given the same salt each time", async () => {
	const salts = [];
	for (const who of ["ghost", "ghost", "other"]) {
		const login = new ClientLogin("scram", who, null, cache);
		login.start();
		const reply = login.step(initial("n,,n=,r=abc")) as unknown as { body: Buffer };
		const [nonce, salt, iterations] = reply.body.toString().split(",");
		expect(nonce?.startsWith("r=abc")).toBe(true);
		expect(iterations).toBe("i=4096");
		salts.push(salt);
	}
	expect(salts[0]).toBe(salts[1] as string);
	expect(salts[0]).not.toBe(salts[2] as string);
});

test("trust lets in whoever exists with a password or a hash, and nobody else", () => {
	const start = (who: Account | null) => new ClientLogin("trust", "alice", who, cache).start().kind;
	expect(start(account("secret"))).toBe("ok");
	expect(start({ passwords: [], password_hash: "any" })).toBe("ok");
	expect(start(account())).toBe("refused");
	expect(start(null)).toBe("refused");
});

test("when there is a hash, it alone counts for clients", async () => {
	const hashed = { passwords: ["for-servers"], password_hash: await hashPassword("for-clients") };
	for (const type of ["scram", "plain"] as const) {
		for (let again = 0; again < 2; again++) {
			expect((await talk(type, "alice", hashed, { passwords: ["for-clients"] })).last.kind).toBe("ok");
			expect((await talk(type, "alice", hashed, { passwords: ["for-servers"] })).last.kind).toBe("refused");
		}
	}
	for (const password of hashed.passwords) {
		expect((await talk("md5", "alice", hashed, { passwords: [password] })).last.kind).toBe("refused");
	}
});

test("an MD5 hash is what MD5 and plain are held against, and SCRAM cannot be", async () => {
	// As PostgreSQL keeps it: of password and name.
	const hash = `md5${createHash("md5").update("secretalice").digest("hex")}`;
	const hashed = { passwords: [], password_hash: hash };
	const outcome = async (type: AuthType, password: string) =>
		(await talk(type, "alice", hashed, { passwords: [password] })).last;
	for (const type of ["md5", "plain"] as const) {
		expect(await outcome(type, "secret")).toEqual({ kind: "ok", saslFinal: null });
		expect(await outcome(type, "Secret")).toEqual({ kind: "refused", reason: "wrong password" });
	}
	expect(await outcome("scram", "secret")).toEqual({
		kind: "refused",
		reason: "auth_type scram cannot check an MD5 hash",
	});
	// The hash alone is enough for a server that asks for MD5, and for no other.
	expect((await talk("md5", "alice", account("secret"), { md5: hash })).last.kind).toBe("ok");
	expect((await talk("plain", "alice", account("secret"), { md5: hash })).answer).toEqual(
		error("28000", "server asked for a password, but only an MD5 hash is known"),
	);
});

test("who has the keys of SCRAM only has no password to show", async () => {
	const keys = await deriveKeys("secret", Buffer.from("salt"), 4096);
	const asked = (credentials: ServerCredentials) => new ServerLogin("alice", credentials, cache).step(request(3));
	expect(asked({ keys })).toEqual(error("28000", "server asked for a password, but only SCRAM keys are known"));
	expect(asked({ keys: null })).toEqual({ kind: "error", error: NO_KEYS });
});

test("the keys of a client's proof log in where the same verifier is kept, and only there", async () => {
	const password_hash = await hashPassword("secret");
	const { client } = await talk("scram", "alice", { passwords: [], password_hash }, { passwords: ["secret"] });
	if (client.keys === null) throw new Error("no keys");
	const credentials = { keys: client.keys };
	const passed = await talk("scram", "alice", { passwords: [], password_hash }, credentials);
	expect(passed.answer).toEqual({ kind: "ok" });
	expect(passed.server.usedPassword).toBe(-1);
	const other = { passwords: [], password_hash: await hashPassword("secret") };
	expect((await talk("scram", "alice", other, credentials)).last.kind).toBe("refused");
	expect((await talk("plain", "alice", account("secret"), credentials)).answer?.kind).toBe("error");
});

test("SCRAM and plain accept spellings that SASLprep makes equal", async () => {
	for (const type of ["scram", "plain"] as const) {
		expect((await talk(type, "alice", account("I\u00adX"), { passwords: ["\u2168"] })).last.kind).toBe("ok");
	}
});

test("the driver pg logs in by SCRAM and MD5", async () => {
	for (const password of ["secret", "пароль", "I\u00adX\u00a0"]) {
		const scram = new ClientLogin("scram", "bob", account("other", password), cache);
		expect(scram.start()).toMatchObject({ kind: "ask", code: 10 });
		const session = oracle.startSession(["SCRAM-SHA-256"]) as { response: string };
		const challenge = await scram.step(initial(session.response));
		if (challenge.kind !== "ask") throw new Error(challenge.kind);
		await oracle.continueSession(session, password, Buffer.from(challenge.body ?? []).toString());
		const end = await scram.step(Buffer.from(session.response));
		if (end.kind !== "ok") throw new Error(end.kind);
		oracle.finalizeSession(session, Buffer.from(end.saslFinal ?? []).toString());

		const md5 = new ClientLogin("md5", "bob", account(password), cache);
		const asked = md5.start();
		if (asked.kind !== "ask" || asked.body === undefined) throw new Error(asked.kind);
		expect(asked.body.length).toBe(4);
		expect(md5.step(text(await oracle.postgresMd5PasswordHash("bob", password, asked.body)))).toMatchObject({
			kind: "ok",
		});
	}
});

test("a client may leave the first message out of SASLInitialResponse", async () => {
	const login = new ClientLogin("scram", "bob", account("x"), cache);
	login.start();
	expect(login.step(initial(null))).toEqual({ kind: "ask", code: 11, body: new Uint8Array(0) });
	expect(login.step(Buffer.from("n,,n=,r=abc"))).toMatchObject({ kind: "ask", code: 11 });
});

const badBodies: [AuthType, string, Uint8Array, string, string][] = [
	["plain", "no NUL", Buffer.from("secret"), "08P01", "invalid password packet size"],
	["plain", "bytes after the NUL", text("secret\0x"), "08P01", "invalid password packet size"],
	["plain", "nothing", Buffer.alloc(0), "08P01", "invalid password packet size"],
	["plain", "an empty password", text(""), "28P01", "empty password returned by client"],
	["plain", "a huge password", Buffer.alloc(70_000, 65), "08P01", "invalid message length"],
	["md5", "an empty password", text(""), "28P01", "empty password returned by client"],
	["scram", "a huge message", Buffer.alloc(2000, 65), "08P01", "invalid message length"],
	["scram", "no NUL", Buffer.from("SCRAM"), "08P01", "invalid string in message"],
	["scram", "a password", text("secret"), "08P01", "client selected an invalid SASL authentication mechanism"],
	[
		"scram",
		"channel binding",
		initial("p=x,,n=,r=a", "SCRAM-SHA-256-PLUS"),
		"08P01",
		"client selected an invalid SASL authentication mechanism",
	],
	["scram", "no length", text("SCRAM-SHA-256"), "08P01", "insufficient data left in message"],
	["scram", "a short one", initial("n,,n=,r=a").subarray(0, -1), "08P01", "insufficient data left in message"],
	["scram", "a long one", Buffer.concat([initial("n,,n=,r=a"), text("")]), "08P01", "invalid message format"],
	["scram", "a malformed first message", initial("hello"), "08P01", "malformed SCRAM message"],
];

test.each(badBodies)("%s: %s is an error, and so is anything after it", (type, _name, body, sqlstate, message) => {
	for (const who of [account("secret"), null]) {
		const login = new ClientLogin(type, "alice", who, cache);
		login.start();
		const step = login.step(body) as unknown as { kind: string; error: PgError };
		expect(step.kind).toBe("error");
		expect([step.error.severity, step.error.sqlstate, step.error.message]).toEqual(["FATAL", sqlstate, message]);
		expect(login.step(text("secret"))).toMatchObject({ kind: "error" });
	}
});

test("a message that comes while keys are derived ends the login", async () => {
	const login = new ClientLogin("plain", "alice", { passwords: [], password_hash: await hashPassword("x") }, cache);
	login.start();
	const pending = login.step(text("x"));
	expect(login.step(text("x"))).toMatchObject({ kind: "error" });
	expect(await pending).toMatchObject({ kind: "error" });
});

test("arbitrary answers never let in and never throw", async () => {
	const types = fc.constantFrom<AuthType>("scram", "md5", "plain");
	await fc.assert(
		fc.asyncProperty(types, fc.array(fc.uint8Array({ maxLength: 80 }), { maxLength: 4 }), async (type, bodies) => {
			const login = new ClientLogin(type, "alice", account("a password that is long"), cache);
			login.start();
			for (const body of bodies) expect((await login.step(body)).kind).not.toBe("ok");
		}),
		{ numRuns: 300 },
	);
});

function error(sqlstate: string, part: string): ServerStep {
	const like: unknown = expect.objectContaining({ sqlstate, message: expect.stringContaining(part) });
	return { kind: "error", error: like as PgError };
}

test("a server that asks for what we do not have is named", async () => {
	const step = (body: Uint8Array, credentials: ServerCredentials = { passwords: ["x"] }) =>
		new ServerLogin("alice", credentials, cache).step(body);
	expect(step(request(7))).toEqual(error("0A000", "GSSAPI authentication not supported"));
	expect(step(request(9))).toEqual(error("0A000", "SSPI authentication not supported"));
	expect(step(request(99))).toEqual(error("0A000", "authentication method 99 not supported"));
	expect(step(request(10, text("OAUTHBEARER\0")))).toEqual(error("0A000", "none of the server's SASL"));
	expect(step(request(5, Buffer.alloc(3)))).toEqual(error("08P01", "AuthenticationMD5Password"));
	expect(step(Buffer.alloc(3))).toEqual(error("08P01", "invalid Authentication message"));
	for (const code of [3, 5, 10]) {
		const body = code === 5 ? Buffer.alloc(4) : text("SCRAM-SHA-256\0");
		expect(step(request(code, body), { passwords: [] })).toEqual(error("28000", "no password supplied"));
	}
	expect(step(request(0), { passwords: [] })).toEqual({ kind: "ok" });
});

test("where the login is to prove a password, a server has to ask for it", () => {
	const credentials = { passwords: ["x"], asProof: true };
	const server = () => new ServerLogin("alice", credentials, cache);
	expect(server().step(request(0))).toEqual(error("28000", "the server asked for no password"));
	const asks = server();
	expect(asks.step(request(3))).toMatchObject({ kind: "answer" });
	expect(asks.step(request(0))).toEqual({ kind: "ok" });
});

test("a server may not skip its proof, repeat a question or go out of turn", async () => {
	const begun = () => {
		const login = new ServerLogin("alice", { passwords: ["x"] }, cache);
		expect(login.step(request(10, text("SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0")))).toMatchObject({ kind: "answer" });
		return login;
	};
	expect(begun().step(request(0))).toEqual(error("28000", "server did not complete authentication"));
	expect(begun().step(request(3))).toEqual(error("08P01", "unexpected Authentication message 3"));
	expect(begun().step(request(12, Buffer.from("v=x")))).toEqual(error("08P01", "unexpected Authentication message 12"));
	expect(begun().step(request(11, Buffer.from("r=x,s=AAAA,i=1")))).toEqual(error("08P01", "invalid SCRAM response"));
	const twice = new ServerLogin("alice", { passwords: ["x"] }, cache);
	void twice.step(request(3));
	expect(twice.step(request(3))).toEqual(error("08P01", "unexpected Authentication message 3"));
	expect(twice.step(request(0))).toEqual(error("08P01", "unexpected Authentication message 0"));
});

test("the password that the server was shown is the one asked for", () => {
	const login = new ServerLogin("alice", { passwords: ["one", "two"], passwordIndex: 1 }, cache);
	expect(login.usedPassword).toBe(-1);
	expect(login.step(request(3))).toEqual({ kind: "answer", body: text("two") });
	expect(login.usedPassword).toBe(1);
});

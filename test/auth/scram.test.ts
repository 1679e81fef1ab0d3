import { expect, test } from "bun:test";
import fc from "fast-check";
import { ScramClient, ScramServer } from "../../src/auth/scram.ts";
import { deriveKeys, ScramCache } from "../../src/auth/scram-keys.ts";
import { PgError } from "../../src/errors.ts";

const bytes = (text: string) => Buffer.from(text, "latin1");

// RFC 7677, "SCRAM-SHA-256 and SCRAM-SHA-256-PLUS": the example exchange, with the user name that libpq leaves out put back.
const RFC = {
	salt: Buffer.from("W22ZaJ0SNY7soEsUEjb6gQ==", "base64"),
	clientNonce: "rOprNGfwEbeRWgbNEkqO",
	serverNonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
	first: "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
	serverFirst: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
	final:
		"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0," + "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
	serverFinal: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
};

function caught(run: () => unknown): PgError {
	try {
		run();
	} catch (error) {
		if (error instanceof PgError) return error;
		throw error;
	}
	throw new Error("nothing was thrown");
}

test("the server role reproduces the exchange of RFC 7677", async () => {
	const keys = await deriveKeys("pencil", RFC.salt, 4096);
	const server = new ScramServer(RFC.salt, 4096, null, RFC.serverNonce);
	expect(server.first(bytes(RFC.first)).toString()).toBe(RFC.serverFirst);
	server.final(bytes(RFC.final));
	const proof = server.check([keys]);
	expect(proof?.serverFinal.toString()).toBe(RFC.serverFinal);
	expect(Buffer.from(proof?.keys.clientKey ?? []).equals(Buffer.from(keys.clientKey))).toBe(true);
});

// PostgreSQL clients send an empty user name, so the RFC's proof does not fit; its messages are otherwise the same, and the
// expected proof was computed with another implementation (Python's hashlib).
test("the client role answers the challenge of RFC 7677", async () => {
	const client = new ScramClient(null, false, RFC.clientNonce);
	expect(client.first().toString()).toBe("n,,n=,r=rOprNGfwEbeRWgbNEkqO");
	const challenge = client.challenge(bytes(RFC.serverFirst));
	expect(challenge.iterations).toBe(4096);
	expect(Buffer.from(challenge.salt).equals(RFC.salt)).toBe(true);
	const keys = await deriveKeys("pencil", challenge.salt, challenge.iterations);
	expect(client.final(keys).toString()).toBe(
		"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=qvT2SWdEH5Q06albL+hjSYuUhCG7VndFyzIb7CK4n9k=",
	);
	client.verify(bytes("v=3HO6Qt1M4MKJrmlKaoOqLAI0/0TV0HZe7J9H3MBtSOg="));
});

const password = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 });
const salt = fc.uint8Array({ minLength: 1, maxLength: 24 });
const iterations = fc.integer({ min: 1, max: 20 });

test("with channel binding both roles agree on one certificate only, and notice an offer that was taken away", async () => {
	const keys = await deriveKeys("pencil", RFC.salt, 2);
	const endPoint = fc.uint8Array({ minLength: 20, maxLength: 64 }).map((hash) => Buffer.from(hash).toString("base64"));
	fc.assert(
		fc.property(endPoint, endPoint, (ours, theirs) => {
			const client = new ScramClient(theirs, true);
			const server = new ScramServer(RFC.salt, 2, ours);
			client.challenge(server.first(client.first(), true));
			const final = () => server.final(client.final(keys));
			if (ours !== theirs)
				expect(caught(final)).toMatchObject({ sqlstate: "28000", message: "SCRAM channel binding check failed" });
			else {
				final();
				client.verify(server.check([keys])!.serverFinal);
			}
			const deceived = new ScramClient(null, true);
			expect(caught(() => new ScramServer(RFC.salt, 2, ours).first(deceived.first())).sqlstate).toBe("28000");
			// Whoever has nothing to bind to may log in without.
			const bare = new ScramClient();
			expect(new ScramServer(RFC.salt, 2, ours).first(bare.first()).length).toBeGreaterThan(0);
		}),
	);
});

test("both roles agree on any password, salt and iteration count, and the server recovers working keys", async () => {
	await fc.assert(
		fc.asyncProperty(password, salt, iterations, async (password, salt, iterations) => {
			const keys = await deriveKeys(password, salt, iterations);
			const client = new ScramClient();
			const server = new ScramServer(salt, iterations);
			const challenge = client.challenge(server.first(client.first()));
			server.final(client.final(await deriveKeys(password, challenge.salt, challenge.iterations)));
			const proof = server.check([keys]);
			if (proof === null) throw new Error("refused");
			client.verify(proof.serverFinal);
			// The recovered keys log in again without the password.
			const second = new ScramClient();
			const again = new ScramServer(salt, iterations);
			second.challenge(again.first(second.first()));
			again.final(second.final(proof.keys));
			expect(again.check([keys])?.index).toBe(0);
		}),
		{ numRuns: 60 },
	);
});

/** Runs a login with one byte of one message replaced; true when both ends were content. */
async function withTampering(message: number, position: number, value: number): Promise<boolean> {
	const tampered = (index: number, original: Buffer): Buffer => {
		if (index !== message) return original;
		const copy = Buffer.from(original);
		const at = position % copy.length;
		copy[at] = copy[at] === value ? value ^ 1 : value;
		return copy;
	};
	const salt = Buffer.from("0123456789abcdef");
	const keys = await deriveKeys("secret", salt, 2);
	const client = new ScramClient();
	const server = new ScramServer(salt, 2);
	const challenge = client.challenge(tampered(1, server.first(tampered(0, client.first()))));
	// A forged iteration count must not make the test slow.
	if (challenge.iterations !== 2) return false;
	server.final(tampered(2, client.final(await deriveKeys("secret", challenge.salt, 2))));
	const proof = server.check([keys]);
	if (proof === null) return false;
	client.verify(tampered(3, proof.serverFinal));
	return true;
}

test("a login in which any byte of any message was changed fails at one end", async () => {
	expect(await withTampering(-1, 0, 0)).toBe(true);
	await fc.assert(
		fc.asyncProperty(
			fc.integer({ min: 0, max: 3 }),
			fc.nat(200),
			fc.oneof(fc.integer({ min: 0, max: 255 }), fc.constantFrom(...Buffer.from("ABCDEabcde019+/=,rnspvyc"))),
			async (message, position, value) => {
				const passed = await withTampering(message, position, value).catch((error) => {
					if (error instanceof PgError) return false;
					throw error;
				});
				expect(passed).toBe(false);
			},
		),
		{ numRuns: 600 },
	);
});

test("every byte of the proof counts, the spare bits of its base64 too", async () => {
	const keys = await deriveKeys("pencil", RFC.salt, 4096);
	for (let at = RFC.final.indexOf("p=") + 2; at < RFC.final.length; at++) {
		for (const other of "ABRSTUVgw+/=,") {
			if (RFC.final[at] === other) continue;
			const server = new ScramServer(RFC.salt, 4096, null, RFC.serverNonce);
			server.first(bytes(RFC.first));
			let accepted = false;
			try {
				server.final(bytes(RFC.final.slice(0, at) + other + RFC.final.slice(at + 1)));
				accepted = server.check([keys]) !== null;
			} catch (error) {
				expect(error).toBeInstanceOf(PgError);
			}
			expect(accepted).toBe(false);
		}
	}
});

test("the proof is checked against every candidate and the one that fits is named", async () => {
	const all = await Promise.all(["one", "two", "three"].map((password) => deriveKeys(password, RFC.salt, 3)));
	for (const [index, password] of ["one", "two", "three", "four"].entries()) {
		const client = new ScramClient();
		const server = new ScramServer(RFC.salt, 3);
		client.challenge(server.first(client.first()));
		server.final(client.final(await deriveKeys(password, RFC.salt, 3)));
		expect(server.check(all)?.index).toBe(index < 3 ? index : undefined);
	}
});

const malformed = "malformed SCRAM message";
// Message and detail are those of PostgreSQL's auth-scram.c.
const firstMessages: [string, string, string, string | undefined][] = [
	["", "08P01", malformed, "The message is empty."],
	["n,,n=,r=a\0", "08P01", malformed, "Message length does not match input length."],
	["x,,n=,r=a", "08P01", malformed, `Unexpected channel-binding flag "'x'".`],
	["\x07,,n=,r=a", "08P01", malformed, 'Unexpected channel-binding flag "0x07".'],
	["n", "08P01", malformed, 'Comma expected, but found character "0x00".'],
	["nn,n=,r=a", "08P01", malformed, `Comma expected, but found character "'n'".`],
	[
		"p=tls-server-end-point,,n=,r=a",
		"08P01",
		malformed,
		"The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.",
	],
	["n,a=bob,n=,r=a", "0A000", "client uses authorization identity, but it is not supported", undefined],
	["n,b,n=,r=a", "08P01", malformed, `Unexpected attribute "'b'" in client-first-message.`],
	["n,,m=x,n=,r=a", "0A000", "client requires an unsupported SCRAM extension", undefined],
	["n,,r=a", "08P01", malformed, `Expected attribute "n" but found "'r'".`],
	["n,,n", "08P01", malformed, 'Expected character "=" for attribute "n".'],
	["n,,n=", "08P01", malformed, 'Expected attribute "r" but found "0x00".'],
	["n,,n=,r=a\x7f", "08P01", "non-printable characters in SCRAM nonce", undefined],
	["n,,n=,r=a,1=x", "08P01", malformed, `Attribute expected, but found invalid character "'1'".`],
];

test.each(firstMessages)("client-first-message %j is refused as PostgreSQL does", (text, sqlstate, message, detail) => {
	const error = caught(() => new ScramServer(RFC.salt, 1).first(bytes(text)));
	expect([error.severity, error.sqlstate, error.message, error.detail]).toEqual(["FATAL", sqlstate, message, detail]);
});

// Whom SCRAM-SHA-256-PLUS was offered, and who has chosen it or not.
test.each([
	[
		"n,,n=,r=a",
		true,
		"08P01",
		malformed,
		"The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.",
	],
	["p=tls\nunique,,n=,r=a", true, "08P01", 'unsupported SCRAM channel-binding type "tls?unique"', undefined],
	["p=tls-unique,,n=,r=a", true, "08P01", 'unsupported SCRAM channel-binding type "tls-unique"', undefined],
	[
		"y,,n=,r=a",
		false,
		"28000",
		"SCRAM channel binding negotiation error",
		"The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.",
	],
])(
	"client-first-message %j of one who has chosen it: %p is refused as PostgreSQL does",
	(text, plus, sqlstate, message, detail) => {
		const error = caught(() => new ScramServer(RFC.salt, 1, "AAAA").first(bytes(text), plus));
		expect([error.severity, error.sqlstate, error.message, error.detail]).toEqual(["FATAL", sqlstate, message, detail]);
	},
);

const nonce = "aSERVER";
const zeros = Buffer.alloc(32).toString("base64");
const finalMessages: [string, string, string | undefined][] = [
	["", malformed, "The message is empty."],
	[`r=${nonce},p=${zeros}`, malformed, `Expected attribute "c" but found "'r'".`],
	[`c=eSws,r=${nonce},p=${zeros}`, "unexpected SCRAM channel-binding attribute in client-final-message", undefined],
	[`c=biws,r=aOTHER,p=${zeros}`, "invalid SCRAM response", "Nonce does not match."],
	[`c=biws,r=${nonce}x,p=${zeros}`, "invalid SCRAM response", "Nonce does not match."],
	[`c=biws,r=${nonce}`, malformed, "Attribute expected, but found end of string."],
	[`c=biws,r=${nonce},p=***`, malformed, "Malformed proof in client-final-message."],
	[`c=biws,r=${nonce},p=AAAA`, malformed, "Malformed proof in client-final-message."],
	[`c=biws,r=${nonce},p=${zeros},x=y`, malformed, "Garbage found at the end of client-final-message."],
	[`c=biws,r=${nonce},p=${zeros},`, malformed, "Garbage found at the end of client-final-message."],
];

test.each(finalMessages)("client-final-message %j is refused as PostgreSQL does", (text, message, detail) => {
	const server = new ScramServer(RFC.salt, 1, null, "SERVER");
	server.first(bytes("n,,n=,r=a"));
	const error = caught(() => server.final(bytes(text)));
	expect([error.sqlstate, error.message, error.detail]).toEqual(["08P01", message, detail]);
});

test("a client that says that it could bind the channel is taken at its word, and must repeat it", () => {
	const start = () => {
		const server = new ScramServer(RFC.salt, 1, null, "SERVER");
		server.first(bytes("y,,n=,r=a"));
		return server;
	};
	start().final(bytes(`c=eSws,r=${nonce},p=${zeros}`));
	expect(caught(() => start().final(bytes(`c=biws,r=${nonce},p=${zeros}`))).message).toContain("channel-binding");
});

test("optional extensions are read over and signed", async () => {
	const keys = await deriveKeys("x", RFC.salt, 1);
	const server = new ScramServer(RFC.salt, 1, null, "SERVER");
	server.first(bytes("n,,n=ignored,r=a,z=later"));
	server.final(bytes(`c=biws,r=${nonce},z=later,p=${zeros}`));
	expect(server.check([keys])).toBeNull();
});

const serverFirsts = [
	"",
	"e=other-error",
	"r=OTHER,s=AAAA,i=1",
	"r=mine,s=AAAA,i=1",
	"m=x,r=mine+,s=AAAA,i=1",
	"r=mine+,s=*,i=1",
	"r=mine+,s=,i=1",
	"r=mine+,s=AAAA,i=0",
	"r=mine+,s=AAAA,i=-1",
	"r=mine+,s=AAAA,i=4e3",
	"r=mine+,s=AAAA,i=2147483647",
	"r=mine+,s=AAAA",
	"r=mine+,s=AAAA,i=1,1",
];

test.each(serverFirsts)("our client role refuses server-first-message %j", (text) => {
	expect(caught(() => new ScramClient(null, false, "mine").challenge(bytes(text))).sqlstate).toBe("08P01");
});

test("our client role refuses a server that cannot sign", async () => {
	const keys = await deriveKeys("x", RFC.salt, 1);
	const verify = (text: string) => {
		const client = new ScramClient(null, false, "mine");
		client.challenge(bytes("r=mine+,s=AAAA,i=1"));
		client.final(keys);
		return caught(() => client.verify(bytes(text)));
	};
	expect(verify(`v=${zeros}`).message).toBe("incorrect server signature");
	expect(verify("v=AAAA").message).toBe(malformed);
	expect(verify("e=invalid-proof").message).toBe("error received from server in SCRAM exchange: invalid-proof");
});

test("arbitrary bytes never make either role throw anything but a PgError", () => {
	const alphabet = fc.constantFrom(...Buffer.from("nypcrsive=,=,aA+/0\0\xff", "latin1"));
	fc.assert(
		fc.property(fc.array(alphabet, { maxLength: 40 }), (codes) => {
			const server = new ScramServer(RFC.salt, 1, null, "SERVER");
			const client = new ScramClient(null, false, "a");
			for (const run of [() => server.first(Buffer.from(codes)), () => client.challenge(Buffer.from(codes))]) {
				try {
					run();
				} catch (error) {
					expect(error).toBeInstanceOf(PgError);
				}
			}
		}),
		{ numRuns: 3000 },
	);
});

test("a first derivation is a promise, one for all who wait, and later ones are at hand", async () => {
	const cache = new ScramCache();
	const first = cache.keys("secret", RFC.salt, 50);
	const second = cache.keys("secret", RFC.salt, 50);
	expect(first).toBeInstanceOf(Promise);
	expect(second).toBe(first);
	const keys = await first;
	expect(cache.keys("secret", RFC.salt, 50)).toBe(keys);
	expect(cache.keys("secret", RFC.salt, 51)).toBeInstanceOf(Promise);
});

test("the cache keeps no more than it was told", async () => {
	const cache = new ScramCache({ max: 2 });
	for (const password of ["a", "b", "c"]) await cache.keys(password, RFC.salt, 1);
	expect(cache.keys("a", RFC.salt, 1)).toBeInstanceOf(Promise);
	expect(cache.keys("c", RFC.salt, 1)).not.toBeInstanceOf(Promise);
});

test("a user's salt depends on the secret and the name alone", () => {
	const secret = Buffer.alloc(32, 7);
	const salt = new ScramCache({ secret }).saltFor("alice");
	expect(salt.length).toBe(16);
	expect(new ScramCache({ secret }).saltFor("alice").equals(salt)).toBe(true);
	expect(new ScramCache({ secret }).saltFor("bob").equals(salt)).toBe(false);
	expect(new ScramCache().saltFor("alice").equals(salt)).toBe(false);
});

import { expect, test } from "bun:test";
import fc from "fast-check";
import { md5Response } from "../../src/auth/md5.ts";
import { formatVerifier, hashPassword, parseVerifier } from "../../src/auth/verifier.ts";

// Computed with Python's hashlib: password "pencil", salt of RFC 7677.
const PENCIL =
	"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$" +
	"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

test("a hash is the one that PostgreSQL would store", async () => {
	expect(await hashPassword("pencil", Buffer.from("W22ZaJ0SNY7soEsUEjb6gQ==", "base64"))).toBe(PENCIL);
});

test("a hash has its own random 16-byte salt and 4096 iterations", async () => {
	const [one, two] = await Promise.all([hashPassword("x"), hashPassword("x")]);
	expect(one).not.toBe(two);
	expect(parseVerifier(one)?.salt.length).toBe(16);
	expect(parseVerifier(one)?.iterations).toBe(4096);
});

test("what was formatted is parsed back", () => {
	const key = fc.uint8Array({ minLength: 32, maxLength: 32 });
	const salt = fc.uint8Array({ minLength: 1, maxLength: 40 });
	fc.assert(
		fc.property(fc.integer({ min: 1, max: 0x7fffffff }), salt, key, key, (iterations, salt, storedKey, serverKey) => {
			const text = formatVerifier({ iterations, salt, storedKey, serverKey });
			const parsed = parseVerifier(text);
			expect(parsed && formatVerifier(parsed)).toBe(text);
		}),
	);
});

test.each([
	"",
	"pencil",
	"md5d51c9a7e9353746a6020f9602d452929",
	PENCIL.replace("256", "512"),
	PENCIL.replace("4096", "0"),
	PENCIL.replace("4096", "-1"),
	PENCIL.replace("4096", "4294967296"),
	PENCIL.replace("W22Z", "W2*Z"),
	PENCIL.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
	PENCIL.slice(0, -4),
	`${PENCIL}\n`,
	`${PENCIL}:more`,
	` ${PENCIL}`,
])("%j is no verifier", (text) => {
	expect(parseVerifier(text)).toBeNull();
});

// Computed with Python's hashlib.
test("the MD5 answer is PostgreSQL's", () => {
	expect(md5Response("secret", "alice", Uint8Array.of(1, 2, 3, 4))).toBe("md598a0412b9c31436fc53776e863350083");
	expect(md5Response("пароль", "алиса", Uint8Array.of(0xff, 0, 0x80, 0x7f))).toBe(
		"md574f3af873cc4d53cd218cb71d42b4ced",
	);
});

// Keys by the verifier that they fit: whose they are, and when they are gone.

import { expect, test } from "bun:test";
import { Keyring } from "../../src/auth/keyring.ts";
import { deriveKeys, ScramCache } from "../../src/auth/scram-keys.ts";
import { NO_KEYS, ServerLogin } from "../../src/auth/server-login.ts";
import { hashPassword } from "../../src/auth/verifier.ts";

const salt = Buffer.from("0123456789abcdef");
const verifier = await hashPassword("secret", salt);
const keys = await deriveKeys("secret", salt, 4096);

test("keys are kept for their own verifier, while the configuration has it", async () => {
	const keyring = new Keyring();
	expect(keyring.learn(verifier, keys)).toBe(false);
	keyring.reach([verifier, undefined, "no verifier"]);
	expect(keyring.has(verifier)).toBe(false);
	// Of a login that began before a reload, by another password.
	expect(keyring.learn(verifier, await deriveKeys("old secret", salt, 4096))).toBe(false);
	expect(keyring.learn("no verifier", keys)).toBe(false);
	expect(keyring.learn(verifier, keys)).toBe(true);
	expect(keyring.learn(verifier, keys)).toBe(false);
	keyring.reach([verifier]);
	expect(keyring.has(verifier)).toBe(true);
	keyring.reach([]);
	expect(keyring.has(verifier)).toBe(false);
	keyring.reach([verifier]);
	expect(keyring.has(verifier)).toBe(false);
});

test("a server with another salt or iteration count is not shown a proof", async () => {
	const keyring = new Keyring();
	keyring.reach([verifier]);
	const login = async (salt: Uint8Array, iterations: number) => {
		const server = new ServerLogin("u", keyring.credentials(verifier), new ScramCache());
		const begun = await server.step(Buffer.concat([Buffer.from([0, 0, 0, 10]), Buffer.from("SCRAM-SHA-256\0\0")]));
		if (begun.kind !== "answer") return begun;
		const nonce = /r=(.*)$/.exec(Buffer.from(begun.body).toString("latin1"))![1];
		const first = `r=${nonce}more,s=${Buffer.from(salt).toString("base64")},i=${iterations}`;
		return server.step(Buffer.concat([Buffer.from([0, 0, 0, 11]), Buffer.from(first)]));
	};
	expect(await login(salt, 4096)).toEqual({ kind: "error", error: NO_KEYS });
	keyring.learn(verifier, keys);
	expect((await login(salt, 4096)).kind).toBe("answer");
	for (const [other, iterations] of [
		[Buffer.from("another salt"), 4096],
		[salt, 4097],
	] as const)
		expect(await login(other, iterations)).toMatchObject({ kind: "error", error: { sqlstate: "28000" } });
});

test("what was proven can be told another process, which takes nothing that does not fit", async () => {
	const [keyring, other] = [new Keyring(), new Keyring()];
	for (const each of [keyring, other]) each.reach([verifier]);
	expect([keyring.keysOf(verifier), keyring.keysOf("no verifier")]).toEqual([null, null]);
	keyring.learn(verifier, keys);
	const told = keyring.keysOf(verifier)!;
	expect(other.learn(verifier, { ...told, clientKey: told.serverKey })).toBe(false);
	expect(other.learn(verifier, told)).toBe(true);
	expect(other.has(verifier)).toBe(true);
});

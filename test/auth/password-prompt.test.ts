// `pgdog hash -`: what of standard input is the password, from a pipe and from a terminal.

import { expect, test } from "bun:test";
import { PassThrough } from "node:stream";
import type { ReadStream, WriteStream } from "node:tty";
import { PasswordError, readPassword } from "../../src/auth/password-prompt.ts";

/** A stream with these bytes, in pieces of `size`; `modes`: what a terminal was told. */
function input(bytes: string | Uint8Array, isTTY: boolean, size = 3): { stream: ReadStream; modes: boolean[] } {
	const stream = new PassThrough();
	const all = Buffer.from(bytes as string);
	for (let at = 0; at < all.length; at += size) stream.write(all.subarray(at, at + size));
	stream.end();
	const modes: boolean[] = [];
	return { stream: Object.assign(stream, { isTTY, setRawMode: (mode: boolean) => modes.push(mode) }) as never, modes };
}

async function read(bytes: string | Uint8Array, isTTY = false): Promise<string> {
	const { stream, modes } = input(bytes, isTTY);
	let shown = "";
	const prompt = { write: (text: string) => (shown += text) } as unknown as WriteStream;
	try {
		return await readPassword(stream, prompt);
	} finally {
		// No key is shown, and the terminal is left as it was, whatever happens.
		expect([modes, shown]).toEqual(isTTY ? [[true, false], "Password: \n"] : [[], ""]);
	}
}

test.each([
	["secret\n", "secret"],
	["secret\r\n", "secret"],
	["secret", "secret"],
	[" sec ret \n", " sec ret "],
	["日本 🐕\n", "日本 🐕"],
	["-\n", "-"],
	["a\rb\n", "a\rb"],
])("piped in, %j is %j", async (bytes, password) => {
	expect(await read(bytes)).toBe(password);
});

test.each([
	["secret\r", "secret"],
	["secret\n", "secret"],
	["secret\u0004", "secret"],
	["secret", "secret"],
	["sex\u007fcret\r", "secret"],
	["s日🐕\u007f\b\becret\r", "ecret"],
	["\u007f\u007fsecret\rmore", "secret"],
])("typed, %j is %j, and nothing is shown", async (keys, password) => {
	expect(await read(keys, true)).toBe(password);
});

test.each<[string, string | Uint8Array, boolean, string]>([
	["nothing", "", false, "no password"],
	["an empty line", "\n", false, "no password"],
	["an empty line", "\r", true, "no password"],
	["two lines", "a\nb\n", false, "one line"],
	["a zero byte", "a\0b\n", false, "zero byte"],
	["bytes that are not UTF-8", Uint8Array.of(0x73, 0xff), false, "UTF-8"],
	["a large file", new Uint8Array(200_000).fill(97), false, "more than"],
	["a large file", new Uint8Array(200_000).fill(97), true, "more than"],
	["Ctrl-C", "abc\u0003", true, "interrupted"],
])("%s is no password", async (_, bytes, isTTY, why) => {
	const error = await read(bytes, isTTY).catch((reason) => reason);
	expect(error).toBeInstanceOf(PasswordError);
	expect(error.message).toContain(why);
});

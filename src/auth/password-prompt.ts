// Reads a password for `pgdog hash`: one line of standard input, without echo where that is a terminal. Called by main.ts.

import type { ReadStream, WriteStream } from "node:tty";

/** The input is no password; the message is for whoever typed it. */
export class PasswordError extends Error {}

/** Longest input, bytes: more than PostgreSQL takes in a PasswordMessage, so a wrong file was piped in. */
const LONGEST = 64 << 10;

const enum Key {
	Interrupt = 3,
	EndOfFile = 4,
	Backspace = 8,
	Newline = 10,
	Return = 13,
	Delete = 127,
}

/** @throws PasswordError */
export async function readPassword(from: ReadStream, prompt: WriteStream): Promise<string> {
	const bytes = from.isTTY ? await typed(from, prompt) : await piped(from);
	let password: string;
	try {
		password = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
	} catch {
		throw new PasswordError("the password is not UTF-8");
	}
	if (password === "") throw new PasswordError("no password came by standard input");
	// A NUL fits neither users.toml nor a PasswordMessage; with a newline more than one line has come.
	if (/[\0\n]/.test(password)) throw new PasswordError("a password is one line, without a zero byte");
	return password;
}

/** All of standard input but the line's end that `echo` adds. */
async function piped(from: AsyncIterable<Buffer>): Promise<Buffer> {
	const chunks: Buffer[] = [];
	let length = 0;
	for await (const chunk of from) {
		chunks.push(chunk);
		length += chunk.length;
		if (length > LONGEST) throw new PasswordError(`a password of more than ${LONGEST} bytes`);
	}
	const all = Buffer.concat(chunks);
	if (all.at(-1) !== Key.Newline) return all;
	return all.subarray(0, all.at(-2) === Key.Return ? -2 : -1);
}

/** Key by key until the end of the line: the terminal shows none of them. */
async function typed(from: ReadStream, prompt: WriteStream): Promise<Buffer> {
	const bytes: number[] = [];
	prompt.write("Password: ");
	from.setRawMode(true);
	try {
		for await (const chunk of from as AsyncIterable<Buffer>) {
			for (const byte of chunk) {
				switch (byte) {
					case Key.Newline:
					case Key.Return:
					case Key.EndOfFile:
						return Buffer.from(bytes);
					case Key.Interrupt:
						throw new PasswordError("interrupted");
					case Key.Backspace:
					case Key.Delete:
						// All bytes of one UTF-8 character.
						while (((bytes.pop() ?? 0) & 0xc0) === 0x80);
						break;
					default:
						if (bytes.push(byte) > LONGEST) throw new PasswordError(`a password of more than ${LONGEST} bytes`);
				}
			}
		}
		return Buffer.from(bytes);
	} finally {
		from.setRawMode(false);
		prompt.write("\n");
	}
}

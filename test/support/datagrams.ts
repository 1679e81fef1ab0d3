// A Unix socket for datagrams, as systemd has one: Bun has none. Linux only.

import { dlopen } from "bun:ffi";
import { expect } from "bun:test";
import { until } from "./until.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const MSG_DONTWAIT = 0x40;

export class Datagrams implements Disposable {
	/** In the order in which they came. */
	readonly got: string[] = [];
	readonly #libc = dlopen("libc.so.6", {
		socket: { args: ["i32", "i32", "i32"], returns: "i32" },
		bind: { args: ["i32", "ptr", "u32"], returns: "i32" },
		recv: { args: ["i32", "ptr", "u64", "i32"], returns: "i64" },
		close: { args: ["i32"], returns: "i32" },
	});
	readonly #fd: number;
	readonly #buffer = Buffer.alloc(4096);

	/** @param name as in NOTIFY_SOCKET */
	constructor(name: string) {
		const { socket, bind } = this.#libc.symbols;
		this.#fd = socket(AF_UNIX, SOCK_DGRAM, 0);
		const path = Buffer.from(name.startsWith("@") ? `\0${name.slice(1)}` : `${name}\0`);
		const address = Buffer.concat([Buffer.from([AF_UNIX, 0]), path]);
		expect(bind(this.#fd, address, address.length)).toBe(0);
	}

	read(): string[] {
		for (;;) {
			const length = Number(this.#libc.symbols.recv(this.#fd, this.#buffer, this.#buffer.length, MSG_DONTWAIT));
			if (length < 0) return this.got;
			this.got.push(this.#buffer.toString("utf8", 0, length));
		}
	}

	/** Waits until something was told, from the `from`th datagram on. */
	async until(pattern: RegExp, from = 0): Promise<void> {
		await until(
			() =>
				this.read()
					.slice(from)
					.some((each) => pattern.test(each)),
			`${pattern} among ${this.got}`,
		);
	}

	[Symbol.dispose](): void {
		this.#libc.symbols.close(this.#fd);
	}
}

// Log lines while nobody reads: the thread that writes them goes on, whole lines come out in order, and every one that does not
// is counted.

import { expect, test } from "bun:test";
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { Lines } from "../../src/net/standard-error.ts";
import { until } from "../support/until.ts";

test("lines come out whole and in order, or are counted just where they are missing", () => {
	const step = fc.oneof(
		fc.record({ write: fc.integer({ min: 1, max: 40_000 }) }),
		fc.record({ room: fc.integer({ min: 0, max: 200_000 }) }),
	);
	fc.assert(
		fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
			let room = 0;
			let out = "";
			const lines = new Lines((bytes) => {
				const taken = Math.min(room, bytes.length);
				room -= taken;
				out += Buffer.from(bytes.subarray(0, taken)).toString();
				return taken;
			});
			lines.lossText = (lost) => `lost ${lost}\n`;
			let written = 0;
			for (const each of steps) {
				if ("write" in each) lines.write(`${written++} ${"x".repeat(each.write)}\n`);
				else {
					room += each.room;
					lines.flush();
				}
			}
			room = Number.POSITIVE_INFINITY;
			expect(lines.flush()).toBe(true);
			let next = 0;
			for (const line of out.split("\n").slice(0, -1)) {
				const [word, number] = line.split(" ");
				if (word === "lost") next += Number(number);
				else expect(Number(word)).toBe(next++);
			}
			expect(next).toBe(written);
		}),
	);
});

/** Writes 5,000 lines of 100 bytes, says so, and after a word from us one more. */
const CHATTER = `
	import { createLog } from "${import.meta.dir}/../../src/log.ts";
	import { Lines } from "${import.meta.dir}/../../src/net/standard-error.ts";
	const lines = new Lines();
	const log = createLog("text", "info", lines);
	for (let i = 0; i < 5000; i++) log.info(\`line \${i} \${"x".repeat(60)}\`);
	process.stdout.write("on\\n");
	for await (const _ of process.stdin) break;
	log.info("line 5000");
	lines.end();
	process.exit(0);`;

function expectAll(text: string): void {
	let next = 0;
	for (const line of text.split("\n").slice(0, -1)) {
		const lost = /(\d+) log lines were lost/.exec(line);
		if (lost !== null) next += Number(lost[1]);
		else expect(line).toContain(` line ${next++}`);
	}
	expect(next).toBe(5001);
}

test("a pipe that nobody reads stops nobody, and what was lost is told when it is read again", async () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-stderr-"));
	const fifo = join(folder, "stderr");
	expect(Bun.spawnSync(["mkfifo", fifo]).exitCode).toBe(0);
	const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
	try {
		const command = ["sh", "-c", `exec "$0" -e "$1" 2> "$2"`, process.execPath, CHATTER, fifo];
		const child = Bun.spawn(command, { stdin: "pipe", stdout: "pipe" });
		// It gets there although nobody has read a byte.
		expect((await child.stdout.getReader().read()).value).toEqual(Buffer.from("on\n"));
		let text = "";
		const chunk = Buffer.alloc(1 << 16);
		const read = () => {
			try {
				for (;;) {
					const got = readSync(reader, chunk);
					if (got === 0) return true;
					text += chunk.toString("utf8", 0, got);
				}
			} catch {
				return false;
			}
		};
		await until(() => {
			read();
			return /lines were lost/.test(text);
		}, "the loss to be told");
		child.stdin.write("go\n");
		child.stdin.end();
		await child.exited;
		expect(read()).toBe(true);
		expectAll(text);
	} finally {
		closeSync(reader);
		rmSync(folder, { recursive: true });
	}
});

// The mode of the other end is the other end's: it must not be changed to write to it. Bun's pipes to children are sockets.
test("a socket that nobody reads stops nobody either", async () => {
	const child = Bun.spawn([process.execPath, "-e", CHATTER], { stdin: "pipe", stdout: "pipe", stderr: "pipe" });
	expect((await child.stdout.getReader().read()).value).toEqual(Buffer.from("on\n"));
	child.stdin.write("go\n");
	child.stdin.end();
	expectAll(await new Response(child.stderr).text());
});

test("a file gets every line, and the place of others in it is kept", async () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-stderr-"));
	try {
		const path = join(folder, "log");
		const script = `echo before >&2; "$0" -e "$1"; echo after >&2`;
		const child = Bun.spawn(["sh", "-c", script, process.execPath, CHATTER], {
			stdin: new TextEncoder().encode("go\n"),
			stdout: "ignore",
			stderr: Bun.file(path),
		});
		expect(await child.exited).toBe(0);
		const text = await Bun.file(path).text();
		expect([text.startsWith("before\n"), text.endsWith("after\n")]).toEqual([true, true]);
		expectAll(text.slice("before\n".length, -"after\n".length));
	} finally {
		rmSync(folder, { recursive: true });
	}
});

test("standard error that is closed does not stop the traffic", async () => {
	const script = `import { Lines } from "${import.meta.dir}/../../src/net/standard-error.ts";
		import { closeSync } from "node:fs";
		const early = new Lines(); closeSync(2); early.write("x\\n"); new Lines().write("x\\n"); console.log("on");`;
	const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "pipe" });
	expect(await new Response(child.stdout).text()).toBe("on\n");
});

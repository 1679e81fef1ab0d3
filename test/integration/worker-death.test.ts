// A worker thread that dies takes the process with it: half a proxy is worse than none, and systemd starts a new one.
// Nothing from outside kills one thread alone, so the sources run here with a worker that has a bug.

import { expect, test } from "bun:test";
import { appendFileSync, cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../support/postgres.ts";
import { within } from "../support/until.ts";

const root = join(import.meta.dir, "..", "..");

test("one worker's death ends the process with a log line that names it", async () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-death-"));
	/** Once this file is there, its workers die. */
	const order = join(folder, "die");
	try {
		cpSync(join(root, "src"), join(folder, "src"), { recursive: true });
		symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
		appendFileSync(
			join(folder, "src", "worker-thread.ts"),
			`
import { existsSync } from "node:fs";
setInterval(() => { if (existsSync(${JSON.stringify(order)})) throw new Error("a bug in a worker"); }, 10);
`,
		);
		const config = join(folder, "pgdog.toml");
		writeFileSync(config, "[general]\nworkers = 2\n");
		const proxy = Bun.spawn([process.execPath, join(folder, "src", "main.ts"), "--config", config], {
			cwd: folder,
			env: { ...process.env, PGDOG_HOST: "127.0.0.1", PGDOG_PORT: String(await freePort()) },
			stdout: "ignore",
			stderr: "pipe",
		});
		let log = "";
		const decoder = new TextDecoder();
		const read = async () => {
			for await (const chunk of proxy.stderr) {
				log += decoder.decode(chunk, { stream: true });
				if (log.includes("listening on 127.0.0.1")) writeFileSync(order, "");
			}
		};
		await within(read(), "the end of its log", 10_000, () => log);
		const code = await within(proxy.exited, "the end of the process");
		expect(log).toContain("listening on 127.0.0.1");
		expect(log).toMatch(/ERROR worker \d died: .*a bug in a worker/);
		expect(code).toBe(1);
	} finally {
		rmSync(folder, { recursive: true });
	}
}, 20_000);

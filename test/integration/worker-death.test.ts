// A worker thread that dies takes the process with it: half a proxy is worse than none, and systemd starts a new one.
// Nothing from outside kills one thread alone, so the sources run here with a worker that has a bug.

import { expect, test } from "bun:test";
import { appendFileSync, cpSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../support/postgres.ts";
import { within } from "../support/until.ts";

const root = join(import.meta.dir, "..", "..");

test("one worker's death ends the process with a log line that names it", async () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-death-"));
	try {
		cpSync(join(root, "src"), join(folder, "src"), { recursive: true });
		symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
		appendFileSync(
			join(folder, "src", "worker-thread.ts"),
			'\nsetTimeout(() => { throw new Error("a bug in a worker"); }, 300);\n',
		);
		const proxy = Bun.spawn([process.execPath, join(folder, "src", "main.ts"), "--config", join(folder, "none.toml")], {
			cwd: folder,
			env: { ...process.env, PGDOG_HOST: "127.0.0.1", PGDOG_PORT: String(await freePort()) },
			stdout: "ignore",
			stderr: "pipe",
		});
		const code = await within(proxy.exited, "the end of the process");
		const log = await new Response(proxy.stderr).text();
		expect(log).toContain("listening on 127.0.0.1");
		expect(log).toMatch(/ERROR worker \d died: .*a bug in a worker/);
		expect(code).toBe(1);
	} finally {
		rmSync(folder, { recursive: true });
	}
}, 20_000);

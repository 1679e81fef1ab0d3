// Which user of the system is at the other end of a Unix socket, as the kernel and the user database have it.

import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Stream } from "../../src/net/stream.ts";
import { systemUser } from "../../src/net/system-user.ts";
import { until } from "../support/until.ts";
import { dial, HANDLERS, listen, Owner } from "./support.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-net-user-"));
afterAll(() => rmSync(folder, { recursive: true }));

const own = { uid: process.getuid!(), name: Bun.spawnSync(["id", "-un"]).stdout.toString().trim() };

test("a number has the name that id(1) says", () => {
	expect([systemUser(0).name, systemUser(own.uid)]).toEqual(["root", own]);
});

// With systemd's PrivateUsers=yes nearly everybody has 65534: whoever came could log in as `nobody`.
test.each([-1, 65_534, 2_147_000_111, 4_294_967_295])("of %d nobody knows who it is", (uid) => {
	expect(systemUser(uid)).toEqual({ uid, name: null });
});

test.skipIf(process.platform !== "linux")(
	"a stream by a Unix socket knows who has connected, any other does not",
	async () => {
		const unix = join(folder, "own");
		const seen: Stream[] = [];
		const open = (socket: Bun.Socket<Stream>) => {
			socket.data = new Stream(socket, new Owner());
			seen.push(socket.data);
		};
		const listener = Bun.listen<Stream>({ unix, socket: { ...HANDLERS, open } });
		const socket = await Bun.connect<Stream>({ unix, socket: { ...HANDLERS, open() {} } });
		socket.data = new Stream(socket, new Owner());
		await until(() => seen.length > 0, "the connection");
		expect(seen[0]!.systemUser).toEqual(own);
		socket.terminate();
		listener.stop(true);

		const port = listen(() => {});
		const stream = await dial(port.port, new Owner());
		expect(stream.systemUser).toEqual({ uid: -1, name: null });
		stream.terminate();
		port.stop(true);
	},
);

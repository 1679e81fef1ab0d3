import { afterAll, describe, expect, test } from "bun:test";
import {
	closeSync,
	existsSync,
	lstatSync,
	mkdirSync,
	mkdtempSync,
	openSync,
	rmSync,
	statSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unreachable } from "../../src/net/connect.ts";
import { boundTo, duplicateDescriptor, listensBy } from "../../src/net/options.ts";
import { isSocketFolder, listenUnix, listenUnixPassed, socketFailure, unixSocketPath } from "../../src/net/unix.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-net-unix-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("a Unix socket is found where libpq would look", () => {
	expect(unixSocketPath("/run/postgresql", 5433)).toBe("/run/postgresql/.s.PGSQL.5433");
});

test("what is a path, or an abstract name, is a socket's folder, and nothing else is", () => {
	expect(["/run", "/", "@pg"].map(isSocketFolder)).toEqual([true, true, true]);
	expect(["localhost", "10.0.0.1", "::1", "", "a/b", "./run", "a@b"].filter(isSocketFolder)).toEqual([]);
});

test.skipIf(process.platform !== "linux")(
	"what listens by neither TCP nor a Unix socket is told from what does",
	async () => {
		const fdOf = (socket: unknown) => (socket as { fd: number }).fd;
		using tcp = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
		expect(listensBy(fdOf(tcp))).toBe("tcp");
		const connected = await Bun.connect({ hostname: "127.0.0.1", port: tcp.port, socket: { data() {} } });
		const file = openSync("/dev/null", "r");
		expect([fdOf(connected), file, -1].map(listensBy)).toEqual([null, null, null]);
		expect(boundTo(file)).toBe("");
		closeSync(file);
		connected.end();
	},
);

describe("why a connection failed", () => {
	/** As Bun says it. */
	const failure = (code: string) => Object.assign(new Error("Failed to connect"), { code });

	test("is told in libpq's words", () => {
		const host = join(folder, "none");
		const said = (code: string) => unreachable({ host, port: 5432 }, failure(code));
		const start = `connection to server on socket "${host}/.s.PGSQL.5432" failed: `;
		expect(said("ENOENT")).toBe(`${start}No such file or directory`);
		expect(said("EACCES")).toBe(`${start}Permission denied`);
		expect(said("ENOBUFS")).toBe(`${start}ENOBUFS`);
		const tcp = (error: Error) => unreachable({ host: "10.0.0.1", port: 5432 }, error);
		expect(tcp(failure("ECONNREFUSED"))).toBe("could not connect to server 10.0.0.1:5432: Connection refused");
		const late = Object.assign(new Error("no answer within 5 ms"), { code: "ETIMEDOUT" });
		expect(tcp(late)).toBe("could not connect to server 10.0.0.1:5432: no answer within 5 ms");
	});

	test("is looked for where Bun says ECONNREFUSED whatever is there", async () => {
		const refused = failure("ECONNREFUSED");
		const file = join(folder, "file");
		writeFileSync(file, "");
		expect(socketFailure(file, refused)).toBe("Not a socket");
		expect(socketFailure(folder, refused)).toBe("Not a socket");
		expect(socketFailure(join(file, "below"), refused)).toBe("Not a directory");
		expect(socketFailure("@nobody", refused)).toBe("Connection refused");
		const dead = join(folder, "dead");
		await leave(dead);
		expect(socketFailure(dead, refused)).toBe("Connection refused");
	});
});

/** Leaves the file of a socket behind, as a killed process does. */
async function leave(path: string): Promise<void> {
	const program = `Bun.listen({ unix: ${JSON.stringify(path)}, socket: { data() {} } }); process.kill(process.pid, "SIGKILL");`;
	await Bun.spawn([process.execPath, "-e", program]).exited;
	expect(lstatSync(path).isSocket()).toBe(true);
}

/** Connects, and waits until the listener has seen it. */
async function visit(path: string, seen: () => number): Promise<void> {
	const before = seen();
	const socket = await Bun.connect({ unix: path, socket: { data() {} } });
	await until(() => seen() > before, "the visit");
	socket.end();
}

describe("a listener", () => {
	let visits = 0;
	const open = () => void visits++;

	test("has a file with the permissions that it is given, which goes with it", async () => {
		const path = join(folder, "own");
		const listener = await listenUnix(path, 0o640, open);
		expect(statSync(path).mode & 0o777).toBe(0o640);
		await visit(path, () => visits);
		listener.stop();
		expect(existsSync(path)).toBe(false);
	});

	test("takes over a dead process's file, and not a living one's", async () => {
		const path = join(folder, "taken");
		await leave(path);
		const listener = await listenUnix(path, 0o777, open);
		await rejects(listenUnix(path, 0o777, open), `cannot listen on ${path}: address already in use`);
		await visit(path, () => visits);
		listener.stop();
	});

	test.skipIf(process.platform !== "linux")(
		"leaves its file to another process that goes on with its socket",
		async () => {
			const path = join(folder, ".s.PGSQL.1");
			await leave(path);
			const listener = await listenUnix(path, 0o640, open);
			expect(statSync(path).mode & 0o777).toBe(0o640);
			await rejects(listenUnix(path, 0o777, open), `cannot listen on ${path}: address already in use`);
			const passed = () => ({ path, fd: duplicateDescriptor(listener.fd), isManaged: false });
			const elsewhere = join(folder, ".s.PGSQL.2");
			let others = 0;
			const next = listenUnixPassed(passed(), path, () => void others++)!;
			listener.stop(true);
			await visit(path, () => others);
			// It is to be found elsewhere from now on: what is there now is nobody's.
			const fd = duplicateDescriptor(next.fd);
			next.stop(true);
			expect(existsSync(path)).toBe(true);
			expect(listenUnixPassed({ path, fd, isManaged: false }, elsewhere, open)).toBe(null);
			expect(existsSync(path)).toBe(false);
			expect(listenUnixPassed(null, path, open)).toBe(null);
		},
	);

	test.skipIf(process.platform !== "linux")("leaves the service manager its file, wherever that is", async () => {
		const path = join(folder, "managed");
		const manager = Bun.listen({ unix: path, socket: { data() {} } }) as unknown as { fd: number; stop(): void };
		const passed = () => ({ path: boundTo(manager.fd), fd: duplicateDescriptor(manager.fd), isManaged: true });
		expect([listensBy(manager.fd), boundTo(manager.fd)]).toEqual(["unix", path]);
		for (const own of [null, path, join(folder, "another")]) {
			const listener = listenUnixPassed(passed(), own, () => {})!;
			expect([listener.path, listener.isManaged]).toEqual([path, true]);
			listener.stop();
			expect(existsSync(path)).toBe(true);
		}
		// Whoever has taken it away is not asked to put it back.
		rmSync(path);
		listenUnixPassed(passed(), null, () => {})!.stop();
		manager.stop();
	});

	test.skipIf(process.platform !== "linux")(
		"of another process makes way for the service manager's, whose file may have taken the place of its own",
		async () => {
			for (const isSame of [true, false]) {
				const path = join(folder, `.s.PGSQL.${isSame ? 3 : 4}`);
				const before = await listenUnix(path, 0o777, open);
				const passed = { path, fd: duplicateDescriptor(before.fd), isManaged: false };
				before.stop(true);
				const where = isSame ? path : join(folder, "of the manager");
				rmSync(where, { force: true });
				const manager = Bun.listen({ unix: where, socket: { data() {} } }) as unknown as { fd: number; stop(): void };
				const managed = { path: where, fd: manager.fd, isManaged: true };
				expect(listenUnixPassed(passed, path, open, managed)).toBe(null);
				expect([existsSync(where), existsSync(path)]).toEqual([true, isSame]);
				// Nor is one of its own of before gone on with.
				const old = { path: where, fd: duplicateDescriptor(manager.fd), isManaged: true };
				expect(listenUnixPassed(old, path, open, managed)).toBe(null);
				expect(existsSync(where)).toBe(true);
				const living = await Bun.connect({ unix: where, socket: { data() {} } });
				living.end();
				manager.stop();
			}
		},
	);

	test("leaves alone what is no socket", async () => {
		const file = join(folder, "text");
		writeFileSync(file, "somebody's");
		const sub = join(folder, "sub");
		mkdirSync(sub);
		for (const path of [file, sub]) {
			const refused = `cannot listen on ${path}: what is there is no socket`;
			await rejects(listenUnix(path, 0o777, open), refused);
			expect(existsSync(path)).toBe(true);
		}
		await rejects(listenUnix(join(file, "x"), 0o777, open), "Not a directory");
		await rejects(listenUnix(join(folder, "none", "x"), 0o777, open), "No such file or directory");
	});

	test.skipIf(process.platform !== "linux")(
		"has no file with an abstract name, which nobody else can take",
		async () => {
			const name = `@pgdog-test-${process.pid}`;
			const listener = await listenUnix(name, 0o777, open);
			expect(existsSync(name)).toBe(false);
			expect([listensBy(listener.fd), boundTo(listener.fd)]).toEqual(["unix", name]);
			await visit(`\0${name.slice(1)}`, () => visits);
			await rejects(listenUnix(name, 0o777, open), "address already in use");
			listener.stop();
		},
	);
});

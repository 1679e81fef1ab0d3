// Found by review, to be appended to startup.test.ts once src is patched.
import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Socket } from "bun";
import { ScramCache } from "../../src/auth/scram-keys.ts";
import { ParameterSets } from "../../src/backend/parameters.ts";
import { type General, general as table } from "../../src/config/settings.ts";
import type { User } from "../../src/config/snapshot.ts";
import type { ClientContext } from "../../src/frontend/context.ts";
import { createFactsCache } from "../../src/frontend/prepared.ts";
import { Startup } from "../../src/frontend/startup.ts";
import { createLog } from "../../src/log.ts";
import { Splice } from "../../src/net/splice.ts";
import { socketHandlers, Stream } from "../../src/net/stream.ts";
import { ScriptedServer, testPool } from "../pool/support.ts";
import { RawClient } from "../support/raw-client.ts";
import { concat, frontend } from "../support/wire-frames.ts";

const postgres = new ScriptedServer();
const inner = testPool(postgres.port, { pool_size: 20 });
const cancels: string[] = [];
const listening = listen();

/** A listener whose clients get through to the scripted server by trust. */
function listen() {
	const general = {
		...Object.fromEntries(Object.entries(table).map(([name, setting]) => [name, setting.default])),
		auth_type: "trust",
	} as unknown as General;
	let id = 0;
	const context: ClientContext = {
		splice: new Splice(),
		sets: new ParameterSets(),
		statements: inner.statements,
		facts: createFactsCache(),
		scram: new ScramCache(),
		log: createLog("text", "off"),
		time: 0,
		stopping: false,
		general: () => general,
		admin: () => ({ name: "admin", user: "admin", password: "secret", generated: false }),
		find: (user, database) =>
			user === "u" ? { user: { name: user, database, passwords: ["p"] } as User, pool: inner.pool } : null,
		openAdmin: (stream) => stream.end(),
		register: () => ++id,
		unregister() {},
		onLogin() {},
		onLogout() {},
		cancel: (pid, secret) => cancels.push(`${pid} ${Buffer.from(secret).toString("hex")}`),
		nextSerial: () => ++id,
	};
	const handlers = socketHandlers((error) => {
		throw error;
	});
	return Bun.listen<Stream>({
		hostname: "127.0.0.1",
		port: 0,
		socket: {
			...handlers,
			open(socket: Socket<Stream>) {
				socket.data = new Stream(socket);
				socket.data.owner = new Startup(context, socket.data, "test", () => {});
			},
		},
	});
}

afterAll(() => {
	listening.stop(true);
	inner.pool.shutDown();
	postgres[Symbol.dispose]();
});
// The login's first checkout opens the connection; afterwards nothing waits for it.
beforeAll(async () => {
	await using client = await RawClient.connect({ port: listening.port, user: "u" });
	expect(client.backendPid).toBeGreaterThan(0);
});

const open = () => RawClient.open({ port: listening.port });
const GOOD = frontend.startupMessage({ user: "u", database: "d", application_name: "é", options: "-c a=b" });

// A driver that saves a round trip: with trust, the login asks nothing.
test("a Query that is sent together with the StartupMessage is answered after the login", async () => {
	const client = await open();
	client.send(concat(GOOD, frontend.query("SELECT 1")));
	await client.until("Z");
	expect((await client.until("Z")).map(({ code }) => code).join("")).toBe("CZ");
	client.close();
});

// PostgreSQL's process_startup_options: the switches of `options` first, the packet's own parameters over them.
test("a parameter of the StartupMessage beats the same in its options", async () => {
	const client = await open();
	client.send(frontend.startupMessage({ user: "u", work_mem: "1MB", options: "-c work_mem=2MB" }));
	await client.until("Z");
	expect(postgres.queries.filter((sql) => sql.includes("work_mem")).join()).toContain("'1MB'");
	client.close();
});

// Found by review, to be moved into pool.test.ts once it passes.

import { expect, test } from "bun:test";
import { NO_FACTS } from "../../src/parser/session.ts";
import { ServerState } from "../../src/backend/server.ts";
import { until } from "../support/until.ts";
import { ScriptedServer, TestWaiter, testPool } from "./support.ts";

// The janitor's DEALLOCATE ran on a server that was still in the list of idle ones: it was lent while its answer was
// under way, and put into the list twice, so that two clients got the same connection.
test("a server that deallocates dropped statements is not lent meanwhile, nor twice afterwards", async () => {
	using postgres = new ScriptedServer();
	const { pool, statements } = testPool(postgres.port, { pool_size: 1 });
	const server = (await new TestWaiter().from(pool)).server!;
	const statement = statements.add("k", Buffer.from("SELECT 1\0\0\0"), NO_FACTS);
	statements.retain(statement);
	(server.statements as Map<unknown, number>).set(statement, 1);
	statements.release(statement, 0);
	pool.onIdle(server);
	postgres.hold = true;
	pool.tick(server.usedAt + 10);
	await until(() => postgres.queries.length === 1, "the DEALLOCATE");
	expect(postgres.queries).toEqual([`DEALLOCATE ${statement.name}`]);
	const [a, b] = [new TestWaiter(), new TestWaiter()];
	void a.from(pool);
	void b.from(pool);
	expect([a.server, b.server]).toEqual([null, null]);
	postgres.answer();
	await until(() => a.server !== null, "the server");
	expect(a.server!.state).not.toBe(ServerState.Task);
	await Bun.sleep(5);
	expect(b.server).toBeNull();
	pool.shutDown();
});

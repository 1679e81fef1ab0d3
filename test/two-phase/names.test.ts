// Names of what is prepared: read as they are made, and nobody else's is taken for ours.

import { expect, test } from "bun:test";
import { instanceName, preparedName, readPreparedName, transactionName } from "../../src/two-phase/names.ts";

test("a name says what it is of", () => {
	const transaction = transactionName(instanceName(), 3);
	expect(transaction).toMatch(/^__pgdog_2pc_[0-9a-f]{8}_[0-9a-f]{16}_3$/);
	expect(transactionName("00", 3)).not.toBe(transactionName("00", 3));
	expect(readPreparedName(preparedName(transaction, 12))).toEqual({ transaction, home: 3, shard: 12 });
	for (const gid of ["", "a", transaction, `${transaction}_x`, `x${transaction}_1`, `${transaction}_1 `])
		expect([gid, readPreparedName(gid)]).toEqual([gid, null]);
});

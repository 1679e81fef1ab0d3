// SQL cursors.

import { frontend as f } from "../../support/wire-frames.ts";
import { ask, differsSharded, q, type Script, says, sync } from "../script.ts";

export const CURSORS: Script[] = [
	differsSharded(
		"a string for one shard would end what another has begun on all",
		says(
			"DECLARE, FETCH, MOVE, CLOSE",
			[q("BEGIN; DECLARE c SCROLL CURSOR FOR SELECT id FROM t ORDER BY id")],
			[q("FETCH 2 FROM c")],
			[q("MOVE LAST IN c"), q("FETCH BACKWARD 2 FROM c")],
			[...ask("FETCH FIRST FROM c"), sync],
			[f.describe("P", "c"), f.execute("c", 1), sync],
			[q("CLOSE c; COMMIT")],
		),
	),
	says("a cursor outside of a transaction block", [q("DECLARE c CURSOR FOR SELECT 1")], [q("FETCH 1 FROM c")]),
	says("a cursor that does not exist", [q("BEGIN")], [q("FETCH 1 FROM missing")], [q("ROLLBACK")]),
	differsSharded(
		"a string that begins or ends a transaction with its first statement is for all shards",
		says(
			"UPDATE WHERE CURRENT OF",
			[q("BEGIN; DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE; FETCH 1 FROM c")],
			[q("UPDATE t SET name = 'current' WHERE CURRENT OF c RETURNING id")],
			[q("ROLLBACK")],
		),
	),
];

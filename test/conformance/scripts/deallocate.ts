// Statements of the protocol and of SQL under one name: DEALLOCATE, DISCARD, PREPARE, EXECUTE.

import { frontend as f } from "../../support/wire-frames.ts";
import { ask, differs, differsSharded, q, type Script, says, sync } from "../script.ts";

export const DEALLOCATE: Script[] = [
	says(
		"DEALLOCATE of a protocol statement",
		[f.parse("SELECT 1", "d"), sync],
		[q("DEALLOCATE d")],
		[f.bind({ statement: "d" }), sync],
		[q("DEALLOCATE d")],
		[f.parse("SELECT 2", "d"), f.bind({ statement: "d" }), f.execute(), sync],
		[q("DEALLOCATE PREPARE d")],
	),
	says(
		"DEALLOCATE in the extended protocol",
		[f.parse("SELECT 1", "d"), sync],
		[...ask("DEALLOCATE d"), sync],
		[f.bind({ statement: "d" }), sync],
	),
	says(
		"DEALLOCATE ALL",
		[f.parse("SELECT 1", "d1"), f.parse("SELECT 2", "d2"), sync],
		[q("DEALLOCATE ALL")],
		[f.bind({ statement: "d1" }), sync],
		[f.parse("SELECT 3", "d1"), f.bind({ statement: "d1" }), f.execute(), sync],
		[q("DEALLOCATE ALL")],
	),
	says("DEALLOCATE of an unknown name", [q("DEALLOCATE nobody")], [q('DEALLOCATE "No Body"')]),
	says(
		"DEALLOCATE in a failed transaction",
		[f.parse("SELECT 1", "d"), sync],
		[q("BEGIN")],
		[q("SELECT 1/0")],
		[q("DEALLOCATE d")],
		[q("ROLLBACK")],
		[f.bind({ statement: "d" }), f.execute(), sync],
		[q("DEALLOCATE d")],
	),
	says(
		"DEALLOCATE in a transaction that is rolled back is not undone",
		[f.parse("SELECT 1", "d"), sync],
		[q("BEGIN")],
		[q("DEALLOCATE d")],
		[q("ROLLBACK")],
		[f.bind({ statement: "d" }), f.execute(), sync],
	),
	differs(
		"only a Query that is nothing but DEALLOCATE is rewritten",
		says("DEALLOCATE among several statements", [f.parse("SELECT 1", "d"), sync], [q("SELECT 1; DEALLOCATE d")]),
	),
	says(
		"DEALLOCATE with a quoted name",
		[f.parse("SELECT 1", "Mixed Case"), sync],
		[q('DEALLOCATE "Mixed Case"')],
		[f.bind({ statement: "Mixed Case" }), sync],
	),
	says(
		"DISCARD ALL forgets statements",
		[f.parse("SELECT 1", "d"), sync],
		[q("DISCARD ALL")],
		[f.bind({ statement: "d" }), sync],
	),
	says(
		"a Parse behind DISCARD ALL in one write lives",
		[f.parse("SELECT 1", "d"), f.parse("SELECT 2", "e"), sync],
		[q("DISCARD ALL"), f.parse("SELECT 3", "d"), f.bind({ statement: "d" }), f.execute(), sync],
		[f.bind({ statement: "d" }), f.execute(), sync],
		// The server had the text, until then.
		[q("DEALLOCATE ALL"), f.parse("SELECT 3", "e"), f.bind({ statement: "e" }), f.execute(), sync],
		[f.bind({ statement: "e" }), f.execute(), sync],
		[f.bind({ statement: "d" }), f.execute(), sync],
		[...ask("DEALLOCATE ALL"), sync, f.parse("SELECT 3", "f"), sync, f.bind({ statement: "f" }), f.execute(), sync],
		[f.bind({ statement: "f" }), f.execute(), sync],
		[q("DISCARD ALL"), f.parse("SELECT 4"), sync],
		[f.bind(), f.execute(), sync],
	),
	says(
		"what is behind DISCARD ALL in one write finds nothing that was before it",
		[f.parse("SELECT 1", "d"), sync],
		[q("DISCARD ALL"), f.bind({ statement: "d" }), f.execute(), sync, f.parse("SELECT 1", "d"), sync, q("SELECT 5")],
		[f.bind({ statement: "d" }), f.execute(), sync],
		[...ask("DISCARD ALL"), sync, f.describe("S", "d"), sync, f.close("S", "d"), sync],
	),
	says(
		"DISCARD ALL in one write with a transaction that refuses it",
		[f.parse("SELECT 1", "d"), sync],
		[q("BEGIN"), q("DISCARD ALL"), f.parse("SELECT 2", "e"), sync, q("ROLLBACK"), f.parse("SELECT 3", "g"), sync],
		[f.bind({ statement: "d" }), f.execute(), sync],
		[f.bind({ statement: "g" }), f.execute(), sync],
	),
	says("DEALLOCATE ALL leaves the unnamed statement", [...ask("DEALLOCATE ALL"), sync], [f.bind(), f.execute(), sync]),
	says(
		"DISCARD ALL in a transaction block is refused",
		[f.parse("SELECT 1", "d"), sync],
		[q("BEGIN")],
		[q("DISCARD ALL")],
		[q("ROLLBACK")],
		[f.bind({ statement: "d" }), f.execute(), f.close("S", "d"), sync],
	),
	differsSharded(
		"a string for one shard would end what another has begun on all",
		says(
			"PREPARE and EXECUTE in one transaction",
			[q("BEGIN; PREPARE sqlp AS SELECT $1::int + 1; EXECUTE sqlp(1)")],
			[f.bind({ statement: "sqlp", values: ["2"] }), f.execute(), sync],
			[f.describe("S", "sqlp"), sync],
			[q("DEALLOCATE sqlp; COMMIT")],
		),
	),
	differs(
		"SQL is not rewritten with prepared_statements = extended, and the server knows the statement by another name",
		says(
			"EXECUTE of a protocol statement",
			[q("BEGIN")],
			[f.parse("SELECT $1::int + 1", "proto"), sync],
			[q("EXECUTE proto(5)")],
			[q("ROLLBACK")],
			[f.close("S", "proto"), sync],
		),
	),
];

// COPY both ways in both protocols, with its failures and with what libpq does.

import { frontend as f } from "../../support/wire-frames.ts";
import { ask, differsSharded, flush, q, type Script, says, script, sync } from "../script.ts";

export const COPY: Script[] = [
	says(
		"COPY out",
		[q("COPY (SELECT id, name FROM t ORDER BY id LIMIT 3) TO STDOUT")],
		[q("COPY (SELECT 1) TO STDOUT (FORMAT binary)")],
	),
	says("a large COPY out", [q("COPY (SELECT repeat('c', 1000) FROM generate_series(1, 3000)) TO STDOUT")]),
	says(
		"COPY out, extended",
		[...ask("COPY (SELECT 1, 2) TO STDOUT"), sync],
		[f.parse("COPY (SELECT 1) TO STDOUT"), f.bind(), f.execute(), ...ask("SELECT 2"), sync],
	),
	says(
		"COPY out that fails on the way",
		[q("COPY (SELECT 1 / (500 - i) FROM generate_series(1, 1000) i) TO STDOUT")],
		[q("SELECT 1")],
	),
	script("COPY in", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.say(f.copyData("10\n11\n"), f.copyData("12\n"), f.copyDone());
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("COPY in, data in the same write as the query", async (t) => {
		await t.say(q("COPY parent FROM STDIN"), f.copyData("20\n"), f.copyDone());
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("COPY in, rows cut in the middle of lines", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.split(7, f.copyData("1"), f.copyData("0\n1"), f.copyData("1\n"), f.copyDone());
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("a large COPY in", async (t) => {
		await t.upTo("G", q("COPY t FROM STDIN"));
		const line = (i: number) => f.copyData(`${i}\t${"w".repeat(2000)}\n`);
		await t.say(...Array.from({ length: 1500 }, (_, i) => line(1000 + i)), f.copyDone());
		await t.say(q("DELETE FROM t WHERE id >= 1000"));
	}),
	script("one huge CopyData", async (t) => {
		await t.upTo("G", q("COPY t FROM STDIN"));
		await t.say(f.copyData(`1000\t${"h".repeat(4_000_000)}\n`), f.copyDone());
		await t.say(q("DELETE FROM t WHERE id >= 1000 RETURNING length(name)"));
	}),
	script("CopyFail", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.say(f.copyData("10\n"), f.copyFail("I have changed my mind"));
		await t.say(q("SELECT count(*) FROM parent"));
	}),
	script("bad data: the rest of the copy is ignored", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.say(f.copyData("10\nnot a number\n"), f.copyData("12\n"), f.copyDone());
		await t.say(q("SELECT count(*) FROM parent"));
	}),
	script("bad data, seen before the end is sent", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.upTo(
			"E",
			f.copyData("not a number\nx\n"),
			...Array.from({ length: 100 }, () => f.copyData("12\n".repeat(1000))),
			f.copyDone(),
		);
		await t.upTo("Z");
		await t.say(q("SELECT count(*) FROM parent"));
	}),
	script("COPY in with a second statement behind it", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN; SELECT count(*) FROM parent; DELETE FROM parent"));
		await t.say(f.copyData("10\n"), f.copyDone());
	}),
	script("two COPYs in one Query", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN; COPY parent FROM STDIN; DELETE FROM parent"));
		await t.upTo("G", f.copyData("10\n"), f.copyDone());
		await t.say(f.copyData("11\n"), f.copyDone());
	}),
	script("COPY in, extended", async (t) => {
		await t.upTo("G", f.parse("COPY parent FROM STDIN"), f.bind(), f.execute(), flush);
		await t.upTo("C", f.copyData("10\n"), f.copyDone(), flush);
		await t.say(sync);
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("COPY in, as libpq does it: Execute and Sync before the data", async (t) => {
		await t.upTo("G", f.parse("COPY parent FROM STDIN"), f.bind(), f.describe("P"), f.execute(), sync);
		await t.upTo("Z", f.copyData("10\n"), f.copyData("11\n"), f.copyDone(), sync);
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("COPY in, extended, all in one write", async (t) => {
		await t.upTo("Z", f.parse("COPY parent FROM STDIN"), f.bind(), f.execute(), f.copyData("10\n"), f.copyDone(), sync);
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("COPY in, extended, with CopyFail", async (t) => {
		await t.upTo("G", f.parse("COPY parent FROM STDIN"), f.bind(), f.execute(), sync);
		await t.upTo("Z", f.copyData("10\n"), f.copyFail("no"), sync);
		await t.say(q("SELECT count(*) FROM parent"));
	}),
	script("COPY in, extended, with bad data", async (t) => {
		await t.upTo("G", f.parse("COPY parent FROM STDIN"), f.bind(), f.execute(), sync);
		await t.upTo("Z", f.copyData("no number\n"), f.copyDone(), sync);
		await t.say(q("SELECT count(*) FROM parent"));
	}),
	script("Flush and Sync in the middle of COPY data are ignored", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.upTo("Z", f.copyData("10\n"), flush, sync, f.copyData("11\n"), f.copyDone());
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	differsSharded(
		"the proxy looks at what comes during a COPY, and says it in its own words",
		script("a Query in the middle of COPY data ends the COPY", async (t) => {
			await t.upTo("G", q("COPY parent FROM STDIN"));
			await t.end(f.copyData("10\n"), q("SELECT 1"));
		}),
	),
	script("CopyData, CopyDone and CopyFail outside of COPY are ignored", async (t) => {
		await t.say(f.copyData("x"), f.copyDone(), f.copyFail("x"), q("SELECT 1"));
		await t.say(q("BEGIN"));
		await t.say(f.copyData("x"), f.copyDone(), f.copyFail("x"), q("SELECT 2"));
		await t.say(q("ROLLBACK"));
	}),
	script("COPY in a transaction block", async (t) => {
		await t.say(q("BEGIN"));
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.say(f.copyData("10\n"), f.copyDone());
		await t.say(q("ROLLBACK"));
	}),
	script("COPY to a table that is not there", async (t) => {
		await t.say(q("COPY nowhere FROM STDIN"));
		await t.say(f.parse("COPY nowhere FROM STDIN"), f.bind(), f.execute(), sync);
		await t.say(q("COPY nowhere FROM STDIN"), f.copyData("1\n"), f.copyDone(), q("SELECT 1"));
	}),
];

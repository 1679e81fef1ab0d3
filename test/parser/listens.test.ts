// What texts do to channels and savepoints. Whether that holds is test/session/listens.test.ts.

import { expect, test } from "bun:test";
import { Backslash } from "../../src/parser/lexer.ts";
import { listenActs } from "../../src/parser/listens.ts";

function acts(sql: string, backslash = Backslash.Plain): string[] | null {
	return listenActs(sql, backslash)?.map(({ act, name }) => (name === "" ? act : `${act} ${name}`)) ?? null;
}

test.each<[sql: string, ...acts: string[]]>([
	["LISTEN a", "LISTEN a"],
	["listen A;", "LISTEN a"],
	['/* x */ LISTEN "A ""b""" -- y', 'LISTEN A "b"'],
	["UNLISTEN a; UNLISTEN *", "UNLISTEN a", "UNLISTEN"],
	["DISCARD ALL", "DISCARD ALL"],
	["SAVEPOINT s; RELEASE s; RELEASE SAVEPOINT s", "SAVEPOINT s", "RELEASE s", "RELEASE s"],
	["RELEASE savepoint", "RELEASE savepoint"],
	["ROLLBACK", "ROLLBACK"],
	["ABORT WORK; ROLLBACK TRANSACTION AND NO CHAIN", "ROLLBACK", "ROLLBACK"],
	["ROLLBACK TO s; ROLLBACK WORK TO SAVEPOINT s", "ROLLBACK s", "ROLLBACK s"],
	["ROLLBACK TO savepoint", "ROLLBACK savepoint"],
	["COMMIT; END; COMMIT AND CHAIN", "COMMIT", "COMMIT", "COMMIT"],
	// Other tags.
	["COMMIT PREPARED 'x'; ROLLBACK PREPARED 'x'; PREPARE TRANSACTION 'x'; DISCARD PLANS"],
	// PostgreSQL finds fault with them.
	["LISTEN; LISTEN a b; LISTEN 'a'; LISTEN a.b; LISTEN *; SAVEPOINT; ROLLBACK TO; RELEASE 1"],
	["SELECT 'LISTEN a'; NOTIFY a; SELECT $$; LISTEN b;$$; SELECT 'a\\'"],
	[`LISTEN "${"é".repeat(40)}"`, `LISTEN ${"é".repeat(31)}`],
	[`LISTEN "x${"é".repeat(40)}"`, `LISTEN x${"é".repeat(31)}`],
	[`LISTEN ${"x".repeat(63)}`, `LISTEN ${"x".repeat(63)}`],
])("%s", (sql, ...expected) => {
	expect(acts(sql)).toEqual(expected);
});

test("what cannot be read for certain is not read", () => {
	expect(acts('LISTEN U&"a"')).toBeNull();
	expect(acts("LISTEN a; SELECT 'a\\'", Backslash.Doubt)).toBeNull();
	expect(acts("LISTEN a; SELECT 'a")).toBeNull();
	expect(acts("LISTEN \ufffd")).toBeNull();
	expect(acts("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; LISTEN a")).toBeNull();
});

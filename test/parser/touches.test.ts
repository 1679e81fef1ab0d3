// The quick look is an automaton; here is what it is to say, in regular expressions, and both are asked about many texts.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { touchesSession } from "../../src/parser/touches.ts";

const FIRST =
	/^(set|reset|discard|listen|unlisten|prepare|deallocate|load|do|create|alter|drop|import|grant|revoke|commit|end)$/i;
const ANYWHERE =
	/(?<![\w$\x80-\xff])(set_config|temp|hold|pg_temp|pg_advisory_lock|pg_advisory_unlock|pg_try_advisory_lock|pg_settings|u&)/i;
const INTO = /(?<![\w$\x80-\xff])into/i;

/** `text` as latin1. */
function expected(text: string): boolean {
	const code = text.replace(/^[\0- ]+/, "");
	const [first] = /^[\w$\x80-\xff]*/.exec(code)!;
	return (
		/^(\/\*|--)/.test(code) ||
		FIRST.test(first) ||
		ANYWHERE.test(text) ||
		(first.toLowerCase() !== "insert" && INTO.test(text)) ||
		/;[\0- ;]*[^\0- ;]/.test(text)
	);
}

const PIECES =
	"set reset discard listen unlisten unliste prepare deallocate load do create alter drop import grant revoke commit end " +
	"insert into temp template hold pg_temp pg_tem pg_advisory_lock pg_advisory_unlock pg_try_advisory_lock pg_settings set_config set_confi u& U x w _ " +
	"1 $ é ; / * - ( ) ' & Commit INTO iNsErT";

const text = fc
	.array(fc.constantFrom(...PIECES.split(" "), " ", "\t", "\n", "\0"), { maxLength: 8 })
	.map((pieces) => pieces.join(""));

test("it says what the expressions say, wherever the text is in its chunk", () => {
	const seen = { yes: 0, no: 0 };
	fc.assert(
		fc.property(fc.oneof(text, fc.string({ maxLength: 20 })), fc.nat(3), (sql, before) => {
			const chunk = Buffer.from(`${"s;".repeat(before)}${sql}; set`, "latin1");
			const is = touchesSession(chunk, 2 * before, chunk.length - 5);
			expect(is).toBe(expected(chunk.latin1Slice(2 * before, chunk.length - 5)));
			seen[is ? "yes" : "no"]++;
		}),
		{ numRuns: 20_000 },
	);
	expect(seen.yes).toBeGreaterThan(1_000);
	expect(seen.no).toBeGreaterThan(1_000);
});

// Regular expressions in names of [[hba]]: what is served, what is not, and that none takes long. That PostgreSQL reads them alike is
// in integration/hba-postgres.test.ts.

import { expect, test } from "bun:test";
import { matchesPattern, whyNoPattern } from "../../src/config/hba-pattern.ts";

test.each<[string, string[], string[]]>([
	["app", ["app", "my_app_1"], ["ap", "APP"]],
	["^app_\\d+$", ["app_1", "app_23"], ["app_", "my_app_1", "app_1x", "app_1\n"]],
	["^(?:a|bc?)$", ["a", "b", "bc"], ["ac", ""]],
	["^a.b$", ["a\nb", "a b"], ["aüb", "ab"]],
	["^[-a-c_]{2,3}$", ["a-", "_b-"], ["a", "d_"]],
	["[^a-z]", ["A", "ü"], ["abc"]],
	["a\\.b\\/c", ["a.b/c"], ["axb/c"]],
	["^ü$", ["ü"], ["u"]],
	["^(ab){2}$", ["abab"], ["ab"]],
])("%s", (pattern, those, others) => {
	expect(whyNoPattern(pattern)).toBeNull();
	for (const name of those) expect([name, matchesPattern(pattern, name)]).toEqual([name, true]);
	for (const name of others) expect([name, matchesPattern(pattern, name)]).toEqual([name, false]);
});

test("what means something else to PostgreSQL, or nothing, is not served", () => {
	const refused = [
		"",
		"*a",
		"***=a",
		"***:a",
		"(?i)a",
		"(?x)a b",
		"a(?=b)",
		"a(?!b)",
		"(?<=a)b",
		"(?<n>a)",
		"a**",
		"a*?",
		"a++",
		"\\ma",
		"a\\M",
		"\\ya",
		"\\Ya",
		"\\Aa",
		"a\\Z",
		"\\ba",
		"\\s",
		"\\S",
		"(a)\\1",
		"\\p{L}",
		"\\u0041",
		"\\x41",
		"\\0",
		"\\ca",
		"[[:alpha:]]",
		"[[:<:]]a",
		"[[=a=]]",
		"[[.a.]]",
		"[\\d]",
		"[]a]",
		"[]",
		"[^]",
		"[a-c-e]",
		"[a",
		"a]",
		"(a",
		"a)",
		"()",
		"a|",
		"|a",
		"a||b",
		"^*",
		"$+",
		"a{",
		"a{,3}",
		"a{x}",
		"a{256}",
		"a{1,256}",
		"a{3,1}",
		"[z-a]",
		"a\\",
		"a{1}{2}",
		"\\k<n>",
	];
	for (const pattern of refused) expect([pattern, whyNoPattern(pattern) !== null]).toEqual([pattern, true]);
});

test("what could match in very many ways is not served, and what is takes no time", () => {
	for (const pattern of [
		"(a*)*b",
		"(a|a)*b",
		"(a+)+$",
		`${"a?".repeat(30)}b`,
		"(a|a)".repeat(30),
		".*.*.*.*b",
		"(a?){60}b",
	])
		expect([pattern, whyNoPattern(pattern)]).toEqual([pattern, "with fewer ways to match"]);
	const longest = "a".repeat(63);
	for (const pattern of [".*.*.*b", `${"a?".repeat(20)}b`, `^(${"ab|".repeat(500)}b)$`]) {
		const at = performance.now();
		expect([pattern, whyNoPattern(pattern), matchesPattern(pattern, longest)]).toEqual([pattern, null, false]);
		expect(performance.now() - at).toBeLessThan(1000);
	}
});

test("a name is cut where PostgreSQL cuts it", () => {
	const name = `${"a".repeat(63)}b`;
	expect([matchesPattern("b", name), matchesPattern("^a+$", name)]).toEqual([false, true]);
});

import { expect, test } from "bun:test";
import fc from "fast-check";
import { maskUrl, nearest, show } from "../../src/config/problem.ts";

test("the nearest key is the one a slip of the fingers away, or none", () => {
	const known = ["port", "host", "checkout_timeout", "connect_timeout", "workers"];
	expect(nearest("prot", known)).toBe("port");
	expect(nearest("HOST", known)).toBe("host");
	expect(nearest("chekout_timeout", known)).toBe("checkout_timeout");
	expect(nearest("worker", known)).toBe("workers");
	expect(nearest("zebra", known)).toBeUndefined();
	expect(nearest("", known)).toBeUndefined();
});

test("a URL in a message never holds its password", () => {
	expect(maskUrl("postgres://u:p@ss:w/ord@h/d")).toBe("postgres://u:***@h/d");
	expect(maskUrl("postgres://u@h/d?password=x&pool_size=1")).toBe("postgres://u@h/d?password=***&pool_size=1");
	fc.assert(
		fc.property(fc.stringMatching(/^[!-~]{1,12}$/), (secret) => {
			expect(maskUrl(`x://u:<${secret}>@h`)).toBe("x://u:***@h");
		}),
	);
});

test("values look like what was written, and what may hold a secret is only named", () => {
	expect([show(5), show(5n), show(1.5), show("a\n"), show(true)]).toEqual(["5.0", "5", "1.5", '"a\\n"', "true"]);
	expect([show(["pw"]), show({ a: "pw" }), show("pw", true)]).toEqual(["a list", "a table", "***"]);
	expect(show("x".repeat(1000)).length).toBeLessThan(120);
});

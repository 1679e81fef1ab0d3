// What a session may ask of routing, and how long it may be.

import { expect, test } from "bun:test";
import { SessionHints } from "../../src/session/hints.ts";

test("a sharding key that is longer than any key is refused, and the one before stays", () => {
	const hints = new SessionHints();
	const set = (value: string) => hints.change({ kind: "set", name: "sharding_key", value, local: false }, false);
	set("x".repeat(8192));
	expect(() => set("y".repeat(8193))).toThrow("pgdog.sharding_key is too long");
	expect(hints.text("sharding_key")).toBe("x".repeat(8192));
});

// What has to come of a TLS connection, as `npm run drivers` judges drivers.

import { expect, test } from "bun:test";
import { CASES, type Case, expected, LIBPQ, outcomeOf, type Ways } from "../../scripts/drivers/cases.ts";

const of = (words: string, ways: Ways = LIBPQ) => {
	const [mode, binding, negotiation, ...place] = words.split(" ");
	return expected({ mode, binding, negotiation, place: place.join(" ") } as Case, ways);
};

test("each sslmode, channel_binding and sslnegotiation is tried at each place, once", () => {
	expect(CASES).toHaveLength(6 * 3 * 2 * 8);
	expect(new Set(CASES.map((each) => JSON.stringify(each))).size).toBe(CASES.length);
});

test.each([
	["disable prefer postgres TLS", "plain"],
	["disable require postgres TLS", "refused"],
	["disable prefer postgres TLS required", "refused"],
	["allow prefer postgres TLS", "plain"],
	["allow prefer postgres TLS required", "encrypted"],
	["prefer prefer postgres no TLS", "plain"],
	["prefer require postgres no TLS", "refused"],
	["prefer prefer direct TLS", "refused"],
	["require prefer direct TLS", "encrypted"],
	["require prefer direct no TLS", "refused"],
	["require prefer postgres wrong authority", "encrypted"],
	["verify-ca prefer postgres wrong authority", "refused"],
	["verify-ca prefer postgres wrong host", "encrypted"],
	["verify-full prefer direct wrong host", "refused"],
	["require prefer postgres no certificate", "refused"],
	["require require postgres certificate, password", "encrypted"],
	["require prefer postgres certificate only", "encrypted"],
	["require require postgres certificate only", "refused"],
])("by libpq %s: %s", (words, outcome) => {
	expect(of(words)).toBe(outcome as "plain");
});

test("drivers with ways of their own", () => {
	const eager: Ways = { weakDirect: true, allow: "failed" };
	expect(of("prefer prefer direct TLS", eager)).toBe("encrypted");
	expect(of("prefer prefer direct no TLS", eager)).toBe("refused");
	expect(of("allow require postgres TLS", eager)).toBe("encrypted");
	expect(of("allow require postgres no TLS", eager)).toBe("refused");
	expect(of("allow prefer postgres TLS required", { weakDirect: true, allow: "never" })).toBe("refused");
	expect(["encrypted", "plain", "FATAL: no"].map(outcomeOf)).toEqual(["encrypted", "plain", "refused"]);
});

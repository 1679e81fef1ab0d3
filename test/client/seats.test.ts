// Whose clients are counted as one address's.

import { expect, test } from "bun:test";
import { networkOf } from "../../src/client/seats.ts";

test.each([
	["unix", "unix"],
	["10.1.2.3:5432", "10.1.2.3"],
	["::ffff:10.1.2.3:5432", "10.1.2.3"],
	["::1:5432", "0:0:0:0::/64"],
	["2001:db8:1:2:3:4:5:6:5432", "2001:db8:1:2::/64"],
	["2001:db8:1:2::9:5432", "2001:db8:1:2::/64"],
	["2001:db8::9:5432", "2001:db8:0:0::/64"],
	["1::4:5:6:7:8:5432", "1:0:0:4::/64"],
	["fe80:::5432", "fe80:0:0:0::/64"],
])("%s is %s", (address, expected) => {
	expect(networkOf(address)).toBe(expected);
});

// Failed log-ins by address, in memory of bounded size.

import { expect, test } from "bun:test";
import { Failures } from "../../src/net/failures.ts";

const PAUSE = 1_000;

test("failures in a row are counted until one logs in, or the pause is over", () => {
	const failures = new Failures();
	const start = 1_700_000_000_000;
	failures.add("a", start, PAUSE);
	failures.add("a", start + 900, PAUSE);
	failures.add("b", start + 900, PAUSE);
	expect([failures.count("a", start + 1_800, PAUSE), failures.count("b", start + 1_800, PAUSE)]).toEqual([2, 1]);
	expect(failures.count("a", start + 2_100, PAUSE)).toBe(0);
	failures.add("a", start + 2_100, PAUSE);
	expect(failures.count("a", start + 2_100, PAUSE)).toBe(1);
	failures.clear("a", start + 2_100);
	failures.clear("nobody", start + 2_100);
	expect([failures.count("a", start + 2_100, PAUSE), failures.count("b", start + 1_800, PAUSE)]).toEqual([0, 1]);
});

test("however many there are, the newest are known", () => {
	const failures = new Failures();
	for (let i = 0; i < 50_000; i++) failures.add(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`, i * 100, 3_600_000);
	const time = 50_000 * 100;
	const known = (i: number) => failures.count(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`, time, 3_600_000) === 1;
	const newest = Array.from({ length: 5_000 }, (_, i) => known(49_999 - i));
	expect(newest.filter((each) => each).length).toBeGreaterThan(4_990);
});

import { expect, test } from "bun:test";
import { TimeLimits, Turn } from "../../src/client/time-limits.ts";
import { MAX } from "../../src/config/setting.ts";
import type { General } from "../../src/config/settings.ts";

const general = (settings: Partial<General>): General =>
	({
		client_idle_timeout: MAX,
		client_idle_in_transaction_timeout: MAX,
		transaction_timeout: MAX,
		...settings,
	}) as General;

test.each([
	[Turn.Idle, 101, "client_idle_timeout", "disconnecting idle client"],
	[Turn.Idle, 100, undefined, undefined],
	[Turn.InTransaction, 51, "client_idle_in_transaction_timeout", "disconnecting idle in transaction client"],
	[Turn.InTransaction, 50, undefined, undefined],
	[Turn.Others, 1000, undefined, undefined],
])("turn %p, idle for %p ms: %p", (turn, idleFor, setting, message) => {
	const settings = general({ client_idle_timeout: 100, client_idle_in_transaction_timeout: 50 });
	const passed = new TimeLimits().look(settings, turn, idleFor, turn === Turn.InTransaction, 0, 5000);
	expect([passed?.setting, passed?.error.message]).toEqual([setting, message]);
});

test("a transaction is open from the look that finds it open until one has ended", () => {
	const limits = new TimeLimits();
	const settings = general({ transaction_timeout: 100 });
	const look = (time: number, isUnderway: boolean, ended: number) =>
		limits.look(settings, Turn.Others, 0, isUnderway, ended, time)?.setting;
	expect([look(1000, false, 0), look(2000, true, 0), look(2100, true, 0)]).toEqual([undefined, undefined, undefined]);
	// Another, that began between two looks.
	expect([look(2150, true, 1), look(2250, true, 1), look(2251, false, 1)]).toEqual([undefined, undefined, undefined]);
	expect([look(2300, true, 1), look(2401, true, 1)]).toEqual([undefined, "transaction_timeout"]);
});

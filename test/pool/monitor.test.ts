// The monitor before servers that say of themselves what the test wants. With real ones: test/faults/failover.test.ts.

import { afterEach, expect, test } from "bun:test";
import { now } from "../../src/clock.ts";
import { type General, general as generalTable, type Tcp, tcp as tcpTable } from "../../src/config/settings.ts";
import type { PoolSpec, Snapshot } from "../../src/config/snapshot.ts";
import { NO_TLS } from "../../src/config/tls.ts";
import { Contain } from "../../src/contain.ts";
import type { Log } from "../../src/log.ts";
import { Descriptors } from "../../src/net/descriptors.ts";
import { Bans } from "../../src/pool/bans.ts";
import { Monitor } from "../../src/pool/monitor.ts";
import { Ban, FoundRole, Vital, Vitals } from "../../src/pool/vitals.ts";
import { until } from "../support/until.ts";
import { defaults, ScriptedServer } from "./support.ts";

const primary = (timeline: number, lsn: number) => [
	"f",
	String(lsn),
	`${timeline.toString(16).padStart(8, "0")}0000000000000001`,
];
const replica = (lsn: number) => ["t", String(lsn), null];

interface Scene {
	readonly vitals: Vitals;
	readonly monitor: Monitor;
	readonly log: string[];
	/** Other settings, with the same servers or some of them. */
	reload(settings: Partial<General>, members?: readonly Partial<PoolSpec>[]): void;
	roles(): string;
}

const open: { stop(): void }[] = [];
afterEach(() => {
	for (const each of open.splice(0)) each.stop();
});

/** Pools by members, one slot each. @param begin those that are configured at the start */
function scene(members: readonly Partial<PoolSpec>[], settings: Partial<General> = {}, begin = members): Scene {
	const lines: string[] = [];
	const note = (message: string) => void lines.push(message);
	const info = (message: string) => note(`info: ${message}`);
	const log: Log = { error: note, warn: note, info, debug() {}, debugs: false, set() {} } as unknown as Log;
	const slots = new Map(members.map((member, slot) => [keyOf(member), slot]));
	const snapshot = (some: Partial<General>, those: readonly Partial<PoolSpec>[]): Snapshot => {
		const pools = those.map((member) => ({
			key: keyOf(member),
			user: "u",
			database: "d",
			database_name: "d",
			server_user: "u",
			server_passwords: [],
			server_tls: null,
			host: "127.0.0.1",
			shard: 0,
			role: "auto",
			startup: {},
			...member,
		}));
		const general = {
			...defaults<General>(generalTable),
			lsn_check_interval: 20,
			lsn_check_timeout: 300,
			...some,
		};
		return { general, tcp: defaults<Tcp>(tcpTable), tls: NO_TLS, clusters: [{ pools }] } as unknown as Snapshot;
	};
	const first = snapshot(settings, begin);
	const vitals = new Vitals(8);
	const bans = new Bans(vitals, log, first, slots);
	const contain = new Contain(
		() => {},
		() => {},
	);
	const monitor = new Monitor(bans, log, contain, first, new Descriptors());
	monitor.reach(first, slots);
	open.push(monitor);
	const NAMES = {
		[FoundRole.Unknown]: "?",
		[FoundRole.Primary]: "p",
		[FoundRole.Replica]: "r",
		[FoundRole.Outdated]: "x",
	};
	return {
		vitals,
		monitor,
		log: lines,
		reload: (some, those = members) => monitor.reach(snapshot(some, those), slots),
		roles: () => members.map((_, slot) => NAMES[vitals.roleOf(slot)]).join(""),
	};
}

function keyOf({ port, user = "u" }: Partial<PoolSpec>): string {
	return `${user}:${port}`;
}

test("the primary is found whatever the order, and found again when another takes its place", async () => {
	using one = new ScriptedServer();
	using two = new ScriptedServer();
	one.row = replica(100);
	two.row = primary(1, 100);
	const { roles, log } = scene([{ port: one.port }, { port: two.port }]);
	await until(() => roles() === "rp", "roles");
	// No news at the start, or an alert on warnings would go off at each deployment.
	expect(log).toEqual([expect.stringMatching(new RegExp(`^info: primary found: .*:${two.port}, timeline 1`))]);
	two.row = replica(200);
	one.row = primary(2, 200);
	await until(() => roles() === "pr", "the other roles");
	expect(log.filter((line) => line.startsWith("new primary chosen"))).toHaveLength(1);
});

test("of two the one on the later timeline stays, and the other is neither read from nor written to", async () => {
	using one = new ScriptedServer();
	using two = new ScriptedServer();
	one.row = primary(1, 5_000);
	two.row = replica(100);
	const { roles, log } = scene([{ port: one.port }, { port: two.port }]);
	await until(() => roles() === "pr", "roles");
	two.row = primary(2, 200);
	await until(() => roles() === "xp", "the promotion");
	const asked = one.queries.length;
	await until(() => one.queries.length > asked + 3, "some more questions");
	expect(roles()).toBe("xp");
	const loud = log.filter((line) => line.startsWith("several servers say"));
	expect(loud).toHaveLength(1);
	expect(loud[0]).toContain(`writes go to 127.0.0.1:${two.port}`);
	// It was set up anew behind the new one.
	one.row = replica(200);
	await until(() => roles() === "rp", "the old one as a replica");
});

test("that nothing can be written is said once: no primary at the start, one that is gone, one that is a replica now", async () => {
	using one = new ScriptedServer();
	using two = new ScriptedServer();
	one.row = replica(100);
	two.row = replica(100);
	const { roles, log } = scene([{ port: one.port }, { port: two.port }]);
	const loud = () => log.filter((line) => line.includes("nothing can be written"));
	await until(() => loud().length === 1, "the first complaint");
	two.row = primary(1, 100);
	await until(() => roles() === "rp", "a primary");
	two.row = replica(200);
	await until(() => loud().length === 2, "the second");
	two.row = primary(1, 300);
	await until(() => roles() === "rp", "it again");
	two[Symbol.dispose]();
	await until(() => loud().length === 3, "the third");
	const asked = one.queries.length;
	await until(() => one.queries.length > asked + 3, "some more questions");
	expect(loud().map((line) => line.replace(/127\.0\.0\.1:\d+/, "there").replace(/ \[.*/, ""))).toEqual([
		"no server says that it is the primary: nothing can be written",
		"no server says that it is the primary: nothing can be written",
		"the primary there does not answer: nothing can be written until it does, or another is promoted",
	]);
});

test("a server that is silent keeps nobody waiting: the others are heard, and one is found while it hangs", async () => {
	using one = new ScriptedServer();
	using two = new ScriptedServer();
	one.mute = true;
	two.row = primary(1, 100);
	const settings = { lsn_check_timeout: 60_000, checkout_timeout: 1_000 };
	const { roles } = scene([{ port: one.port }, { port: two.port }], settings);
	await until(() => roles() === "?p", "the one that speaks", 2_000);
});

// It was written to, since the time in which all are heard had been over for long.
test("servers that a reload brings are all heard before one of them is the primary, also one that stayed", async () => {
	using gone = new ScriptedServer();
	using stays = new ScriptedServer();
	using left = new ScriptedServer();
	using late = new ScriptedServer();
	gone.row = primary(1, 100);
	stays.row = replica(100);
	left.row = primary(1, 5_000);
	late.row = primary(2, 200);
	late.hold = true;
	const [first, second, third, fourth] = [gone, stays, left, late].map(({ port }) => ({ port }));
	const settings = { checkout_timeout: 1_000 };
	const { roles, log, reload } = scene([first!, second!, third!, fourth!], settings, [first!, second!]);
	const start = now();
	await until(() => roles() === "pr??", "roles");
	await until(() => now() - start > 1_100, "the first hearing to be over");
	reload(settings, [second!, third!, fourth!]);
	// It is asked again when it has answered.
	await until(() => left.queries.length > 1, "the one that was left behind to be heard");
	late.hold = false;
	late.answer();
	// The first one is no longer asked: what it was stays written.
	await until(() => roles() === "prxp", "the other roles");
	expect(log.filter((line) => line.startsWith("new primary chosen"))).toHaveLength(1);
});

test("a primary that is gone stays the primary until somebody else says that it is one, and is asked for in haste", async () => {
	const one = new ScriptedServer();
	using two = new ScriptedServer();
	one.row = primary(1, 100);
	two.row = replica(100);
	const { roles } = scene([{ port: one.port }, { port: two.port }], { lsn_check_interval: 3_000 });
	await until(() => roles() === "pr", "roles");
	one[Symbol.dispose]();
	two.row = primary(2, 100);
	// Its connection ended: there is no need to wait for the next question.
	await until(() => roles() === "xp", "the promotion", 2_000);
});

test("one server is asked once for all its users; when one user is refused another's login does", async () => {
	using one = new ScriptedServer();
	one.row = primary(1, 100);
	one.refuse = "28P01";
	one.refuses = "u";
	const users = ["u", "v"].map((user) => ({ port: one.port, user, server_user: user }));
	const { roles, log } = scene(users);
	await until(() => roles() === "pp", "roles of both pools");
	expect([...new Set(one.users)]).toEqual(["u", "v"]);
	expect(log.filter((line) => line.includes("cannot be asked"))).toHaveLength(1);
	const { logins } = one;
	const asked = one.queries.length;
	await until(() => one.queries.length > asked + 3, "more questions on the same connection");
	expect(one.logins).toBe(logins);
});

test("a replica that lags is banned by bytes or by time, and back when it has caught up", async () => {
	for (const settings of [{ ban_replica_lag_bytes: 1_000 }, { ban_replica_lag: 150 }]) {
		using one = new ScriptedServer();
		using two = new ScriptedServer();
		one.row = primary(1, 10_000);
		two.row = replica(10_000);
		const fixed = [
			{ port: one.port, role: "primary" as const },
			{ port: two.port, role: "replica" as const },
		];
		const { vitals } = scene(fixed, settings);
		await until(() => vitals.get(1, Vital.lsnAt) > 0, "a report");
		expect(vitals.banOf(1)).toBe(Ban.None);
		one.row = primary(1, 20_000);
		await until(() => vitals.banOf(1) === Ban.Lag, "the ban");
		expect([vitals.get(1, Vital.lagBytes), vitals.banOf(0)]).toEqual([10_000, Ban.None]);
		two.row = replica(20_000);
		await until(() => vitals.banOf(1) === Ban.None, "the end of the ban");
		expect(vitals.get(1, Vital.lag)).toBe(0);
	}
});

test("what a replica has seen is known by the primary's position, not by anybody's clock", async () => {
	using one = new ScriptedServer();
	using two = new ScriptedServer();
	one.row = primary(1, 100);
	two.row = replica(50);
	const fixed = [
		{ port: one.port, role: "primary" as const },
		{ port: two.port, role: "replica" as const },
	];
	const { vitals } = scene(fixed, { read_after_write: "lsn" });
	await until(() => one.queries.length > 3 && two.queries.length > 3, "reports");
	expect([vitals.get(0, Vital.freshAsOf), vitals.get(1, Vital.freshAsOf)]).toEqual([Number.POSITIVE_INFINITY, 0]);
	two.row = replica(100);
	await until(() => vitals.get(1, Vital.freshAsOf) > 0, "the replica to have caught up");
	one.row = primary(1, 200);
	const asked = one.queries.length;
	await until(() => one.queries.length > asked + 2, "the new position");
	const then = vitals.get(1, Vital.freshAsOf);
	await until(() => one.queries.length > asked + 5, "more questions");
	expect(vitals.get(1, Vital.freshAsOf)).toBe(then);
});

test("a configured replica that is none is not read from; the primary's own address in both roles is", async () => {
	using one = new ScriptedServer();
	using two = new ScriptedServer();
	one.row = primary(1, 100);
	two.row = primary(2, 100);
	const { vitals } = scene(
		[
			{ port: one.port, role: "primary" },
			{ port: two.port, role: "replica" },
			{ port: one.port, role: "replica", user: "w" },
		],
		{ ban_replica_lag: 60_000 },
	);
	await until(() => vitals.banOf(1) === Ban.NotReplica, "the ban");
	expect([vitals.banOf(0), vitals.banOf(2)]).toEqual([Ban.None, Ban.None]);
	two.row = replica(100);
	await until(() => vitals.banOf(1) === Ban.None, "the end of the ban");
});

test("nothing is asked where nothing depends on it; a reload may change that, and lifts what was banned for it", async () => {
	using one = new ScriptedServer();
	using two = new ScriptedServer();
	one.row = primary(1, 10_000);
	two.row = replica(100);
	const fixed = [
		{ port: one.port, role: "primary" as const },
		{ port: two.port, role: "replica" as const },
	];
	const { vitals, reload } = scene(fixed);
	expect([one.logins, two.logins]).toEqual([0, 0]);
	reload({ ban_replica_lag_bytes: 10 });
	await until(() => vitals.banOf(1) === Ban.Lag, "the ban");
	const { logins } = two;
	reload({ ban_replica_lag_bytes: 20 });
	const asked = two.queries.length;
	await until(() => two.queries.length > asked + 2, "questions after the reload");
	expect([vitals.banOf(1), two.logins]).toEqual([Ban.Lag, logins]);
	reload({});
	expect(vitals.banOf(1)).toBe(Ban.None);
});

test("lsn_check_delay asks for what SHOW REPLICATION shows, after that time", async () => {
	using one = new ScriptedServer();
	using two = new ScriptedServer();
	one.row = primary(1, 300);
	two.row = replica(100);
	const { vitals } = scene(
		[
			{ port: one.port, role: "primary" },
			{ port: two.port, role: "replica" },
		],
		{ lsn_check_delay: 100 },
	);
	expect(one.logins).toBe(0);
	await until(() => vitals.get(1, Vital.lagBytes) === 200, "the lag");
	expect([vitals.isInRecovery(0), vitals.isInRecovery(1)]).toEqual([false, true]);
});

test("what cannot be asked, since the server knows no such function, is said once and bans nobody", async () => {
	using one = new ScriptedServer();
	using two = new ScriptedServer();
	// No row at all.
	const { vitals, log } = scene(
		[
			{ port: one.port, role: "primary" },
			{ port: two.port, role: "replica" },
		],
		{ ban_replica_lag: 1 },
	);
	await until(() => one.queries.length > 3 && two.queries.length > 3, "questions");
	expect([vitals.banOf(0), vitals.banOf(1), log.length]).toEqual([Ban.None, Ban.None, 2]);
});

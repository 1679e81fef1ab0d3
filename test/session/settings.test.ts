// What a client's session has set, and what it is told: by a server whose answers the test makes (test/backend/support.ts).

import { describe, expect, test } from "bun:test";
import { Reading } from "../../src/parser/reading.ts";
import { Dirty, NO_FACTS } from "../../src/parser/session.ts";
import { SessionHints } from "../../src/session/hints.ts";
import { ClientSettings, Settled, tooManySettings } from "../../src/session/settings.ts";
import { type Rig, rig } from "../backend/support.ts";
import { cut } from "../support/message.ts";
import { describeMessage } from "../support/transcript.ts";
import { backend as b, concat } from "../support/wire-frames.ts";

const MB = 1 << 20;

function client(startup: Record<string, string> = {}) {
	const all = rig();
	const hints = new SessionHints();
	const settings = new ClientSettings(all.sets, all.sets.of(new Map(Object.entries(startup))), all.toClient.stream, {
		hints,
	});
	/** Settles what the transaction has set; the server is asked, and answers with these rows, or with an error. */
	const settle = (...answer: ([string, string | null][] | string)[]): Settled | null => {
		let outcome: Settled | null = null;
		settings.settle(all.server, "postgres", (settled) => {
			outcome = settled;
		});
		for (const rows of answer) {
			const said =
				typeof rows === "string"
					? [b.errorResponse({ S: "ERROR", V: "ERROR", C: rows, M: "no" })]
					: [b.rowDescription("name", "v"), ...rows.map((row) => b.dataRow(...row)), b.commandComplete("SELECT 1")];
			hear(all, ...said, b.readyForQuery());
		}
		return outcome;
	};
	return { all, hints, settings, settle, traces: all.server.session.traces };
}

const hear = (all: Rig, ...messages: Uint8Array[]) => all.server.onData(Buffer.from(concat(...messages)));
const told = (all: Rig) => cut(all.toClient.take()).messages.map(describeMessage);
const wanted = ({ wanted }: ClientSettings) => Object.fromEntries(wanted.values);

describe("what a client is told", () => {
	const reports = (all: Rig, settings: Record<string, string>) => all.sets.of(new Map(Object.entries(settings)));

	test("is all at its log-in, then what another server reports otherwise", () => {
		const { all, settings } = client();
		const { session } = all.server;
		session.reports.now = reports(all, { TimeZone: "UTC", in_hot_standby: "off" });
		expect(cut(settings.welcome(session.reports.now)).messages.map(describeMessage)).toEqual([
			'ParameterStatus ["TimeZone","UTC"]',
			'ParameterStatus ["in_hot_standby","off"]',
		]);
		settings.tell(all.server);
		expect(told(all)).toEqual([]);
		session.reports.now = reports(all, { TimeZone: "UTC", in_hot_standby: "on" });
		settings.tell(all.server);
		// Which server serves it, it need not know.
		expect(told(all)).toEqual([]);
		session.reports.now = reports(all, { TimeZone: "Europe/Paris", in_hot_standby: "on" });
		settings.tell(all.server);
		expect(told(all)).toEqual(['ParameterStatus ["TimeZone","Europe/Paris"]']);
		settings.tell(all.server);
		expect(told(all)).toEqual([]);
	});

	test("is what its server has reported meanwhile, which has reached it", () => {
		const { all, settings } = client();
		settings.tell(all.server);
		hear(all, b.parameterStatus("TimeZone", "UTC"));
		told(all);
		settings.stopTelling();
		settings.stopTelling();
		settings.tell(all.server);
		expect(told(all)).toEqual([]);
	});

	test("tells how its session reads statements", () => {
		const { all, settings } = client();
		const standard = { standard_conforming_strings: "on", client_encoding: "UTF8", server_encoding: "UTF8" };
		settings.welcome(reports(all, standard));
		expect(settings.reading).toBe(Reading.Standard);
		all.server.session.reports.now = reports(all, { ...standard, standard_conforming_strings: "off" });
		settings.tell(all.server);
		expect(settings.reading).toBe(Reading.Escapes);
	});
});

describe("a transaction that is over", () => {
	test("and has set nothing needs no question", () => {
		const { all, settle } = client();
		expect(settle()).toBe(Settled.Known);
		expect(all.toServer.bytes.length).toBe(0);
	});

	test("leaves the session what the server says that it has", () => {
		const { all, settings, settle, traces } = client({ datestyle: "ISO" });
		traces.noteSets(["work_mem", "datestyle", "timezone"]);
		expect(traces.unsettled).toBe(true);
		expect(
			settle([
				["work_mem", "1MB"],
				["datestyle", null],
				["timezone", null],
			]),
		).toBe(Settled.Known);
		// What has no value of its own has that of the StartupMessage.
		expect(wanted(settings)).toEqual({ datestyle: "ISO", work_mem: "1MB" });
		expect(Object.fromEntries(all.server.session.applied.values)).toEqual({ work_mem: "1MB" });
		expect(traces.unsettled).toBe(false);
	});

	test("that reset all asks about what the server had, too", () => {
		const { all, settings, settle, traces } = client();
		traces.noteSets(["work_mem"]);
		settle([["work_mem", "1MB"]]);
		all.toServer.take();
		traces.note({ ...NO_FACTS, resetsAll: true }, false);
		expect(settle([["work_mem", null]])).toBe(Settled.Known);
		expect(all.toServer.take().toString()).toContain("'work_mem'");
		expect(wanted(settings)).toEqual({});
	});

	test("leaves a role only when that is one: not none, nor the server's own user", () => {
		const { settings, settle, traces } = client();
		traces.noteSets(["role", "session_authorization"]);
		settle([
			["role", "none"],
			["session_authorization", "postgres"],
		]);
		expect(wanted(settings)).toEqual({});
		traces.noteSets(["role", "session_authorization"]);
		settle([
			["role", "alice"],
			["session_authorization", "bob"],
		]);
		expect(wanted(settings)).toEqual({ role: "alice", session_authorization: "bob" });
		const named = client({ role: "alice" });
		named.traces.noteSets(["role"]);
		named.settle([["role", "none"]]);
		expect(wanted(named.settings)).toEqual({ role: "none" });
	});

	test("may have set hints of ours out of sight, which routing learns and no server keeps", () => {
		const { hints, settings, settle, traces, all } = client();
		traces.noteSets(["pgdog.role"]);
		settle([["pgdog.role", "replica"]]);
		expect([hints.now.role, wanted(settings)]).toEqual(["replica", {}]);
		expect(Object.fromEntries(all.server.session.applied.values)).toEqual({ "pgdog.role": "replica" });
		traces.noteSets(["pgdog.role"]);
		settle([["pgdog.role", ""]]);
		expect(hints.now.role).toBeNull();
	});

	test("may have changed settings out of sight: what the server lists is the session's", () => {
		const { settings, settle, traces } = client();
		traces.noteSets(["work_mem", "app.x"]);
		settle([
			["work_mem", "1MB"],
			["app.x", "1"],
		]);
		traces.noteUnknown();
		expect(
			settle([
				["timezone", "UTC"],
				["app.x", "2"],
				["role", "none"],
			]),
		).toBe(Settled.Known);
		expect(wanted(settings)).toEqual({ timezone: "UTC", "app.x": "2" });
	});

	test("leaves what was before when the server cannot say", () => {
		const { settings, settle, traces } = client();
		traces.noteSets(["work_mem"]);
		expect(settle("57014")).toBe(Settled.Failed);
		traces.noteUnknown();
		expect(settle("57014")).toBe(Settled.Failed);
		expect(wanted(settings)).toEqual({});
	});

	test("leaves what was before when that is more than is kept, and the server has to be cleaned", () => {
		for (const of of ["names", "answer", "values"] as const) {
			const { settings, settle, traces } = client();
			traces.noteSets(of === "names" ? ["x".repeat(MB), "one more"] : ["app.x"]);
			const answers =
				of === "names" ? [] : of === "answer" ? ["53200"] : [[["app.x", "x".repeat(5 * MB)] as [string, string]]];
			expect(settle(...answers)).toBe(Settled.TooMany);
			expect(wanted(settings)).toEqual({});
			expect(traces.dirty & Dirty.Settings).toBe(Dirty.Settings);
		}
		expect(tooManySettings().sqlstate).toBe("53200");
	});
});

test("settings of all sessions count as long as their clients are there", () => {
	const { all, settings, settle, traces } = client({ datestyle: "ISO" });
	const before = all.sets.kept;
	expect(before).toBeGreaterThan(0);
	traces.noteSets(["app.x"]);
	settle([["app.x", "x".repeat(1000)]]);
	expect(all.sets.kept).toBeGreaterThan(before + 1000);
	settings.leave();
	expect(all.sets.kept).toBe(0);
});

test("a session is serializable by its default for transactions", () => {
	const isSerializable = (level: string) => client({ default_transaction_isolation: level }).settings.isSerializable;
	expect([isSerializable("Serializable"), isSerializable("read committed")]).toEqual([true, false]);
});

// What the rules of the house (house.ts) still put up with, as numbers that only fall.

export type Measure = "lines" | "complexity" | "parameters";

/** Lines that a file of src may have. */
export const MOST_LINES = 600;

/** What a function may come to: lines with its first and last, cognitive complexity as Biome counts it, parameters. */
export const LIMITS: Readonly<Record<Measure, number>> = { lines: 60, complexity: 25, parameters: 6 };

/** Functions beyond, with what they come to. `Walk.read` and `Relay.read` are the hot path, each one function by intent. */
export const BEYOND: Readonly<Record<Measure, Readonly<Record<string, number>>>> = {
	lines: {
		"parser/shape.ts Shape.read": 76,
		"client/walk.ts Walk.read": 174,
		"backend/relay.ts Relay.read": 136,
		"shards/segments.ts Batches.split": 90,
		"cli.ts parseCommandLine": 64,
		"plugin/loader.ts load": 65,
		"parser/session.ts Facts.statement": 62,
		"client/routing.ts Routing.inside": 61,
	},
	complexity: {
		"parser/shape.ts Shape.read": 47,
		"backend/relay.ts Relay.read": 123,
		"client/walk.ts Walk.read": 105,
		"client/solo.ts endOfSolo": 72,
		"shards/segments.ts Batches.split": 62,
		"backend/books.ts Books.answeredOtherwise": 34,
		"parser/session.ts Facts.body": 39,
		"config/resolve.ts expandUsers": 38,
		"client/alone.ts Alone.request": 29,
		"admin/courtesy.ts courtesy": 36,
		"admin/words.ts statements": 36,
		"router/router.ts Router.#decide": 36,
		"session/held-begin.ts HeldBegin.answer": 30,
		"client/routing.ts Routing.choose": 35,
		"client/request.ts RequestRouter.routeBatch": 34,
		"parser/touches.ts next": 34,
		"parser/session.ts Facts.anywhere": 27,
		"client/framing.ts LookAhead.search": 28,
		"parser/facts.ts isHarmless": 28,
		"parser/session.ts restoringStatements": 28,
		"backend/books.ts Books.failed": 27,
		"parser/lexer.ts Lexer.read": 26,
		"plugin/host.ts PluginHost.#ask": 26,
	},
	parameters: {
		"session/statements.ts ClientStatements.refer": 9,
		"backend/statement.ts new Statement": 7,
		"errors.ts new PgError": 7,
		"client/saying.ts Saying.insert": 7,
		"client/saying.ts Saying.say": 7,
		"session/statements.ts ClientStatements.referUnnamed": 7,
		"router/route-log.ts RouteLog.note": 7,
		"shards/segments.ts Batches.split": 7,
	},
};

/** Files other than contain.ts with timers, microtasks or `.then(`: how many, and why that is well. */
export const UNCONTAINED: Readonly<Record<string, { places: number; why: string }>> = {
	"admin/session.ts": { places: 1, why: "what is thrown costs the session, by the catch behind it" },
	"auth/scram-keys.ts": { places: 1, why: "the promise goes to whoever asked, with what is thrown" },
	"auth/server-login.ts": {
		places: 1,
		why: "the promise goes to whoever asked, who fails the log-in with what is thrown",
	},
	"backend/cancel.ts": { places: 1, why: "the end of a CancelRequest: closes a socket, throws nothing" },
	"backend/login.ts": { places: 2, why: "of one attempt to log in, which a bug costs" },
	"net/connect.ts": { places: 2, why: "of one attempt to connect: a timeout, and a connection that came too late" },
	"net/names.ts": { places: 1, why: "a timeout: rejects a promise, throws nothing" },
	"net/standard-error.ts": { places: 1, why: "the way of log lines, without which a bug could not be told" },
};

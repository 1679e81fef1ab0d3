// Users whom the configuration does not have: who is asked for them (`auth_query`, `passthrough_auth`), what was answered, and who of
// them has logged in and has pools. Once in the process, on the main thread, so that a thousand log-ins of one name ask once.

import { LRUCache } from "lru-cache";
import type { ScramKeys } from "../auth/scram-keys.ts";
import { now } from "../clock.ts";
import type { LoginKey } from "../config/diff.ts";
import { clusters, isTooLong, isWild, membersOf } from "../config/resolve.ts";
import { type ClusterSpec, type Snapshot, type User, WILDCARD } from "../config/snapshot.ts";
import type { Contain } from "../contain.ts";
import { asPgError, PgError } from "../errors.ts";
import type { Log } from "../log.ts";
import { OnceAMinute, timesText } from "../once-a-minute.ts";
import { type Found, Informant } from "./informant.ts";
import type { LoginContext } from "./login-options.ts";
import { Passing } from "./passing.ts";

/** What is said of a user: null, there is none such; or why nothing can be said, for the client. Plain data: it crosses threads. */
export type LookedUp =
	/** `reason` why there is none, for the log. */
	{ readonly found: Found | null; readonly reason?: string } | { readonly sqlstate: string; readonly message: string };

/** Why a user who has logged in can have no pools; null: they are there, or may be. */
export type Joined = { readonly sqlstate: string; readonly message: string } | null;

/** Answers that are kept, each kind: so that names that do not exist push nobody out who does. */
const MOST_KEPT = 10_000;
/** How long it is believed that there is no such user, ms. */
const NOBODY_TTL = 2_000;
/** An answer is asked again after a log-in that failed, but not more often than this, ms. */
const DOUBT = 1_000;

interface Answer {
	readonly found: Found | null;
	readonly at: number;
}

interface Learned {
	readonly user: User;
	/** When one last began to log in. */
	usedAt: number;
}

export class Learning {
	private readonly log: Log;
	private readonly context: LoginContext & { readonly contain: Contain };
	private snapshot: Snapshot;
	private readonly users = new Map<string, Learned>();
	private readonly known = new LRUCache<string, Answer>({ max: MOST_KEPT });
	private readonly unknown = new LRUCache<string, Answer>({ max: MOST_KEPT });
	/** Questions under way, by the same names as answers. */
	private readonly asked = new Map<string, Promise<LookedUp>>();
	/** Who is asked, by the entry of `[[databases]]`. */
	private readonly informants = new Map<string, Informant>();
	private readonly passing: Passing;
	private readonly failures = new OnceAMinute();

	constructor(snapshot: Snapshot, log: Log, context: LoginContext & { readonly contain: Contain }) {
		this.snapshot = snapshot;
		this.log = log;
		this.context = context;
		this.passing = new Passing(context);
	}

	/** What a configuration that is loaded comes to with the users who have been learned, as far as it leaves them. */
	with(snapshot: Snapshot): Snapshot {
		const { auth_query_user, passthrough_auth } = snapshot.general;
		const isOn = (user: User) => {
			if (user.listed) return listed(snapshot, user.name, user.database) !== undefined;
			return user.passed ? passthrough_auth !== "disabled" : auth_query_user !== undefined;
		};
		const taken = new Set(snapshot.clusters.map(({ user, database }) => loginKey(user.name, database)));
		const users = [...this.users].filter(([key, { user }]) => isOn(user) && !taken.has(key));
		const specs = users.flatMap(([, { user }]) => clusterOf(snapshot, userOf(snapshot, user)) ?? []);
		return specs.length === 0 ? snapshot : { ...snapshot, clusters: [...snapshot.clusters, ...specs] };
	}

	/** Takes over the configuration in force, which `with` has made: whatever was answered is asked again. */
	reach(snapshot: Snapshot): void {
		this.snapshot = snapshot;
		const learned = snapshot.clusters.filter(({ user }) => user.learned === true);
		const left = new Set(learned.map(({ user, database }) => loginKey(user.name, database)));
		for (const key of this.users.keys()) if (!left.has(key)) this.users.delete(key);
		this.passing.doubtAll();
		this.known.clear();
		this.unknown.clear();
		for (const informant of this.informants.values()) informant.close();
		this.informants.clear();
	}

	/** Never rejects. @param password what the user itself has said, for the server to judge; undefined: that is asked by `auth_query` */
	async lookUp(user: string, database: string, password?: string): Promise<LookedUp> {
		const { general } = this.snapshot;
		const learned = this.users.get(loginKey(user, database));
		if (learned !== undefined) learned.usedAt = now();
		if (password !== undefined) return this.judge(user, database, password);
		const known = listed(this.snapshot, user, database);
		if (known !== undefined) return { found: foundOf(known) };
		if (general.auth_query_user === undefined || !isThere(this.snapshot, database)) return { found: null };
		const target = general.auth_query_database ?? database;
		const key = loginKey(user, target);
		const kept = this.known.get(key) ?? this.unknown.get(key);
		const ttl = kept?.found === null ? Math.min(NOBODY_TTL, general.auth_query_ttl) : general.auth_query_ttl;
		if (kept !== undefined && now() - kept.at < ttl) return kept;
		let asked = this.asked.get(key);
		if (asked === undefined) {
			asked = this.ask(user, target, key).finally(() => this.asked.delete(key));
			this.asked.set(key, asked);
		}
		return asked;
	}

	/** A log-in has failed: the answer that it was judged by may be old. */
	doubt(user: string, database: string): void {
		const key = loginKey(user, this.snapshot.general.auth_query_database ?? database);
		const kept = this.known.peek(key);
		if (kept !== undefined && now() - kept.at > DOUBT) this.known.delete(key);
	}

	private async ask(user: string, target: string, key: string): Promise<LookedUp> {
		try {
			const informant = this.informantOf(target);
			const found = await informant.ask(user);
			const answer: Answer = { found, at: now() };
			// A reload has come: the next one asks anew.
			if (this.informants.get(target) !== informant) return answer;
			this.known.delete(key);
			this.unknown.delete(key);
			(found === null ? this.unknown : this.known).set(key, answer);
			return answer;
		} catch (error) {
			return this.failed("auth_query", error, target, CANNOT_SAY);
		}
	}

	/** Has a server of the database judge the password that a user has said. */
	private async judge(name: string, database: string, password: string): Promise<LookedUp> {
		const { snapshot } = this;
		if (snapshot.general.passthrough_auth === "disabled" || !isThere(snapshot, database) || isTooLong(name))
			return { found: null };
		const key = loginKey(name, database);
		try {
			const servers = serversOf(snapshot, database, name, []);
			const isKept = this.users.get(key)?.user.passed === true;
			const whose = { key, isKept, servers, general: snapshot.general };
			const reason = await this.passing.judge(password, whose);
			return reason === null ? { found: { passwords: [password], passed: true } } : { found: null, reason };
		} catch (error) {
			const { sqlstate, message } = asPgError(error);
			// It is nothing that a client without the right password may not know.
			if (AFTER_LOGIN.has(sqlstate)) return { sqlstate, message };
			return this.failed("passthrough_auth", error, database, CANNOT_CHECK);
		}
	}

	/**
	 * Logs in to a database by wildcard, as its pools would: there is none before it is known that there is such a database. Nothing is
	 * kept of it. @param keys those that the client has proven to have @returns why there can be no pools; null: nothing is against it
	 */
	async tryOut(spec: ClusterSpec, found: Found, keys: ScramKeys | null): Promise<Joined> {
		const { snapshot } = this;
		const { database, user } = spec;
		// It was just logged in to.
		if (!isWild(snapshot, database) || found.passed) return null;
		try {
			await this.passing.tryOut(inOrder(spec.pools), keys, snapshot.general);
			return null;
		} catch (error) {
			const { sqlstate, message } = asPgError(error);
			if (AFTER_LOGIN.has(sqlstate)) return { sqlstate, message };
			const down = `connection pool for user "${user.name}" and database "${database}" is down`;
			this.failed("database by wildcard", error, database, down);
			return { sqlstate: "58000", message: down };
		}
	}

	/** Nothing can be said of a user: the log is told why, once a minute. @returns what the client is told */
	private failed(setting: string, error: unknown, target: string, text: string): LookedUp {
		const { sqlstate, message, detail } = asPgError(error);
		const times = this.failures.due(now());
		const why = detail === undefined ? message : `${message} (${detail})`;
		if (times > 0) this.log.error(`${setting} failed: ${sqlstate} ${why} [${target}]${timesText(times)}`);
		return { sqlstate: sqlstate.startsWith("08") ? "08006" : "58000", message: text };
	}

	private informantOf(target: string): Informant {
		const { snapshot, context } = this;
		let informant = this.informants.get(target);
		if (informant === undefined) {
			const { auth_query_user: name, auth_query_password: secret } = snapshot.general;
			const servers = serversOf(snapshot, target, name!, secret === undefined ? [] : [secret]);
			informant = new Informant(servers, snapshot.general, context);
			this.informants.set(target, informant);
		}
		return informant;
	}

	/**
	 * A user has logged in by what was found.
	 * @returns the cluster that is to be there from now on; null: it is there, just so
	 * @throws PgError when there can be none
	 */
	join(name: string, database: string, found: Found): ClusterSpec | null {
		const key = loginKey(name, database);
		const { clusters, general } = this.snapshot;
		// By one of before, they would lock out the user who has said the new one meanwhile.
		if (found.passed && (general.passthrough_auth === "disabled" || !this.passing.isLast(key, found.passwords[0])))
			throw new PgError("FATAL", "57P03", "the password was changed meanwhile");
		const own = found.listed ? listed(this.snapshot, name, database) : undefined;
		if (found.listed && (own === undefined || !Bun.deepEquals(foundOf(own), found))) throw RECONFIGURED;
		const there = clusters.find((each) => each.user.name === name && each.database === database);
		// A reload has given the configuration this user, meanwhile.
		if (there !== undefined && !this.users.has(key)) throw RECONFIGURED;
		const user = userOf(this.snapshot, { ...found, name, database });
		if (there !== undefined && Bun.deepEquals(there.user, user)) return null;
		const spec = clusterOf(this.snapshot, user);
		if (spec === null) throw new PgError("FATAL", "57P03", "the database has left the configuration");
		const keys = new Set(spec.pools.map((pool) => pool.key));
		// With an @ in a user's or database's name two could come to the same.
		const others = clusters.filter((each) => each !== there).flatMap(({ pools }) => pools);
		if (others.some((pool) => keys.has(pool.key))) throw new PgError("FATAL", "58000", "two pools would have one name");
		return spec;
	}

	/** @returns the configuration in force from now on, with `specs` in the place of these logins' clusters */
	replace(logins: readonly LoginKey[], specs: readonly ClusterSpec[]): Snapshot {
		const { snapshot } = this;
		const gone = new Set(logins.map(({ user, database }) => loginKey(user, database)));
		for (const { user, database } of specs) this.users.set(loginKey(user.name, database), { user, usedAt: now() });
		const left = snapshot.clusters.filter(({ user, database }) => !gone.has(loginKey(user.name, database)));
		this.snapshot = { ...snapshot, clusters: [...left, ...specs] };
		return this.snapshot;
	}

	/**
	 * Learned users who have no clients and have not begun to log in for long; they are forgotten here.
	 * @param clients how many a user has of a database, or more
	 */
	idle(time: number, clients: (user: string, database: string) => number): User[] {
		const { idle_timeout, client_login_timeout } = this.snapshot.general;
		const patience = Math.max(idle_timeout, client_login_timeout);
		const gone: User[] = [];
		for (const [key, { user, usedAt }] of this.users) {
			if (time - usedAt <= patience || clients(user.name, user.database) > 0) continue;
			this.users.delete(key);
			gone.push(user);
		}
		return gone;
	}

	stop(): void {
		for (const informant of this.informants.values()) informant.close();
	}
}

const RECONFIGURED = new PgError("FATAL", "57P03", "the user was reconfigured");
const CANNOT_SAY = "the user could not be looked up";
const CANNOT_CHECK = "the password could not be checked";
/** No such database, no right to it: found out once the password was right. Too many connections. */
const AFTER_LOGIN: ReadonlySet<string> = new Set(["3D000", "42501", "53300"]);

/** A user as learned, with what the configuration says of it: everything but what lets it in. */
function userOf(
	snapshot: Snapshot,
	{ name, database, passwords, password_hash, passed, listed: isListed }: User,
): User {
	const own = listed(snapshot, name, database);
	if (isListed && own !== undefined) return { ...own, database, listed: true, learned: true };
	const entry = isWild(snapshot, database) ? WILDCARD : database;
	const said = snapshot.passwordless.find((each) => each.name === name && each.database === entry);
	const found = { passwords, ...(password_hash === undefined ? {} : { password_hash }), ...(passed ? { passed } : {}) };
	return { ...said, ...found, name, database, learned: true };
}

/** The user of users.toml for a database by wildcard. */
function listed(snapshot: Snapshot, name: string, database: string): User | undefined {
	if (!isWild(snapshot, database) || !isThere(snapshot, database)) return undefined;
	return snapshot.users.find((each) => each.name === name && each.database === WILDCARD);
}

/** What lets in a user of users.toml. */
function foundOf({ passwords, password_hash, identity, tls_client_certificate_required }: User): Found {
	const found = { passwords, password_hash, identity, tls_client_certificate_required, listed: true };
	return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined)) as unknown as Found;
}

function isThere(snapshot: Snapshot, database: string): boolean {
	return membersOf(snapshot, database).length > 0;
}

/** The pools of a user who is not in the configuration; null: its database is not either. */
function clusterOf(snapshot: Snapshot, user: User): ClusterSpec | null {
	const members = membersOf(snapshot, user.database);
	return members.length === 0 ? null : (clusters({ ...snapshot, databases: members }, [user], [])[0] ?? null);
}

/** The servers of the first shard of a database as a user reaches them with these passwords, a primary first. */
function serversOf(
	snapshot: Snapshot,
	target: string,
	name: string,
	passwords: readonly string[],
): ClusterSpec["pools"] {
	const spec = clusterOf(snapshot, { name, database: target, passwords });
	// Another user or password of the entry is for clients.
	return inOrder(spec?.pools ?? []).map((pool) => ({ ...pool, server_user: name, server_passwords: passwords }));
}

/** Those of the first shard, a primary first. */
function inOrder(pools: ClusterSpec["pools"]): ClusterSpec["pools"] {
	return pools
		.filter(({ shard }) => shard === pools[0]!.shard)
		.toSorted((a, b) => Number(b.role === "primary") - Number(a.role === "primary"));
}

function loginKey(user: string, database: string): string {
	return `${user}\0${database}`;
}

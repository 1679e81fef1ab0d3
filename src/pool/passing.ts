// Passwords that only the server can judge (`passthrough_auth`): each is tried there by a log-in of its own before it lets anybody
// in, and believed for a while. In memory only. Made and asked by learning.ts.

import { timingSafeEqual } from "node:crypto";
import { LRUCache } from "lru-cache";
import { ScramCache, type ScramKeys } from "../auth/scram-keys.ts";
import type { ServerCredentials } from "../auth/server-login.ts";
import { parseVerifier } from "../auth/verifier.ts";
import { login } from "../backend/login.ts";
import { now } from "../clock.ts";
import type { General } from "../config/settings.ts";
import type { PoolSpec } from "../config/snapshot.ts";
import { asPgError, PgError, TOO_MANY_CONNECTIONS } from "../errors.ts";
import { type LoginContext, loginOptions } from "./login-options.ts";
import { Outsider } from "./outsider.ts";

/** Passwords that are believed. */
const MOST_KEPT = 10_000;
/** Log-ins tried at once at each server: each is one more connection that it has to have room for. */
const AT_ONCE = 16;

/** Why a password is wrong, for the log; null: it is right. */
export type Verdict = string | null;

interface Proof {
	readonly password: string;
	readonly at: number;
}

/** Whose password is to be judged. */
interface Whose {
	/** Of user and database. */
	readonly key: string;
	/** There are pools by the password that is believed: another is refused while that one is right, unless it may be changed. */
	readonly isKept: boolean;
	/** Of the database, as that user reaches them, in the order in which they are tried. */
	readonly servers: readonly PoolSpec[];
	readonly general: General;
}

/** Log-ins that are tried at one server, first at least. */
interface Turns {
	/** Those under way, and those that wait. */
	all: number;
	readonly waiting: (() => void)[];
}

/** What to log in with; null: with what the pool would. */
type CredentialsOf = (spec: PoolSpec) => ServerCredentials | null;

export class Passing {
	private readonly context: LoginContext;
	private readonly proofs = new LRUCache<string, Proof>({ max: MOST_KEPT });
	/** Log-ins under way, by whose and with what: a storm of one asks once. Bounded by clients that log in. */
	private readonly underway = new Map<string, Promise<Verdict>>();
	/** Of servers at which log-ins are under way: one may be away, which is nothing to the others. */
	private readonly turns = new Map<string, Turns>();
	private doubts = 0;

	constructor(context: LoginContext) {
		this.context = context;
	}

	/** What was believed has to be tried again, and so has what is being tried. */
	doubtAll(): void {
		this.doubts++;
		for (const [key, { password }] of this.proofs.entries())
			this.proofs.set(key, { password, at: Number.NEGATIVE_INFINITY });
	}

	/** Whether it is the last that was right, as far as is known. */
	isLast(key: string, password: string | undefined): boolean {
		const proof = this.proofs.peek(key);
		return proof !== undefined && password !== undefined && sameText(proof.password, password);
	}

	/** @throws PgError why that cannot be said */
	async judge(password: string, whose: Whose): Promise<Verdict> {
		const { key, isKept, general } = whose;
		const proof = this.proofs.get(key);
		const isSame = proof !== undefined && sameText(proof.password, password);
		const isFresh = proof !== undefined && now() - proof.at < general.passthrough_auth_ttl;
		if (isSame && isFresh) return null;
		const mayChange = general.passthrough_auth.endsWith("_allow_change");
		// Nobody may ever say the old one again, now that there is another: it is asked about here, too.
		if (isKept && proof !== undefined && !isSame && !mayChange)
			if (isFresh || (await this.once(proof.password, whose)) === null)
				return "it is another password than that of the user's pools, which passthrough_auth does not let it change";
		return this.once(password, whose);
	}

	private once(password: string, whose: Whose): Promise<Verdict> {
		const question = `${whose.key}\0${password}`;
		let asked = this.underway.get(question);
		if (asked === undefined) {
			asked = this.ask(password, whose).finally(() => this.underway.delete(question));
			this.underway.set(question, asked);
		}
		return asked;
	}

	private async ask(password: string, whose: Whose): Promise<Verdict> {
		const { doubts } = this;
		const credentials = { passwords: [password], asProof: true };
		const verdict = await this.attempt(whose, () => credentials);
		const at = doubts === this.doubts ? now() : Number.NEGATIVE_INFINITY;
		if (verdict === null) this.proofs.set(whose.key, { password, at });
		else if (this.isLast(whose.key, password)) this.proofs.delete(whose.key);
		return verdict;
	}

	/** Logs in as a pool would. @param keys those that a client has proven to have @throws PgError why it cannot be done */
	async tryOut(servers: readonly PoolSpec[], keys: ScramKeys | null, general: General): Promise<void> {
		const verdict = await this.attempt({ servers, general, isKept: false }, ({ server_verifier: verifier }) =>
			keys === null || verifier === undefined ? null : { keys, verifier: parseVerifier(verifier) ?? undefined },
		);
		if (verdict !== null) throw new PgError("FATAL", "28000", verdict);
	}

	private async attempt(whose: Omit<Whose, "key">, credentials: CredentialsOf): Promise<Verdict> {
		const started = now();
		// Who has begun to log in before has time left to be told.
		const patience = Math.max(1, Math.floor(whose.general.client_login_timeout / 2));
		const [first] = whose.servers;
		const server = `${first?.host}:${first?.port}`;
		await this.turn(server);
		try {
			if (now() - started > patience) throw new PgError("FATAL", "08006", "too many log-ins at once");
			return await this.verdict(whose, credentials, now() + patience);
		} finally {
			this.pass(server);
		}
	}

	private async turn(server: string): Promise<void> {
		const turns = this.turns.get(server) ?? { all: 0, waiting: [] };
		this.turns.set(server, turns);
		if (turns.all++ < AT_ONCE) return;
		const { promise, resolve } = Promise.withResolvers<void>();
		turns.waiting.push(resolve);
		await promise;
	}

	private pass(server: string): void {
		const turns = this.turns.get(server)!;
		turns.waiting.shift()?.();
		if (--turns.all === 0) this.turns.delete(server);
	}

	/** What the first server says that says anything; of several passwords that a pool would try, to the last. */
	private async verdict(
		{ servers, isKept, general }: Omit<Whose, "key">,
		credentials: CredentialsOf,
		end: number,
	): Promise<Verdict> {
		let failure = new PgError("FATAL", "08001", "the database has no server");
		for (const spec of servers) {
			const own = credentials(spec);
			const passwords = own === null ? Math.max(1, spec.server_passwords.length) : 1;
			for (let index = 0; index < passwords; index++) {
				let isProven = false;
				try {
					const timeout = Math.max(1, Math.min(general.connect_timeout, end - now()));
					const options = loginOptions(spec, index, timeout, new ScramCache({ max: 1 }), this.context);
					const onLetIn = () => {
						isProven = true;
					};
					const server = await login({ ...options, credentials: own ?? options.credentials, onLetIn }, new Outsider());
					server.loggedIn();
					server.close("there is no more to know");
					return null;
				} catch (error) {
					failure = asPgError(error);
					// It may be the user's own pools that leave no room: what they have is enough.
					if (isProven && isKept && failure.sqlstate === TOO_MANY_CONNECTIONS) return null;
				}
				if (failure.sqlstate !== "28P01") break;
			}
			if (failure.sqlstate.startsWith("28")) return failure.message;
		}
		throw failure;
	}
}

/** In a time that does not depend on where they differ. */
function sameText(a: string, b: string): boolean {
	const [one, other] = [Buffer.from(a), Buffer.from(b)];
	return one.length === other.length && timingSafeEqual(one, other);
}

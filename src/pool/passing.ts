// Passwords that only the server can judge (`passthrough_auth`): each is tried there by a log-in of its own before it lets anybody
// in, and believed for a while. In memory only. Made and asked by learning.ts.

import { timingSafeEqual } from "node:crypto";
import { LRUCache } from "lru-cache";
import { ScramCache } from "../auth/scram-keys.ts";
import { login } from "../backend/login.ts";
import { now } from "../clock.ts";
import type { General } from "../config/settings.ts";
import type { PoolSpec } from "../config/snapshot.ts";
import { asPgError, PgError } from "../errors.ts";
import { type LoginContext, loginOptions } from "./login-options.ts";
import { Outsider } from "./outsider.ts";

/** Passwords that are believed. */
const MOST_KEPT = 10_000;
/** Log-ins tried at once: each is one more connection that the server has to have room for. */
const AT_ONCE = 16;

/** Why a password is wrong, for the log; null: it is right. */
export type Verdict = string | null;

interface Proof {
	readonly password: string;
	readonly at: number;
}

export class Passing {
	private readonly context: LoginContext;
	private readonly proofs = new LRUCache<string, Proof>({ max: MOST_KEPT });
	/** Log-ins under way, by whose and with what: a storm of one asks once. Bounded by clients that log in. */
	private readonly underway = new Map<string, Promise<Verdict>>();
	private running = 0;
	private readonly queue: (() => void)[] = [];

	constructor(context: LoginContext) {
		this.context = context;
	}

	/** What was believed has to be tried again. */
	doubtAll(): void {
		for (const [key, { password }] of this.proofs.entries())
			this.proofs.set(key, { password, at: Number.NEGATIVE_INFINITY });
	}

	/**
	 * @param key of user and database
	 * @param isKept there are pools by the password that is believed: another is refused unseen, unless it may be changed
	 * @param servers of the database, as that user reaches them, in the order in which they are tried
	 * @throws PgError why that cannot be said
	 */
	async judge(
		key: string,
		password: string,
		isKept: boolean,
		servers: readonly PoolSpec[],
		general: General,
	): Promise<Verdict> {
		const proof = this.proofs.get(key);
		const isSame = proof !== undefined && sameText(proof.password, password);
		if (isSame && now() - proof.at < general.passthrough_auth_ttl) return null;
		const mayChange = general.passthrough_auth.endsWith("_allow_change");
		if (isKept && proof !== undefined && !isSame && !mayChange)
			return "it is another password than that of the user's pools, which passthrough_auth does not let it change";
		const question = `${key}\0${password}`;
		let asked = this.underway.get(question);
		if (asked === undefined) {
			asked = this.ask(key, password, servers, general).finally(() => this.underway.delete(question));
			this.underway.set(question, asked);
		}
		return asked;
	}

	private async ask(key: string, password: string, servers: readonly PoolSpec[], general: General): Promise<Verdict> {
		const started = now();
		// Who has begun to log in before has time left to be told.
		const patience = Math.max(1, Math.floor(general.client_login_timeout / 2));
		await this.turn();
		try {
			if (now() - started > patience) throw new PgError("FATAL", "08006", "too many log-ins at once");
			const verdict = await this.verdict(servers, now() + patience, general.connect_timeout);
			if (verdict === null) this.proofs.set(key, { password, at: now() });
			else if (this.proofs.peek(key)?.password === password) this.proofs.delete(key);
			return verdict;
		} finally {
			this.running--;
			this.queue.shift()?.();
		}
	}

	private async turn(): Promise<void> {
		if (this.running >= AT_ONCE) {
			const { promise, resolve } = Promise.withResolvers<void>();
			this.queue.push(resolve);
			await promise;
		}
		this.running++;
	}

	/** What the first server says that says anything. */
	private async verdict(servers: readonly PoolSpec[], end: number, connectTimeout: number): Promise<Verdict> {
		let failure = new PgError("FATAL", "08001", "the database has no server");
		for (const spec of servers) {
			try {
				const timeout = Math.max(1, Math.min(connectTimeout, end - now()));
				const options = loginOptions(spec, 0, timeout, new ScramCache({ max: 1 }), this.context);
				const credentials = { passwords: spec.server_passwords, asProof: true };
				const server = await login({ ...options, credentials }, new Outsider());
				server.loggedIn();
				server.close("its password is right");
				return null;
			} catch (error) {
				failure = asPgError(error);
				if (failure.sqlstate.startsWith("28")) return failure.message;
			}
		}
		throw failure;
	}
}

/** In a time that does not depend on where they differ. */
function sameText(a: string, b: string): boolean {
	const [one, other] = [Buffer.from(a), Buffer.from(b)];
	return one.length === other.length && timingSafeEqual(one, other);
}

// The connection by which one database's server is asked for users: opened when first needed, kept while there is something to ask,
// opened again when it was lost. It has nothing of a client's but the name that is asked for. Made by learning.ts.

import { isMd5Hash } from "../auth/md5.ts";
import { ScramCache } from "../auth/scram-keys.ts";
import { parseVerifier } from "../auth/verifier.ts";
import { login } from "../backend/login.ts";
import { Questions } from "../backend/questions.ts";
import type { Rows } from "../backend/task.ts";
import type { General } from "../config/settings.ts";
import type { PoolSpec, User } from "../config/snapshot.ts";
import type { Contain } from "../contain.ts";
import { asPgError, PgError } from "../errors.ts";
import { type LoginContext, loginOptions } from "./login-options.ts";
import { Outsider } from "./outsider.ts";

/** What lets a user in. */
export type Found = Pick<
	User,
	"passwords" | "password_hash" | "passed" | "listed" | "identity" | "tls_client_certificate_required"
>;

/** A connection that nothing was asked on for so long is closed, ms. */
const IDLE = 60_000;

export class Informant {
	private readonly servers: readonly PoolSpec[];
	private readonly general: General;
	private readonly context: LoginContext & { readonly contain: Contain };
	private readonly scram = new ScramCache({ max: 4 });
	private connection: Promise<Questions> | null = null;
	private idleTimer: Timer | null = null;
	private closed = false;
	private attempts = 0;
	/** Questions that are not answered yet. */
	private underway = 0;

	/** @param servers in the order in which they are tried */
	constructor(servers: readonly PoolSpec[], general: General, context: LoginContext & { readonly contain: Contain }) {
		this.servers = servers;
		this.general = general;
		this.context = context;
	}

	/** ms for an answer, connecting included: who has begun to log in before has time left to be told. */
	private get patience(): number {
		return Math.max(1, Math.floor(this.general.client_login_timeout / 2));
	}

	/** What lets a user in; null: nothing does. @throws PgError why that cannot be said */
	async ask(user: string): Promise<Found | null> {
		const { promise, reject } = Promise.withResolvers<never>();
		const late = () => {
			reject(new PgError("FATAL", "08006", `no answer within ${this.patience} ms`));
			// Whatever it still does there, nobody waits for it, and whoever asks next is not to wait behind it.
			this.drop();
		};
		const timer = this.context.contain.later(this.patience, null, late);
		this.underway++;
		try {
			return foundIn(await Promise.race([promise, this.question(user, true)]), user);
		} finally {
			clearTimeout(timer);
			this.underway--;
			this.rest();
		}
	}

	/** @param again it may be asked once more when a connection of before turns out to be lost */
	private async question(user: string, again: boolean): Promise<Rows> {
		const isOld = this.connection !== null;
		this.connection ??= this.connect();
		const { connection } = this;
		try {
			const questions = await connection;
			return await answerOf(questions, user);
		} catch (error) {
			const isLost = asPgError(error).sqlstate.startsWith("08");
			if (this.connection === connection && isLost) this.drop();
			if (!isLost || !isOld || !again) throw error;
			return this.question(user, false);
		}
	}

	private async connect(): Promise<Questions> {
		const { servers, context, general, patience, scram } = this;
		const attempt = ++this.attempts;
		let failure: unknown = new PgError("FATAL", "08001", "the database has no server");
		for (const spec of servers) {
			try {
				const options = loginOptions(spec, 0, Math.min(general.connect_timeout, patience), scram, context);
				const server = await login({ ...options, startup: startup(patience) }, new Outsider());
				return new Questions(server, general.auth_query);
			} catch (error) {
				failure = error;
			}
		}
		// Whoever asks next tries again.
		if (attempt === this.attempts) this.connection = null;
		throw failure;
	}

	/** The next question is asked on a new connection. */
	private drop(): void {
		const { connection } = this;
		this.connection = null;
		if (connection !== null) this.context.contain.when(null, closeWhenOpen(connection), () => {});
	}

	/** A question is answered: without another the connection is closed. */
	private rest(): void {
		if (this.idleTimer !== null) clearTimeout(this.idleTimer);
		this.idleTimer = null;
		if (this.underway > 0) return;
		if (this.closed) this.drop();
		else this.idleTimer = this.context.contain.later(IDLE, null, () => this.drop());
	}

	/** Nobody asks it any more; what was asked is still answered. */
	close(): void {
		this.closed = true;
		this.rest();
	}
}

/** Names without a schema are PostgreSQL's own, whatever is set for the role or the database. */
function startup(patience: number): Record<string, string> {
	return {
		application_name: "PgDog",
		client_encoding: "utf-8",
		search_path: "pg_catalog, pg_temp",
		statement_timeout: String(patience),
	};
}

async function closeWhenOpen(connection: Promise<Questions>): Promise<void> {
	try {
		(await connection).close();
	} catch {
		// It was never open, which whoever asked has been told.
	}
}

function answerOf(questions: Questions, user: string): Promise<Rows> {
	const { promise, resolve, reject } = Promise.withResolvers<Rows>();
	questions.ask(user, (rows, error) => (error === null ? resolve(rows) : reject(error)));
	return promise;
}

function foundIn(rows: Rows, user: string): Found | null {
	const [row] = rows;
	if (row === undefined) return null;
	if (rows.length > 1) throw new PgError("ERROR", "21000", `several rows for user "${user}"`);
	if (row.length < 2) throw new PgError("ERROR", "42804", "its rows have less than two columns");
	const [name, secret] = row as [string | null, string | null];
	if (name !== user || secret === null || secret === "") return null;
	const isHash = isMd5Hash(secret) || parseVerifier(secret) !== null;
	return isHash ? { passwords: [], password_hash: secret } : { passwords: [secret] };
}

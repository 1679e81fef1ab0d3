// A connection before it is a client: SSLRequest, GSSENCRequest, CancelRequest, StartupMessage, and the login.
// Ends in a Client, a ShardedClient, an admin session, or a close. PostgreSQL docs, "Start-up" and "Message Formats".

import { type AuthRequest, ClientLogin } from "../auth/login.ts";
import { PassedLogin } from "../auth/passed-login.ts";
import { Client } from "../client/client.ts";
import type { ClientContext } from "../client/context.ts";
import { now } from "../clock.ts";
import { PgError } from "../errors.ts";
import type { LogFields } from "../log.ts";
import { acceptDirectTls } from "../net/direct-tls.ts";
import { acceptTls } from "../net/secure.ts";
import type { Stream, StreamOwner } from "../net/stream.ts";
import { CLIENT_HELLO, type Secured, type TlsIdentity } from "../net/tls.ts";
import type { Found } from "../pool/informant.ts";
import { ShardedClient } from "../shards/sharded-client.ts";
import { Stat } from "../stats/counters.ts";
import { AUTHENTICATION_OK, authentication, negotiateProtocolVersion } from "../wire/backend-messages.ts";
import { Auth, Frontend, MAX_AUTH_TOKEN_LENGTH, MAX_STARTUP_PACKET_LENGTH, StartupCode } from "../wire/codes.ts";
import { errorResponse } from "../wire/error-response.ts";
import { HEADER, readInt32, Tail } from "../wire/frame.ts";
import { type Admission, admit, judgePeer, judgeShown, methodOf, readmit } from "./proof.ts";
import {
	NEWEST_MINOR,
	notPeer,
	STOPPING,
	TLS_ONLY,
	TLS_TO_PASS,
	UNENCRYPTED,
	unsupported,
	wrongPassword,
} from "./refusals.ts";
import { StartupMessage } from "./startup-message.ts";

type User = NonNullable<ReturnType<ClientContext["find"]>>["user"];

const NO = Buffer.from("N");
/** The answer to an SSLRequest: TLS begins. */
const YES = Buffer.from("S");

const enum Phase {
	/** The first packets, which have no type byte. */
	Packets,
	/** TLS is being agreed on; what comes is the handshake's. */
	Handshake,
	/** An answer to an Authentication request is to come. */
	Login,
	/** The answer is being checked; nothing may come. */
	Checking,
	/** It has failed, and is told so in a moment. */
	Refused,
	/** A CancelRequest has come and is being passed on; nothing else counts. */
	Cancelling,
	/** Someone else owns the stream, or it is closed. */
	Over,
}

export class Startup implements StreamOwner {
	readonly stream: Stream;
	readonly address: string;
	/** As `now()`. */
	readonly startedAt = now();
	/** Error for a client without room, once it has said who it is; a CancelRequest and the admin are served. Null: room. */
	refusal: PgError | null = null;
	private readonly context: ClientContext;
	private readonly onOver: (startup: Startup) => void;
	private readonly tail = new Tail();
	private phase = Phase.Packets;
	private sslAsked = false;
	private gssAsked = false;
	/** With which TLS was agreed on; null: the connection is not encrypted. */
	private identity: TlsIdentity | null = null;
	/** Bytes came together with an SSLRequest or GSSENCRequest, before it was answered. */
	private early = false;
	private login: ClientLogin | PassedLogin | null = null;
	/** What has let it in without a question, in place of `login`. */
	private shown: "cert" | "peer" | null = null;
	/** The configuration does not have its user: a server was asked, and what it has said of it; null: nothing. */
	private isStranger = false;
	/** What the list `[[hba]]` says of it, once it has said who it is. */
	private admission: Admission | null = null;
	private found: Found | null = null;
	private minor = 0;
	private readonly said = new StartupMessage();

	/** `onOver` is called once, when this stops being a connection that logs in. */
	constructor(context: ClientContext, stream: Stream, address: string, onOver: (startup: Startup) => void) {
		this.context = context;
		this.stream = stream;
		this.address = address;
		this.onOver = onOver;
	}

	get user(): string {
		return this.said.user;
	}

	get database(): string {
		return this.said.database;
	}

	onDrain(): void {}

	onClose(): void {
		if (this.phase === Phase.Over) return;
		this.debug("client disconnected");
		this.over();
	}

	private over(): void {
		if (this.phase === Phase.Over) return;
		this.phase = Phase.Over;
		this.onOver(this);
	}

	onData(chunk: Buffer): void {
		if (this.phase >= Phase.Refused) return;
		if (this.phase === Phase.Checking) {
			this.fail(new PgError("FATAL", "08P01", "a message came before it was asked for"));
			return;
		}
		let rest = this.tail.add(chunk);
		this.early = false;
		while (rest !== null && this.phase < Phase.Refused) {
			if (this.isChecking) {
				this.tail.hold(rest);
				return;
			}
			rest = this.phase === Phase.Packets ? this.packet(rest) : this.answer(rest);
		}
		if (rest !== null) this.passOn(rest);
	}

	/** Gives the bytes behind the login to the stream's new owner, if the client was let in: they are its first request. */
	private passOn(rest: Buffer): void {
		const { owner } = this.stream;
		if (owner !== this) owner.onData(rest);
	}

	/** One packet without a type byte. @returns what is behind it, or null when nothing is (now) */
	private packet(chunk: Buffer): Buffer | null {
		if (chunk[0] === CLIENT_HELLO && this.mayBeginTls) {
			this.handshake(this.context.tls.clients!, chunk);
			return null;
		}
		if (chunk.length < 4) {
			this.tail.keep(chunk, 0, 4);
			return null;
		}
		const length = readInt32(chunk, 0);
		// PostgreSQL does not count the length word itself. A client that sends another length does not speak its protocol, or has
		// changed its mind: a Terminate, HTTP and the first bytes of TLS are lengths that cannot be.
		if (length < 8 || length > MAX_STARTUP_PACKET_LENGTH + 4) {
			if (this.early) this.fail(UNENCRYPTED);
			else this.leave("invalid length of startup packet");
			return null;
		}
		if (chunk.length < length) {
			this.tail.keep(chunk, 0, length);
			return null;
		}
		const code = readInt32(chunk, 4);
		const rest = chunk.length > length ? chunk.subarray(length) : null;
		switch (code) {
			case StartupCode.SSLRequest:
			case StartupCode.GSSENCRequest:
				return this.encryption(code, length, rest);
			case StartupCode.CancelRequest:
				if (length < 16) this.leave("CancelRequest");
				else this.cancel(readInt32(chunk, 8), Uint8Array.prototype.slice.call(chunk, 12, length));
				return null;
		}
		if (code >>> 16 !== 3) {
			this.fail(unsupported(code));
			return null;
		}
		this.startup(chunk, length, code & 0xffff);
		return rest;
	}

	/** Answers a request for encryption. @returns what is behind it, or null when nothing is (now) */
	private encryption(code: StartupCode, length: number, rest: Buffer | null): Buffer | null {
		const again = code === StartupCode.SSLRequest ? this.sslAsked : this.gssAsked;
		if (again || length !== 8) {
			this.fail(unsupported(code));
			return null;
		}
		const { clients } = this.context.tls;
		if (code === StartupCode.SSLRequest && clients !== null && !this.isUnix) {
			// Somebody in the middle could have put it there: nothing that came in plain text is taken for what TLS protects.
			if (rest !== null) this.fail(UNENCRYPTED);
			else {
				this.stream.writeAll(YES);
				this.handshake(clients, null);
			}
			return null;
		}
		if (code === StartupCode.SSLRequest) this.sslAsked = true;
		else this.gssAsked = true;
		this.stream.writeAll(NO);
		this.early = rest !== null;
		return rest;
	}

	/** PostgreSQL has no TLS over its Unix socket either. */
	private get isUnix(): boolean {
		return this.address === "unix";
	}

	/** TLS may begin without SSLRequest: with the connection's first byte only. */
	private get mayBeginTls(): boolean {
		const untouched = !this.sslAsked && !this.gssAsked && this.identity === null;
		return untouched && this.context.tls.clients !== null && !this.isUnix;
	}

	/** Has TLS begin. @param first its first bytes, where they have come already */
	private handshake(identity: TlsIdentity, first: Buffer | null): void {
		const { stream, context } = this;
		this.phase = Phase.Handshake;
		this.identity = identity;
		// Neither is for an encrypted connection: PostgreSQL does not know them there.
		this.sslAsked = true;
		this.gssAsked = true;
		const done = (outcome: Secured | string) => this.onHandshake(outcome);
		if (first === null) acceptTls(stream, identity, context.handlers, done);
		else acceptDirectTls(stream, first, identity, context.handlers, done);
	}

	private onHandshake(outcome: Secured | string): void {
		if (this.phase !== Phase.Handshake) return;
		if (typeof outcome !== "string") {
			this.phase = Phase.Packets;
			return;
		}
		// Nothing is said to the client but what TLS itself has told it.
		this.context.log.info(`TLS handshake failed: ${outcome} [${this.address}]`, this.fields);
		this.stream.end();
		this.over();
	}

	/**
	 * Passes a CancelRequest on. As with PostgreSQL, the end of the connection says that it has done what it can: it does not hit
	 * what the client sends afterwards.
	 */
	private cancel(pid: number, secret: Uint8Array): void {
		this.phase = Phase.Cancelling;
		this.context.cancel(pid, secret, () => this.leave("CancelRequest"));
	}

	private startup(chunk: Buffer, end: number, minor: number): void {
		const { said } = this;
		const wrong = said.read(chunk, end);
		if (wrong !== null) {
			this.fail(wrong);
			return;
		}
		// 3.1 does not exist; whoever asks for it gets 3.0.
		this.minor = minor >= NEWEST_MINOR ? NEWEST_MINOR : 0;
		if (minor > NEWEST_MINOR || said.unknown.length > 0)
			this.stream.writeAll(negotiateProtocolVersion(this.minor, said.unknown));
		const needsTls = this.context.general.tls_client_required && this.identity === null && !this.isUnix;
		if (needsTls) this.fail(TLS_ONLY);
		else this.authenticate();
	}

	/** There is no room for it, which is logged once a minute where it is found out. */
	private turnAway(error: PgError): void {
		const pool = this.context.find(this.user, this.database)?.cluster.first;
		if (pool !== undefined) pool.counters[Stat.errors]!++;
		if (this.context.log.debugs)
			this.context.log.debug(`login failed: ${error.message} [${this.address}]`, this.fields);
		this.end(error);
	}

	get isAdmin(): boolean {
		const admin = this.context.admin;
		return this.database === admin.name && this.user === admin.user;
	}

	private authenticate(): void {
		const { context } = this;
		const time = now();
		const noSeat = this.isAdmin ? null : (this.refusal ?? context.seats.refusal(this, time));
		const refusal = noSeat ?? context.seats.barred(this, time);
		if (refusal !== null) {
			this.turnAway(refusal);
			return;
		}
		this.admission = admit(context, this, this.identity !== null);
		const { refusal: forbidden } = this.admission;
		if (forbidden !== null) {
			this.refuse(forbidden.message, forbidden);
			return;
		}
		// As who is refused by the list, whoever is another learns nothing of users, and has no server asked.
		const other = judgePeer(this.admission, this.user, () => this.stream.systemUser);
		if (other !== null) {
			this.refuse(other, notPeer(this));
			return;
		}
		const user = this.isAdmin ? null : (context.find(this.user, this.database)?.user ?? null);
		const isOurs = this.isAdmin || (user !== null && user.learned !== true);
		const mayBeThere = context.wildcard || context.general.auth_query_user !== undefined;
		if (isOurs || !mayBeThere) this.prove(isOurs ? user : null);
		else this.lookUp();
	}

	/** Asks a server for a user whom the configuration does not have. */
	private lookUp(): void {
		this.isStranger = true;
		this.check(this.context.lookUp(this.user, this.database), (answer) => {
			if ("sqlstate" in answer) {
				this.fail(new PgError("FATAL", answer.sqlstate, answer.message));
				return;
			}
			this.found = answer.found;
			const { user: name, database } = this;
			this.prove(answer.found === null ? null : { ...answer.found, name, database });
		});
	}

	/** Has the client prove who it is. @param user null: the admin, or nobody whom we know */
	private prove(user: User | null): void {
		const { context, identity, isAdmin } = this;
		const admission = this.admission!;
		const { entry } = admission;
		const shown = judgeShown(user, entry, this, identity, this.stream.secured?.names ?? null);
		if (shown !== null) {
			if ("wrong" in shown) this.refuse(shown.wrong, shown.error);
			else {
				this.shown = shown.by;
				this.letIn();
			}
			return;
		}
		const passing = user === null && !isAdmin ? context.general.passthrough_auth : "disabled";
		if (passing !== "disabled") {
			const isSafe = passing.startsWith("enabled_plain") || identity !== null || this.isUnix;
			if (isSafe) this.begin(new PassedLogin((password) => this.pass(password)));
			else this.fail(TLS_TO_PASS);
			return;
		}
		const account = isAdmin ? { passwords: [context.admin.password] } : user;
		const endPoint = identity?.endPoint ?? null;
		const method = methodOf(admission, user, isAdmin);
		const asker = entry === null ? undefined : `method ${entry.method}`;
		this.begin(new ClientLogin(method, this.user, account, context.scram, endPoint, asker));
	}

	private begin(login: ClientLogin | PassedLogin): void {
		this.login = login;
		this.proceed(login.start());
	}

	/** Has a server judge what the client has said. */
	private async pass(password: string): Promise<AuthRequest> {
		this.isStranger = true;
		const answer = await this.context.lookUp(this.user, this.database, password);
		if ("sqlstate" in answer) return { kind: "error", error: new PgError("FATAL", answer.sqlstate, answer.message) };
		this.found = answer.found;
		if (answer.found !== null) return { kind: "ok", saslFinal: null };
		// The server was asked all the same.
		if (this.isOver) this.context.seats.failed(this, now());
		return { kind: "refused", reason: answer.reason ?? "there is no such database" };
	}

	/** One answer to an Authentication request. @returns the bytes behind it, or null when there are none (now) */
	private answer(chunk: Buffer): Buffer | null {
		if (chunk.length < HEADER) {
			this.tail.keep(chunk, 0, HEADER);
			return null;
		}
		const length = readInt32(chunk, 1);
		if (chunk[0] === Frontend.Terminate) {
			this.leave("client disconnected");
			return null;
		}
		if (chunk[0] !== Frontend.Password || length < 4 || length > MAX_AUTH_TOKEN_LENGTH) {
			const problem =
				chunk[0] === Frontend.Password
					? "invalid message length"
					: `expected password response, got message type ${chunk[0]}`;
			this.fail(new PgError("FATAL", "08P01", problem));
			return null;
		}
		if (chunk.length < length + 1) {
			this.tail.keep(chunk, 0, length + 1);
			return null;
		}
		const body = chunk.subarray(HEADER, length + 1);
		const rest = chunk.length > length + 1 ? chunk.subarray(length + 1) : null;
		const outcome = this.login!.step(body);
		if (outcome instanceof Promise) {
			if (rest !== null) this.tail.hold(rest);
			this.check(outcome, (request) => this.proceed(request));
			return null;
		}
		this.proceed(outcome);
		return rest;
	}

	/** Goes on with what `outcome` comes to; nothing may come meanwhile. What has come with the message before waits. */
	private check<T>(outcome: Promise<T>, then: (outcome: T) => void): void {
		this.phase = Phase.Checking;
		this.context.contain.when(this.stream, outcome, (found) => {
			if (this.isOver) return;
			const rest = this.tail.bytes > 0 ? this.tail.take() : null;
			this.phase = Phase.Login;
			then(found);
			if (rest === null) return;
			if (this.isOver) this.passOn(rest);
			else if (this.isChecking) this.tail.hold(rest);
			else this.onData(rest);
		});
	}

	private get isChecking(): boolean {
		return this.phase === Phase.Checking;
	}

	private get isOver(): boolean {
		return this.phase === Phase.Over;
	}

	private proceed(request: AuthRequest): void {
		switch (request.kind) {
			case "ask":
				this.phase = Phase.Login;
				this.stream.writeAll(authentication(request.code as number, request.body));
				break;
			case "refused":
				this.refuse(request.reason);
				break;
			case "error":
				this.fail(request.error);
				break;
			case "ok":
				if (request.saslFinal !== null) this.stream.out.addAll(authentication(Auth.SASLFinal, request.saslFinal));
				this.letIn();
		}
	}

	private letIn(): void {
		const { context, stream, user, database, address, minor } = this;
		const admin = this.isAdmin;
		const stale = readmit(this.admission!, context, this, this.identity, this.shown === "cert");
		const refusal = context.stopping && !admin ? STOPPING : stale;
		if (refusal !== null) {
			this.fail(refusal);
			return;
		}
		if (this.found !== null && !this.hasPools(this.found)) {
			this.join(this.found);
			return;
		}
		// A reload may have taken the user away since the login began.
		const found = admin ? null : context.find(user, database);
		if (!admin && found === null) {
			this.refuse("the user left the configuration");
			return;
		}
		context.seats.proven(this, now());
		if (found !== null) {
			const seat = context.seats.take({ user, database, address }, found.spec, now());
			if (seat instanceof PgError) {
				this.turnAway(seat);
				return;
			}
			stream.counted = seat;
		}
		stream.out.addAll(AUTHENTICATION_OK);
		this.over();
		const keys = this.login?.keys ?? null;
		if (found !== null && keys !== null) context.onProven(found.user, keys);
		if (found === null) context.openAdmin(stream, address, this.said.parameters, minor);
		else {
			const parameters = context.sets.of(this.said.parameters);
			const Kind = found.cluster.shards.length > 1 ? ShardedClient : Client;
			const client = new Kind(context, stream, found.cluster, found.router, {
				account: found.user,
				minor,
				parameters,
				hints: this.said.hints,
				address,
				auth: this.login?.auth ?? this.shown ?? "",
			});
			stream.owner = client;
			client.begin();
		}
	}

	/** Whether there are pools already for the user who has logged in by what was found, and they log in to servers just so. */
	private hasPools({ passwords, password_hash }: Found): boolean {
		const user = this.context.find(this.user, this.database)?.user;
		return user?.password_hash === password_hash && user?.passwords.join() === passwords.join();
	}

	/** The user who has logged in gets pools. */
	private join(found: Found): void {
		this.check(this.context.join(this.user, this.database, found, this.login?.keys ?? null), (refusal) => {
			// Should another log-in have changed them meanwhile, they are no worse for this one.
			this.found = null;
			if (refusal === null) this.letIn();
			else this.fail(new PgError("FATAL", refusal.sqlstate, refusal.message));
		});
	}

	/** For the log: user and database, once it has said who it is. */
	private get fields(): LogFields {
		const { user, database, address } = this;
		return user === "" ? { address } : { user, database, address };
	}

	/**
	 * Sends 28000 with one text for every cause, so that nobody learns which users there are; the log has the true cause.
	 * @param error what is said instead, of a cause that has nothing to do with users
	 */
	private refuse(reason: string, error = wrongPassword(this)): void {
		const { user, database, address, context, admission } = this;
		const why = admission?.entry ? `${reason} (${admission.entry.place})` : reason;
		context.log.warn(`user "${user}" and database "${database}" auth error: ${why} [${address}]`, this.fields);
		if (this.isStranger) context.doubt(user, database);
		const delay = context.seats.failed(this, now());
		if (delay === 0) {
			this.end(error);
			return;
		}
		this.phase = Phase.Refused;
		context.contain.later(delay, this.stream, () => this.isOver || this.end(error));
	}

	fail(error: PgError): void {
		if (this.phase === Phase.Over) return;
		this.context.log.info(`login failed: ${error.message} [${this.address}]`, this.fields);
		this.end(error);
	}

	private end(error: PgError): void {
		this.stream.writeAll(errorResponse(error, "ends"));
		this.stream.end();
		this.over();
	}

	/**
	 * Ends without a word. PostgreSQL answers a whole StartupMessage, and to what comes before it nothing but SSLRequest and
	 * GSSENCRequest: drivers that change their mind would take an ErrorResponse for one of their program's, and a port scanner
	 * is told nothing. For the log it is no event either: anybody may do it, as often as he likes.
	 */
	private leave(reason: string): void {
		this.debug(reason);
		this.stream.end();
		this.over();
	}

	private debug(reason: string): void {
		if (this.context.log.debugs)
			this.context.log.debug(`left before logging in: ${reason} [${this.address}]`, this.fields);
	}

	/** Whoever has not logged in when the process shuts down does not get in. */
	shutDown(): void {
		if (this.phase === Phase.Packets || this.phase === Phase.Handshake) this.leave("shutdown");
		else this.fail(STOPPING);
	}

	/** The time to log in is over: closes without an ErrorResponse, as PgDog does. */
	expire(): void {
		if (this.phase === Phase.Over) return;
		this.context.log.info(`login timeout [${this.address}]`, this.fields);
		this.stream.terminate();
		this.over();
	}
}

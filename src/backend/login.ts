// Opens one server connection and logs in: StartupMessage, whatever authentication the server asks for, its parameters
// and its key. The Server exists once ReadyForQuery has come; before that there is nothing to lend.
// Called by pool/; PostgreSQL docs, "Start-up".

import type { ScramCache } from "../auth/scram-keys.ts";
import { type ServerCredentials, ServerLogin } from "../auth/server-login.ts";
import { startTimer } from "../contain.ts";
import { asPgError, PgError } from "../errors.ts";
import { connect, type ServerDialling, unreachable } from "../net/connect.ts";
import { NoDescriptor } from "../net/descriptors.ts";
import type { Names } from "../net/names.ts";
import type { Stream, StreamOwner } from "../net/stream.ts";
import { Backend } from "../wire/codes.ts";
import { readError } from "../wire/error-response.ts";
import { eachMessage, endOfString, HEADER, readInt32, Tail } from "../wire/frame.ts";
import { authResponse, startupMessage } from "../wire/frontend-messages.ts";
import { Reports } from "./reports.ts";
import { Server, type ServerHome } from "./server.ts";

/** A login has no message longer than this; a guess, generous. */
const MESSAGE_LIMIT = 1 << 20;

/** SQLSTATE "insufficient_resources": this process has too few descriptors, whatever the server has. */
export const OUT_OF_DESCRIPTORS = "53000";

export interface LoginOptions extends ServerDialling {
	/** A name or an address, or the folder of a Unix socket. */
	readonly host: string;
	readonly port: number;
	readonly names: Names;
	readonly database: string;
	readonly user: string;
	readonly credentials: ServerCredentials;
	/** Parameters of the StartupMessage beside user and database. */
	readonly startup: Readonly<Record<string, string>>;
	/** For connecting and logging in together, ms. */
	readonly timeout: number;
	readonly cache: ScramCache;
	/** The server has taken the password, whatever it says afterwards. */
	readonly onLetIn?: () => void;
}

/**
 * A server that is logged in and idle.
 * @throws PgError what the server said; 08001 when it cannot be reached or does not speak the protocol; `OUT_OF_DESCRIPTORS`
 */
export async function login(options: LoginOptions, home: ServerHome): Promise<Server> {
	const attempt = new Login(options, home);
	const started = performance.now();
	try {
		await attempt.connect();
	} catch (error) {
		// This process has no descriptor left: the server may be as well as can be.
		if (error instanceof NoDescriptor) throw new PgError("FATAL", OUT_OF_DESCRIPTORS, unreachable(options, error));
		options.names.distrust(options.host);
		throw new PgError("FATAL", "08001", unreachable(options, error));
	}
	attempt.begin();
	const left = Math.max(1, options.timeout - (performance.now() - started));
	const timer = startTimer(left, () => attempt.fail(new PgError("FATAL", "08001", "connect timeout")));
	try {
		return await attempt.outcome;
	} finally {
		clearTimeout(timer);
	}
}

class Login implements StreamOwner {
	private readonly promise = Promise.withResolvers<Server>();
	readonly outcome = this.promise.promise;
	private readonly options: LoginOptions;
	private readonly home: ServerHome;
	private auth!: ServerLogin;
	private readonly tail = new Tail();
	private readonly reports: Reports;
	private stream: Stream | null = null;
	private address = "";
	private pid = 0;
	private secret: Uint8Array = new Uint8Array(0);
	/** AuthenticationOk has come, and with SCRAM the server has proved that it knows the password. */
	private letIn = false;
	private over = false;

	constructor(options: LoginOptions, home: ServerHome) {
		this.options = options;
		this.home = home;
		this.reports = new Reports(home.sets);
		// A failure before anyone waits must not count as unhandled.
		this.outcome.catch(() => {});
	}

	/** Connects to the first of the host's addresses that takes it; one that says nothing leaves the others their share of time. */
	async connect(): Promise<void> {
		const { options } = this;
		const { host, port, timeout } = options;
		const end = performance.now() + timeout;
		const addresses = await options.names.addresses(host, timeout);
		for (const [i, address] of addresses.entries()) {
			const share = Math.max(1, (end - performance.now()) / (addresses.length - i));
			try {
				this.stream = await connect({ host: address, port, name: host }, share, this, options);
				this.address = address;
				return;
			} catch (error) {
				if (i === addresses.length - 1 || error instanceof NoDescriptor) throw error;
			}
		}
	}

	begin(): void {
		const { user, database, startup, credentials, cache } = this.options;
		const endPoint = this.stream!.secured?.endPoint ?? null;
		this.auth = new ServerLogin(user, credentials, cache, endPoint);
		this.stream!.writeAll(startupMessage({ user, database, ...startup }));
	}

	onDrain(): void {}

	onData(chunk: Buffer): void {
		if (this.over) return;
		const isProtocol = eachMessage(this.tail, chunk, MESSAGE_LIMIT, (whole, at, next) => {
			this.onMessage(whole, at, next);
			return !this.over;
		});
		if (!isProtocol) this.fail(new PgError("FATAL", "08001", "the server does not speak PostgreSQL's protocol"));
	}

	private onMessage(chunk: Buffer, start: number, end: number): void {
		switch (chunk[start]) {
			case Backend.Authentication:
				// The body is copied: a step that derives keys outlives this event.
				this.onAuthentication(Buffer.from(chunk.subarray(start + HEADER, end)));
				break;
			case Backend.ParameterStatus: {
				const stop = endOfString(chunk, start + HEADER, end);
				if (stop < 0) break;
				if (!this.reports.add(chunk.utf8Slice(start + HEADER, stop), chunk.utf8Slice(stop + 1, end - 1)))
					this.fail(new PgError("FATAL", "08001", "the server reported too many settings"));
				break;
			}
			case Backend.BackendKeyData:
				this.pid = readInt32(chunk, start + HEADER);
				this.secret = Uint8Array.prototype.slice.call(chunk, start + HEADER + 4, end);
				break;
			case Backend.ErrorResponse:
				this.fail(readError(chunk, start, end));
				break;
			case Backend.NoticeResponse:
			case Backend.NegotiateProtocolVersion:
				break;
			case Backend.ReadyForQuery:
				if (this.letIn) this.finish();
				else this.fail(new PgError("FATAL", "08001", "the server is ready before it has let us in"));
				break;
			default:
				this.fail(new PgError("FATAL", "08001", "the server does not speak PostgreSQL's protocol"));
		}
	}

	private onAuthentication(body: Buffer): void {
		const step = this.auth.step(body);
		// A bug costs this attempt to log in, as an error does.
		if (step instanceof Promise) step.then((later) => this.onStep(later)).catch((bug) => this.fail(asPgError(bug)));
		else this.onStep(step);
	}

	private onStep(step: Awaited<ReturnType<ServerLogin["step"]>>): void {
		if (this.over) return;
		if (step.kind === "ok") {
			this.letIn = true;
			this.options.onLetIn?.();
		} else if (step.kind === "answer") this.stream?.writeAll(authResponse(step.body));
		else if (step.kind === "error") this.fail(step.error);
	}

	private finish(): void {
		this.over = true;
		const { stream } = this;
		if (stream === null) return;
		const server = new Server(this.home);
		server.stream = stream;
		stream.owner = server;
		server.address = this.address;
		server.pid = this.pid;
		server.secret = this.secret;
		server.session.reports.now = this.reports.now;
		this.promise.resolve(server);
	}

	fail(error: PgError): void {
		if (this.over) return;
		this.over = true;
		this.stream?.terminate();
		this.promise.reject(error);
	}

	onClose(error: Error | undefined): void {
		const reason = error?.message ?? "server closed the connection during the login";
		this.fail(new PgError("FATAL", "08001", reason));
	}
}

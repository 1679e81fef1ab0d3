// A client that sends the bytes it is told to and shows the messages it gets: for tests of what no driver would do. It logs in
// by its own small implementation. Every wait has an end and says then what had come so far.
//
//   await using client = await RawClient.connect({ port, user: "pgdog", password: "pgdog", database: "pgdog" });
//   const { rows, status } = await client.query("SELECT 1");

import { createHash, createHmac, pbkdf2Sync, randomBytes } from "node:crypto";
import { Body, columnNames, cut, dataRow, errorFields, type Message } from "./message.ts";
import { describeMessage } from "./transcript.ts";
import { within } from "./until.ts";
import { frontend } from "./wire-frames.ts";

export interface RawClientOptions {
	/** Default 127.0.0.1. */
	host?: string;
	port?: number;
	/** Path of a Unix socket, instead of host and port. */
	unix?: string;
	user?: string;
	/** Default: as the server does, the user's name. */
	database?: string;
	password?: string;
	/** More startup parameters. */
	parameters?: Record<string, string>;
	/** Protocol version, major << 16 | minor. Default 3.0. */
	version?: number;
	/** Milliseconds that each wait may last. Default 10,000. */
	timeout?: number;
	/** Begin TLS by an SSLRequest, before the login. */
	tls?: Tls;
	/** Begin TLS with the first byte. */
	directTls?: Tls;
}

/** PEM texts; nothing of the server's is verified. `ALPNProtocols`: as on the wire; default "postgresql". */
export interface Tls {
	cert?: string;
	key?: string;
	minVersion?: number;
	maxVersion?: number;
	ALPNProtocols?: Buffer;
}

export interface QueryResult {
	columns: string[];
	rows: (string | null)[][];
	/** Command tags, one for each statement. */
	tags: string[];
	/** ErrorResponses, by field letter. */
	errors: Record<string, string>[];
	notices: Record<string, string>[];
	/** Transaction status of the ReadyForQuery; "" when the connection was closed instead. */
	status: string;
	/** All messages, in order. */
	messages: Message[];
}

export class RawClient implements AsyncDisposable {
	/** All messages ever received. */
	readonly received: Message[] = [];
	/** Values of ParameterStatus, the newest of each. */
	readonly parameters: Record<string, string> = {};
	/** From BackendKeyData; 0 and empty before. */
	backendPid = 0;
	backendKey: Buffer = Buffer.alloc(0);
	/** true when the other side has ended the connection. */
	ended = false;
	/** A wait was given up: what comes next may be the answer to something before it. */
	late = false;
	readonly #timeout: number;
	#socket: Bun.Socket<undefined> | undefined;
	#buffer: Buffer = Buffer.alloc(0);
	#raw = false;
	/** TLS reads what comes. */
	#deaf = false;
	#read = 0;
	#broken: Error | undefined;
	#outgoing: Buffer[] = [];
	#wake: (() => void)[] = [];

	private constructor(timeout: number) {
		this.#timeout = timeout;
	}

	/** Opens the socket only: nothing is sent. */
	static async open(options: RawClientOptions): Promise<RawClient> {
		const client = new RawClient(options.timeout ?? 10_000);
		const socket = {
			data: (_: unknown, chunk: Buffer) => (client.#deaf ? undefined : client.#onData(chunk)),
			drain: () => client.#flush(),
			close: () => client.#onEnd(),
			end: () => client.#onEnd(),
			error: () => client.#onEnd(),
		};
		const opening = options.unix
			? Bun.connect({ unix: options.unix, socket })
			: Bun.connect({ hostname: options.host ?? "127.0.0.1", port: options.port ?? 5432, socket });
		client.#socket = (await within(opening, "the connection", client.#timeout)) as Bun.Socket<undefined>;
		if (options.directTls) await client.startTls(options.directTls);
		client.#flush();
		return client;
	}

	/** Goes on with TLS, as its client. Throws when the handshake fails. @returns the certificate that the server has shown */
	async startTls(tls: Tls = {}): Promise<{ raw: Buffer; protocol: string }> {
		const { promise, resolve, reject } = Promise.withResolvers<void>();
		const socket = {
			data: (_: unknown, chunk: Buffer) => this.#onData(chunk),
			drain: () => this.#flush(),
			handshake: (_: unknown, ok: boolean, error: Error | null) =>
				ok || /CERT|self.signed|issuer/i.test(`${(error as { code?: string } | null)?.code} ${error?.message}`)
					? resolve()
					: reject(error ?? new Error("the handshake failed")),
			close: () => {
				reject(new Error("the connection ended in the handshake"));
				this.#onEnd();
			},
			end: () => this.#onEnd(),
			error: () => this.#onEnd(),
		};
		const options = { rejectUnauthorized: false, ALPNProtocols: Buffer.from("\x0apostgresql"), ...tls };
		const upgraded = this.#socket!.upgradeTLS({ tls: options, data: undefined, socket });
		// The plain one hears of the ciphertext.
		this.#deaf = true;
		this.#socket = upgraded[1] as Bun.Socket<undefined>;
		await within(promise, "the handshake", this.#timeout);
		const encrypted = this.#socket as unknown as {
			getPeerCertificate(): { raw: Buffer };
			getTLSVersion(): string;
		};
		return { raw: encrypted.getPeerCertificate().raw, protocol: encrypted.getTLSVersion() };
	}

	/** SSLRequest, its answer, and TLS. Throws when the answer is not S. */
	async requestTls(tls: Tls = {}): Promise<{ raw: Buffer; protocol: string }> {
		this.send(frontend.sslRequest());
		const answer = await this.nextByte();
		if (answer !== "S") throw new Error(`the answer to SSLRequest is ${answer}`);
		return this.startTls(tls);
	}

	/** Opens and logs in, up to the first ReadyForQuery. Throws the server's ErrorResponse as text. */
	static async connect(options: RawClientOptions): Promise<RawClient> {
		const client = await RawClient.open(options);
		try {
			if (options.tls) await client.requestTls(options.tls);
			await client.login(options);
		} catch (error) {
			client.close();
			throw error;
		}
		return client;
	}

	/** Sends the StartupMessage and answers every authentication request, up to ReadyForQuery. */
	async login(options: RawClientOptions): Promise<void> {
		const user = options.user ?? "postgres";
		const parameters: Record<string, string> = { user, ...options.parameters };
		if (options.database !== undefined) parameters.database = options.database;
		this.send(frontend.startupMessage(parameters, options.version));
		const password = options.password ?? "";
		let scram: Scram | undefined;
		for (;;) {
			const message = await this.next();
			if (message.code === "E") throw new LoginError(errorFields(message.body));
			if (message.code === "Z") return;
			if (message.code !== "R") continue;
			const body = new Body(message.body);
			const kind = body.int32();
			if (kind === 0) continue;
			if (kind === 3) this.send(frontend.passwordMessage(password));
			else if (kind === 5) this.send(frontend.passwordMessage(md5Password(user, password, body.bytes(4))));
			else if (kind === 10) {
				scram = new Scram(password);
				this.send(frontend.saslInitialResponse("SCRAM-SHA-256", scram.first()));
			} else if (kind === 11 && scram) {
				this.send(frontend.saslResponse(scram.final(body.bytes(body.left).toString())));
			} else if (kind === 12 && scram) scram.check(body.bytes(body.left).toString());
			else throw new Error(`authentication request ${kind} is not known to the test client`);
		}
	}

	/** Sends all of these bytes, however slowly the other side reads. */
	send(...parts: Uint8Array[]): void {
		for (const part of parts) if (part.length > 0) this.#outgoing.push(Buffer.from(part));
		this.#flush();
	}

	/** Sends in two writes, cut at `at`, with a pause in which the first one is surely read. */
	async sendSplit(bytes: Uint8Array, at: number, pause = 5): Promise<void> {
		this.send(bytes.subarray(0, at));
		await Bun.sleep(pause);
		this.send(bytes.subarray(at));
	}

	/** The next message. Throws when the connection ends first, or after the timeout. */
	async next(what = "a message"): Promise<Message> {
		await this.#wait(() => this.#read < this.received.length, what);
		return this.received[this.#read++] as Message;
	}

	/** The next messages up to the first of type `code`, that one included. */
	async until(code: string): Promise<Message[]> {
		const from = this.#read;
		for (;;) {
			const message = await this.next(`a message of type ${code}`);
			if (message.code === code) return this.received.slice(from, this.#read);
		}
	}

	/** Bytes that are no message: the one-byte answer to SSLRequest and GSSENCRequest. */
	async nextByte(): Promise<string> {
		this.#raw = true;
		try {
			await this.#wait(() => this.#buffer.length > 0, "one byte");
			const byte = String.fromCharCode(this.#buffer[0] ?? 0);
			this.#buffer = this.#buffer.subarray(1);
			return byte;
		} finally {
			this.#raw = false;
			this.#cut();
		}
	}

	/** Messages that have come and were not asked for yet. Waits for nothing. */
	pending(): Message[] {
		const messages = this.received.slice(this.#read);
		this.#read = this.received.length;
		return messages;
	}

	/** Resolves when the other side has ended the connection, with the messages that came before. */
	get closed(): Promise<Message[]> {
		return (async () => {
			const from = this.#read;
			await within(
				this.#until(() => this.ended),
				"the connection to be closed",
				this.#timeout,
				() => this.#seen(),
			);
			this.#read = this.received.length;
			return this.received.slice(from);
		})();
	}

	/** A simple Query, and all that comes up to ReadyForQuery or the end of the connection. */
	query(sql: string): Promise<QueryResult> {
		this.send(frontend.query(sql));
		return this.result();
	}

	/** Parse, Bind, Describe, Execute, Sync with text parameters. */
	extended(sql: string, values: (string | null)[] = []): Promise<QueryResult> {
		this.send(
			frontend.parse(sql),
			frontend.bind({ values }),
			frontend.describe("P"),
			frontend.execute(),
			frontend.sync(),
		);
		return this.result();
	}

	/** Reads up to ReadyForQuery or the end of the connection, and sorts what came. */
	async result(): Promise<QueryResult> {
		const result: QueryResult = { columns: [], rows: [], tags: [], errors: [], notices: [], status: "", messages: [] };
		for (;;) {
			await this.#wait(() => this.#read < this.received.length || this.ended, "ReadyForQuery", true);
			const message = this.received[this.#read];
			if (!message) {
				// Who asks on and on lets others go on, a test's time limit among them.
				await new Promise<void>((resolve) => setImmediate(resolve));
				return result;
			}
			this.#read++;
			result.messages.push(message);
			if (message.code === "T") result.columns = columnNames(message.body);
			else if (message.code === "D") result.rows.push(dataRow(message.body));
			else if (message.code === "C") result.tags.push(new Body(message.body).cstring());
			else if (message.code === "E") result.errors.push(errorFields(message.body));
			else if (message.code === "N") result.notices.push(errorFields(message.body));
			else if (message.code === "Z") {
				result.status = message.body.toString("latin1");
				return result;
			}
		}
	}

	/** Stops reading: the kernel's buffers fill and the other side must wait. */
	pause(): void {
		this.#socket?.pause();
	}

	resume(): void {
		this.#socket?.resume();
	}

	/** Ends the connection as a client that vanishes: no Terminate. */
	close(): void {
		this.#socket?.end();
	}

	/** Ends the connection with a TCP reset. */
	reset(): void {
		this.#socket?.terminate();
	}

	/** Terminate, then the end. */
	async [Symbol.asyncDispose](): Promise<void> {
		if (!this.ended) this.send(frontend.terminate());
		this.close();
	}

	#flush(): void {
		if (!this.#socket) return;
		while (this.#outgoing.length > 0) {
			const chunk = this.#outgoing[0] as Buffer;
			const taken = this.#socket.write(chunk);
			if (taken < 0) {
				this.#outgoing = [];
				return;
			}
			if (taken < chunk.length) {
				this.#outgoing[0] = chunk.subarray(taken);
				return;
			}
			this.#outgoing.shift();
		}
	}

	#onData(chunk: Buffer): void {
		this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
		this.#cut();
	}

	#cut(): void {
		if (!this.#raw) {
			try {
				const { messages, rest } = cut(this.#buffer);
				this.#buffer = Buffer.from(rest);
				for (const message of messages) this.#take(message);
			} catch (error) {
				this.#broken = error as Error;
			}
		}
		this.#notify();
	}

	#take(message: Message): void {
		this.received.push(message);
		if (message.code === "S") {
			const body = new Body(message.body);
			this.parameters[body.cstring()] = body.cstring();
		} else if (message.code === "K") {
			const body = new Body(message.body);
			this.backendPid = body.int32();
			this.backendKey = Buffer.from(body.bytes(body.left));
		}
	}

	#onEnd(): void {
		this.ended = true;
		this.#notify();
	}

	#notify(): void {
		for (const wake of this.#wake.splice(0)) wake();
	}

	async #until(condition: () => boolean): Promise<void> {
		while (!condition()) {
			if (this.#broken) throw this.#broken;
			await new Promise<void>((resolve) => this.#wake.push(resolve));
		}
	}

	async #wait(condition: () => boolean, what: string, endIsFine = false): Promise<void> {
		const done = this.#until(() => condition() || this.ended);
		this.late = true;
		await within(done, what, this.#timeout, () => this.#seen());
		this.late = false;
		if (!condition() && !endIsFine) throw new Error(`the connection ended before ${what}; ${this.#seen()}`);
	}

	#seen(): string {
		const last = this.received.slice(-12).map((message) => describeMessage(message));
		const half = this.#buffer.length > 0 ? ` and ${this.#buffer.length} bytes of no whole message` : "";
		return `received ${this.received.length} messages${half}; the last:\n${last.join("\n")}`;
	}
}

/** The server's refusal of a login. */
export class LoginError extends Error {
	readonly fields: Record<string, string>;

	constructor(fields: Record<string, string>) {
		super(`${fields.S} ${fields.C}: ${fields.M}`);
		this.fields = fields;
	}
}

/** PostgreSQL docs, "Message Flow", "Start-up", AuthenticationMD5Password. */
function md5Password(user: string, password: string, salt: Buffer): string {
	const inner = createHash("md5").update(password).update(user).digest("hex");
	return `md5${createHash("md5").update(inner).update(salt).digest("hex")}`;
}

/** The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding. Passwords of ASCII only: no SASLprep. */
class Scram {
	readonly #password: string;
	readonly #nonce = randomBytes(18).toString("base64");
	#signature = "";

	constructor(password: string) {
		this.#password = password;
	}

	first(): string {
		return `n,,n=,r=${this.#nonce}`;
	}

	final(serverFirst: string): string {
		const fields = Object.fromEntries(serverFirst.split(",").map((field) => [field[0], field.slice(2)]));
		if (!fields.r?.startsWith(this.#nonce)) throw new Error("SCRAM: the server's nonce does not start with ours");
		const salted = pbkdf2Sync(this.#password, Buffer.from(fields.s ?? "", "base64"), Number(fields.i), 32, "sha256");
		const mac = (key: Buffer, data: string) => createHmac("sha256", key).update(data).digest();
		const clientKey = mac(salted, "Client Key");
		const storedKey = createHash("sha256").update(clientKey).digest();
		const withoutProof = `c=biws,r=${fields.r}`;
		const authMessage = `n=,r=${this.#nonce},${serverFirst},${withoutProof}`;
		const clientSignature = mac(storedKey, authMessage);
		const proof = Buffer.from(clientKey.map((byte, i) => byte ^ (clientSignature[i] ?? 0)));
		this.#signature = mac(mac(salted, "Server Key"), authMessage).toString("base64");
		return `${withoutProof},p=${proof.toString("base64")}`;
	}

	check(serverFinal: string): void {
		if (serverFinal !== `v=${this.#signature}`) throw new Error(`SCRAM: the server's proof is wrong: ${serverFinal}`);
	}
}

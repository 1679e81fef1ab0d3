// Our login at a PostgreSQL server, one step per Authentication message; the server chooses how.
// Called by backend/login.ts with message bodies (what follows the length); knows neither sockets nor settings.

import { PgError } from "../errors.ts";
import { asBuffer } from "./bytes.ts";
import { md5Response, md5Salted } from "./md5.ts";
import { SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramClient } from "./scram.ts";
import type { ScramCache, ScramKeys, ScramVerifier } from "./scram-keys.ts";

/**
 * What to log in with: passwords, tried one per connection, or keys that a client's proof gave (`ClientLogin.keys`; null: none
 * has yet). With the verifier that the keys are of, they are shown to no server that has another.
 * An MD5 hash does where the server asks for just that.
 */
export type ServerCredentials =
	| {
			readonly passwords: readonly string[];
			readonly passwordIndex?: number;
			/** A server that asks for no password is not logged in to: that would prove nothing. */
			readonly asProof?: boolean;
	  }
	| ProvenKeys
	| { readonly md5: string };

interface ProvenKeys {
	readonly keys: ScramKeys | null;
	readonly verifier?: ScramVerifier | undefined;
}

/** The server asks for a password, and no client has proven yet to have the keys. */
export const NO_KEYS = new PgError("FATAL", "28000", "no password supplied: no client has logged in by SCRAM yet");

/** The server lets in whoever comes. */
const UNASKED = new PgError("FATAL", "28000", "the server asked for no password, so it has checked none");

/** What to do next. `error`: close; `sqlstate` is ours and never 28P01, which only a server says. */
export type ServerStep =
	| { readonly kind: "ok" }
	/** Send this as the body of a message of type `p`. */
	| { readonly kind: "answer"; readonly body: Uint8Array }
	/** Nothing to send: the server goes on by itself. */
	| { readonly kind: "wait" }
	| { readonly kind: "error"; readonly error: PgError };

const enum Turn {
	/** Any request may come. */
	Start,
	/** A password was sent: AuthenticationOk is to come. */
	Answered,
	/** SASLContinue is to come. */
	SaslContinue,
	/** Keys are being derived; nothing may come. */
	Working,
	/** SASLFinal is to come. */
	SaslFinal,
	/** The server has proven itself: AuthenticationOk is to come. */
	SaslDone,
	Done,
}

const WAIT: ServerStep = { kind: "wait" };
const OK: ServerStep = { kind: "ok" };

/** The int32 of Authentication messages that we refuse, as libpq names the methods. */
const UNSUPPORTED: Readonly<Record<number, string>> = {
	2: "Kerberos V5 authentication not supported",
	6: "SCM credential authentication not supported",
	7: "GSSAPI authentication not supported",
	8: "GSSAPI authentication not supported",
	9: "SSPI authentication not supported",
};

export class ServerLogin {
	readonly #user: string;
	readonly #credentials: ServerCredentials;
	readonly #cache: ScramCache;
	readonly #endPoint: string | null;
	#turn = Turn.Start;
	#usedPassword = -1;
	#scram: ScramClient | null = null;

	/** @param endPoint what SCRAM can bind the login to (`tls-server-end-point`, base64); null: nothing */
	constructor(user: string, credentials: ServerCredentials, cache: ScramCache, endPoint: string | null = null) {
		this.#endPoint = endPoint;
		this.#user = user;
		this.#credentials = credentials;
		this.#cache = cache;
	}

	/** Which of the passwords the server was shown; -1 when none. After a 28P01 the next one may be tried. */
	get usedPassword(): number {
		return this.#usedPassword;
	}

	/** Takes the body of an Authentication message. At once unless keys have to be derived; the promise never rejects. */
	step(body: Uint8Array): ServerStep | Promise<ServerStep> {
		try {
			if (body.length < 4) throw broken("invalid Authentication message");
			return this.#on(asBuffer(body).readInt32BE(0), body.subarray(4));
		} catch (error) {
			return this.#fail(error);
		}
	}

	#on(code: number, rest: Uint8Array): ServerStep | Promise<ServerStep> {
		if (this.#turn === Turn.Working || this.#turn === Turn.Done) throw outOfTurn(code);
		switch (code) {
			case 0:
				// A server that began SASL and lets us in before it has shown its signature may be anyone.
				if (this.#scram !== null && this.#turn !== Turn.SaslDone) {
					throw new PgError("FATAL", "28000", "server did not complete authentication");
				}
				if (this.#turn === Turn.Start && "asProof" in this.#credentials) throw UNASKED;
				this.#turn = Turn.Done;
				return OK;
			case 3:
				return this.#answer(code, Turn.Answered, cString(this.#password()));
			case 5:
				if (rest.length !== 4) throw broken("invalid AuthenticationMD5Password message");
				return this.#answer(code, Turn.Answered, cString(this.#md5(rest)));
			case 10:
				return this.#answer(code, Turn.SaslContinue, this.#beginSasl(rest));
			case 11:
				if (this.#turn !== Turn.SaslContinue) throw outOfTurn(code);
				return this.#prove(rest);
			case 12:
				if (this.#turn !== Turn.SaslFinal) throw outOfTurn(code);
				this.#scram?.verify(rest);
				this.#turn = Turn.SaslDone;
				return WAIT;
			default:
				throw new PgError("FATAL", "0A000", UNSUPPORTED[code] ?? `authentication method ${code} not supported`);
		}
	}

	#md5(salt: Uint8Array): string {
		const credentials = this.#credentials;
		return "md5" in credentials ? md5Salted(credentials.md5, salt) : md5Response(this.#password(), this.#user, salt);
	}

	#answer(code: number, turn: Turn, body: Uint8Array): ServerStep {
		if (this.#turn !== Turn.Start) throw outOfTurn(code);
		this.#turn = turn;
		return { kind: "answer", body };
	}

	#beginSasl(mechanisms: Uint8Array): Uint8Array {
		const offered = asBuffer(mechanisms).toString("latin1").split("\0");
		const plus = this.#endPoint !== null && offered.includes(SCRAM_SHA_256_PLUS);
		if (!plus && !offered.includes(SCRAM_SHA_256)) {
			throw new PgError("FATAL", "0A000", "none of the server's SASL authentication mechanisms are supported");
		}
		// Fails before anything is sent: without a password there is nothing to prove.
		if (!("keys" in this.#credentials)) this.#password();
		else if (this.#credentials.keys === null) throw NO_KEYS;
		this.#scram = new ScramClient(plus ? this.#endPoint : null, this.#endPoint !== null);
		const first = this.#scram.first();
		const length = Buffer.alloc(4);
		length.writeInt32BE(first.length);
		return Buffer.concat([cString(plus ? SCRAM_SHA_256_PLUS : SCRAM_SHA_256), length, first]);
	}

	#prove(serverFirst: Uint8Array): ServerStep | Promise<ServerStep> {
		const scram = this.#scram as ScramClient;
		const { salt, iterations } = scram.challenge(serverFirst);
		const keys =
			"keys" in this.#credentials
				? this.#proven(this.#credentials, salt, iterations)
				: this.#cache.keys(this.#password(), salt, iterations);
		if (!(keys instanceof Promise)) return this.#finish(scram, keys);
		this.#turn = Turn.Working;
		return keys.then((derived) => this.#finish(scram, derived)).catch((error) => this.#fail(error));
	}

	#proven({ keys, verifier }: ProvenKeys, salt: Uint8Array, iterations: number): ScramKeys {
		if (keys === null) throw NO_KEYS;
		// A proof that cannot be right would count as a failed login there.
		if (verifier !== undefined && (iterations !== verifier.iterations || !asBuffer(salt).equals(verifier.salt)))
			throw new PgError("FATAL", "28000", "the server has another SCRAM verifier than password_hash");
		return keys;
	}

	#finish(scram: ScramClient, keys: ScramKeys): ServerStep {
		if (this.#turn === Turn.Done) throw outOfTurn(11);
		this.#turn = Turn.SaslFinal;
		return { kind: "answer", body: scram.final(keys) };
	}

	#password(): string {
		if ("md5" in this.#credentials)
			throw new PgError("FATAL", "28000", "server asked for a password, but only an MD5 hash is known");
		if ("keys" in this.#credentials) {
			if (this.#credentials.keys === null) throw NO_KEYS;
			throw new PgError("FATAL", "28000", "server asked for a password, but only SCRAM keys are known");
		}
		const index = this.#credentials.passwordIndex ?? 0;
		const password = this.#credentials.passwords[index];
		if (password === undefined || password === "") throw new PgError("FATAL", "28000", "no password supplied");
		this.#usedPassword = index;
		return password;
	}

	#fail(error: unknown): ServerStep {
		this.#turn = Turn.Done;
		if (error instanceof PgError) return { kind: "error", error };
		const message = error instanceof Error ? error.message : String(error);
		return { kind: "error", error: new PgError("FATAL", "XX000", `login failed: ${message}`) };
	}
}

function cString(text: string): Buffer {
	return Buffer.from(`${text}\0`, "utf8");
}

function broken(message: string): PgError {
	return new PgError("FATAL", "08P01", message);
}

function outOfTurn(code: number): PgError {
	return broken(`unexpected Authentication message ${code} from server`);
}

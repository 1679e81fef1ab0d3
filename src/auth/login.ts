// A client's login, one step per message: what to ask, and whether the answer lets it in.
// Called by login/startup.ts with message bodies (what follows the length); knows neither sockets, clocks nor settings.
//
//   let request = login.start();
//   while (request.kind === "ask") { send authentication(request.code, request.body); request = await login.step(answer); }
//
// A user who does not exist is asked the same questions and refused at the same point, after the same work, as one whose
// password is wrong: so every refusal but that of MD5 (which derives nothing) has cost one key derivation.

import { randomBytes } from "node:crypto";
import { PgError } from "../errors.ts";
import { asBuffer, cString, sameBytes } from "./bytes.ts";
import { isMd5Hash, md5Hash, md5Response, md5Salted } from "./md5.ts";
import { preparePassword } from "./saslprep.ts";
import { SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramServer } from "./scram.ts";
import {
	DEFAULT_ITERATIONS,
	type DerivedKeys,
	deriveKeys,
	type ScramCache,
	type ScramKeys,
	type ScramVerifier,
	type StoredKeys,
} from "./scram-keys.ts";
import { parseVerifier } from "./verifier.ts";

/** The setting `auth_type`. */
export type AuthType = "scram" | "md5" | "plain" | "trust";

/** The credentials of a user who exists; a `User` of the configuration fits. */
export interface Account {
	/** Any of them lets the client in. An empty one never does, as in PostgreSQL. */
	readonly passwords: readonly string[];
	/** A SCRAM verifier, or an MD5 hash. When there is one, it alone counts: `passwords` are then for the servers. */
	readonly password_hash?: string | undefined;
}

/** int32 of an Authentication message that wants an answer. PostgreSQL docs, "Message Formats". */
export const enum AuthCode {
	CleartextPassword = 3,
	MD5Password = 5,
	SASL = 10,
	SASLContinue = 11,
}

/** What to do next. `ask`: send the Authentication message and give its answer, a message of type `p`, to `step`. */
export type AuthRequest =
	| { readonly kind: "ask"; readonly code: AuthCode; readonly body: Uint8Array | undefined }
	/** Let it in: AuthenticationSASLFinal with `saslFinal` first when there is one, then AuthenticationOk. */
	| { readonly kind: "ok"; readonly saslFinal: Uint8Array | null }
	/** The credentials are wrong. `reason` is for the log only: the client must not learn it. */
	| { readonly kind: "refused"; readonly reason: string }
	/** The client broke the protocol, whoever it is: send the error, close. */
	| { readonly kind: "error"; readonly error: PgError };

const enum Turn {
	Start,
	/** A PasswordMessage is to come. */
	Password,
	/** A SASLInitialResponse is to come. */
	SaslInitial,
	/** A SASLResponse with client-first-message is to come, because the SASLInitialResponse had none. */
	SaslFirst,
	/** A SASLResponse with client-final-message is to come. */
	SaslFinal,
	/** A derivation is under way; nothing may come. */
	Working,
	Done,
}

/** Longest body of an answer, bytes: PG_MAX_AUTH_TOKEN_LENGTH and PG_MAX_SASL_MESSAGE_LENGTH in PostgreSQL. */
const MAX_PASSWORD_MESSAGE = 65535;
const MAX_SASL_MESSAGE = 1024;

const NO_SALT = Buffer.alloc(0);

export class ClientLogin {
	readonly #authType: AuthType;
	readonly #user: string;
	readonly #cache: ScramCache;
	readonly #exists: boolean;
	readonly #passwords: readonly string[];
	/** From `password_hash`; null also when that is no verifier, and then nothing matches. */
	readonly #verifier: ScramVerifier | null;
	/** `password_hash` when it is an MD5 hash. */
	readonly #md5: string | null;
	readonly #badHash: boolean;
	readonly #md5Salt: Buffer;
	readonly #endPoint: string | null;
	readonly #asker: string;
	#turn = Turn.Start;
	#scram: ScramServer | null = null;
	/** The client has chosen SCRAM-SHA-256-PLUS. */
	#plus = false;
	#keys: ScramKeys | null = null;
	#passwordIndex = -1;

	/**
	 * @param account null for an unknown user or database; one without password and hash is treated the same
	 * @param endPoint what SCRAM may bind the login to (`tls-server-end-point`, base64); null: nothing
	 * @param asker what has chosen `authType`, for the log
	 */
	constructor(
		authType: AuthType,
		user: string,
		account: Account | null,
		cache: ScramCache,
		endPoint: string | null = null,
		asker = `auth_type ${authType}`,
	) {
		this.#endPoint = endPoint;
		this.#asker = asker;
		this.#authType = authType;
		this.#user = user;
		this.#cache = cache;
		const hash = account?.password_hash;
		this.#verifier = hash === undefined ? null : parseVerifier(hash);
		this.#md5 = hash !== undefined && isMd5Hash(hash) ? hash : null;
		this.#badHash = hash !== undefined && this.#verifier === null && this.#md5 === null;
		this.#exists = account !== null && (hash !== undefined || account.passwords.length > 0);
		this.#passwords = hash === undefined ? (account?.passwords.filter((password) => password !== "") ?? []) : [];
		this.#md5Salt = authType === "md5" ? randomBytes(4) : NO_SALT;
	}

	/** How it is asked. */
	get auth(): AuthType {
		return this.#authType;
	}

	/** Keys of a client that has logged in with SCRAM, or by a verifier: they log in to a server that has the same verifier. */
	get keys(): ScramKeys | null {
		return this.#keys;
	}

	/** Index of the one of several passwords that the client has logged in with, counted without empty ones. Otherwise -1. */
	get passwordIndex(): number {
		return this.#passwordIndex;
	}

	start(): AuthRequest {
		switch (this.#authType) {
			case "trust":
				return this.#exists ? this.#ok(null) : this.#refuse();
			case "plain":
				return this.#ask(Turn.Password, AuthCode.CleartextPassword);
			case "md5":
				return this.#ask(Turn.Password, AuthCode.MD5Password, this.#md5Salt);
			case "scram":
				// Names, each ended by a NUL, and a NUL for the end of the list.
				return this.#ask(Turn.SaslInitial, AuthCode.SASL, Buffer.from(`${this.#mechanisms.join("\0")}\0\0`, "latin1"));
		}
	}

	/** The SASL mechanisms that the client may choose from, the best first. */
	get #mechanisms(): readonly string[] {
		return this.#endPoint === null ? [SCRAM_SHA_256] : [SCRAM_SHA_256_PLUS, SCRAM_SHA_256];
	}

	/**
	 * Takes the body of the message that answers the last `ask`. Answers at once unless keys have to be derived; the promise
	 * never rejects. A body that arrives while it is pending, or after the end, is an error.
	 */
	step(body: Uint8Array): AuthRequest | Promise<AuthRequest> {
		try {
			switch (this.#turn) {
				case Turn.Password: {
					const password = readPasswordMessage(body);
					return this.#authType === "md5" ? this.#checkMd5(password) : this.#checkPlain(password);
				}
				case Turn.SaslInitial: {
					const { mechanism, first } = readSaslInitialResponse(body, this.#mechanisms);
					this.#plus = mechanism === SCRAM_SHA_256_PLUS;
					if (first === null) return this.#ask(Turn.SaslFirst, AuthCode.SASLContinue, new Uint8Array(0));
					return this.#challenge(first);
				}
				case Turn.SaslFirst:
					return this.#challenge(body);
				case Turn.SaslFinal:
					return this.#checkProof(body);
				default:
					throw protocolViolation("invalid frontend message type 112");
			}
		} catch (error) {
			return this.#error(error);
		}
	}

	#challenge(clientFirst: Uint8Array): AuthRequest {
		checkLength(clientFirst, MAX_SASL_MESSAGE);
		const salt = this.#verifier?.salt ?? this.#cache.saltFor(this.#user);
		this.#scram = new ScramServer(salt, this.#verifier?.iterations ?? DEFAULT_ITERATIONS, this.#endPoint);
		return this.#ask(Turn.SaslFinal, AuthCode.SASLContinue, this.#scram.first(clientFirst, this.#plus));
	}

	#checkProof(clientFinal: Uint8Array): AuthRequest | Promise<AuthRequest> {
		checkLength(clientFinal, MAX_SASL_MESSAGE);
		const scram = this.#scram as ScramServer;
		scram.final(clientFinal);
		if (this.#verifier !== null) return this.#judgeProof(scram, [this.#verifier], true);
		if (this.#passwords.length === 0) {
			return this.#judgeProof(scram, [this.#cache.mockKeys(this.#user)], true);
		}
		const salt = this.#cache.saltFor(this.#user);
		const derived = this.#passwords.map((password) => this.#cache.keys(password, salt, DEFAULT_ITERATIONS));
		if (derived.every((keys): keys is DerivedKeys => !(keys instanceof Promise))) {
			return this.#judgeProof(scram, derived, true);
		}
		return this.#later(async () => this.#judgeProof(scram, await Promise.all(derived), false));
	}

	/** @param burn nothing was derived for this login yet: a refusal must take the time of a derivation */
	#judgeProof(
		scram: ScramServer,
		candidates: readonly StoredKeys[],
		burn: boolean,
	): AuthRequest | Promise<AuthRequest> {
		const proof = scram.check(candidates);
		if (proof === null) return burn ? this.#refuseSlowly("") : this.#refuse();
		this.#keys = proof.keys;
		if (this.#verifier === null) this.#passwordIndex = proof.index;
		return this.#ok(proof.serverFinal);
	}

	#checkMd5(response: Uint8Array): AuthRequest {
		if (this.#md5 !== null) {
			const expected = Buffer.from(md5Salted(this.#md5, this.#md5Salt), "latin1");
			return sameBytes(response, expected) ? this.#ok(null) : this.#refuse();
		}
		// Without a password to compare, one comparison that cannot succeed.
		const candidates = this.#passwords.length > 0 ? this.#passwords : [randomBytes(16)];
		candidates.forEach((password, index) => {
			const expected = Buffer.from(md5Response(password, this.#user, this.#md5Salt), "latin1");
			if (sameBytes(response, expected)) this.#passwordIndex = index;
		});
		return this.#passwordIndex >= 0 ? this.#ok(null) : this.#refuse();
	}

	#checkPlain(password: Uint8Array): AuthRequest | Promise<AuthRequest> {
		if (this.#verifier !== null) return this.#checkAgainst(password, this.#verifier);
		if (this.#md5 !== null) {
			const isRight = sameBytes(Buffer.from(md5Hash(password, this.#user)), Buffer.from(this.#md5));
			return isRight ? this.#ok(null) : this.#refuseSlowly(password);
		}
		const prepared = preparePassword(password);
		const candidates = this.#passwords.length > 0 ? this.#passwords : [randomBytes(16)];
		candidates.forEach((candidate, index) => {
			if (sameBytes(prepared, preparePassword(candidate))) this.#passwordIndex = index;
		});
		return this.#passwordIndex >= 0 ? this.#ok(null) : this.#refuseSlowly(password);
	}

	#checkAgainst(password: Uint8Array, verifier: ScramVerifier): AuthRequest | Promise<AuthRequest> {
		const { salt, iterations } = verifier;
		const known = this.#cache.known(password, salt, iterations);
		if (known !== undefined && sameBytes(known.storedKey, verifier.storedKey)) return this.#proven(known);
		return this.#later(async () => {
			const keys = await deriveKeys(password, salt, iterations);
			if (!sameBytes(keys.storedKey, verifier.storedKey)) return this.#refuse();
			this.#cache.remember(password, salt, iterations, keys);
			return this.#proven(keys);
		});
	}

	#proven(keys: ScramKeys): AuthRequest {
		this.#keys = keys;
		return this.#ok(null);
	}

	/** Refuses after a derivation for its time alone. */
	#refuseSlowly(password: Uint8Array | string): Promise<AuthRequest> {
		return this.#later(async () => {
			await deriveKeys(password, this.#cache.saltFor(this.#user), DEFAULT_ITERATIONS);
			return this.#refuse();
		});
	}

	async #later(work: () => Promise<AuthRequest>): Promise<AuthRequest> {
		this.#turn = Turn.Working;
		try {
			return await work();
		} catch (error) {
			return this.#error(error);
		}
	}

	#ask(turn: Turn, code: AuthCode, body?: Uint8Array): AuthRequest {
		this.#turn = turn;
		return { kind: "ask", code, body };
	}

	#ok(saslFinal: Uint8Array | null): AuthRequest {
		// A message that came during a derivation has ended the login already.
		if (this.#turn === Turn.Done) return this.#error(protocolViolation("invalid frontend message type 112"));
		this.#turn = Turn.Done;
		return { kind: "ok", saslFinal };
	}

	#refuse(): AuthRequest {
		this.#turn = Turn.Done;
		let reason = "wrong password";
		if (!this.#exists) reason = "unknown user or database, or no password is configured";
		else if (this.#badHash) reason = "password_hash is not a SCRAM-SHA-256 verifier";
		else if (this.#authType === "md5" && this.#verifier !== null)
			reason = `${this.#asker} cannot check a password_hash`;
		else if (this.#authType === "scram" && this.#md5 !== null) reason = `${this.#asker} cannot check an MD5 hash`;
		else if (this.#verifier === null && this.#md5 === null && this.#passwords.length === 0)
			reason = "the configured password is empty";
		return { kind: "refused", reason };
	}

	#error(error: unknown): AuthRequest {
		this.#turn = Turn.Done;
		this.#keys = null;
		if (error instanceof PgError) return { kind: "error", error };
		const message = error instanceof Error ? error.message : String(error);
		return { kind: "error", error: new PgError("FATAL", "XX000", `login failed: ${message}`) };
	}
}

/** The password of a PasswordMessage; valid as long as `body`. @throws PgError 08P01, or 28P01 for an empty password */
export function readPasswordMessage(body: Uint8Array): Uint8Array {
	checkLength(body, MAX_PASSWORD_MESSAGE);
	const password = cString(body, 0);
	if (password === null || password.length + 1 !== body.length) throw protocolViolation("invalid password packet size");
	if (password.length === 0) throw new PgError("FATAL", "28P01", "empty password returned by client");
	return password;
}

/** A SASLInitialResponse; `first` is null when the client sends no data with it. */
function readSaslInitialResponse(
	body: Uint8Array,
	offered: readonly string[],
): { readonly mechanism: string; readonly first: Uint8Array | null } {
	checkLength(body, MAX_SASL_MESSAGE);
	const name = cString(body, 0);
	if (name === null) throw protocolViolation("invalid string in message");
	const mechanism = asBuffer(name).toString("latin1");
	if (!offered.includes(mechanism)) throw protocolViolation("client selected an invalid SASL authentication mechanism");
	const start = name.length + 5;
	if (body.length < start) throw protocolViolation("insufficient data left in message");
	const length = asBuffer(body).readInt32BE(start - 4);
	if (length === -1 && body.length === start) return { mechanism, first: null };
	if (length < 0 || body.length < start + length) throw protocolViolation("insufficient data left in message");
	if (body.length > start + length) throw protocolViolation("invalid message format");
	return { mechanism, first: body.subarray(start) };
}

function checkLength(body: Uint8Array, max: number): void {
	if (body.length > max) throw protocolViolation("invalid message length");
}

function protocolViolation(message: string): PgError {
	return new PgError("FATAL", "08P01", message);
}

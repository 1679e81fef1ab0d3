// SCRAM-SHA-256 (RFC 5802, RFC 7677; PostgreSQL docs, "SASL Authentication"), both roles, one step per message.
// Called by login.ts; knows neither sockets nor who may log in. Steps throw PgError and are called once, in order.

import { randomBytes, timingSafeEqual } from "node:crypto";
import { PgError } from "../errors.ts";
import { decodeBase64, sameBytes, sha256 } from "./bytes.ts";
import { hmac, KEY_LENGTH, type ScramKeys, type StoredKeys } from "./scram-keys.ts";
import { isPrintable, malformed, printable, printableText, ScramMessage } from "./scram-message.ts";

export const SCRAM_SHA_256 = "SCRAM-SHA-256";
/** With channel binding: the proof holds on this TLS connection only, and no one can be in the middle of it. */
export const SCRAM_SHA_256_PLUS = "SCRAM-SHA-256-PLUS";
/** The one type of channel binding that PostgreSQL knows (RFC 5929, section 4), and the header of its messages. */
const BINDING_TYPE = "tls-server-end-point";
const BINDING_HEADER = `p=${BINDING_TYPE},,`;

/** The attribute `c` of client-final-message: the header, and what the login is bound to. @param endPoint base64 */
function boundTo(endPoint: string): string {
	return Buffer.concat([Buffer.from(BINDING_HEADER, "latin1"), Buffer.from(endPoint, "base64")]).toString("base64");
}

/** Most iterations that a server may ask for: more would hold a thread for over a second (PostgreSQL: 4096). Our guess. */
const MAX_ITERATIONS = 10_000_000;

/** `SCRAM_RAW_NONCE_LEN` in PostgreSQL's scram-common.h: 18 bytes, 24 characters without padding. */
function newNonce(): string {
	return randomBytes(18).toString("base64");
}

/** The role of whoever logs in: we, at a PostgreSQL server. */
export class ScramClient {
	readonly #nonce: string;
	readonly #firstBare: string;
	readonly #header: string;
	/** The attribute `c` of client-final-message. */
	readonly #binding: string;
	/** Set by `challenge`, read by `final`. */
	#withoutProof = "";
	#authMessage: Buffer | null = null;
	/** Set by `final`, read by `verify`. */
	#serverSignature: Buffer | null = null;

	/**
	 * @param endPoint what the login is bound to (SCRAM-SHA-256-PLUS); null: to nothing
	 * @param could it would have been bound, had the server offered that: a server that has offered it to us, and sees this, knows that
	 * somebody in the middle has taken it out of the offer
	 */
	constructor(endPoint: string | null = null, could = false, nonce = newNonce()) {
		this.#nonce = nonce;
		this.#header = endPoint !== null ? BINDING_HEADER : could ? "y,," : "n,,";
		this.#binding = endPoint !== null ? boundTo(endPoint) : Buffer.from(this.#header, "latin1").toString("base64");
		// The user name stays empty as in libpq: the server takes it from the StartupMessage.
		this.#firstBare = `n=,r=${nonce}`;
	}

	/** client-first-message. */
	first(): Buffer {
		return Buffer.from(`${this.#header}${this.#firstBare}`, "latin1");
	}

	/** Reads server-first-message. The keys for `final` are to be derived from what it gives. */
	challenge(serverFirst: Uint8Array): { salt: Uint8Array; iterations: number } {
		const message = new ScramMessage(serverFirst);
		const nonce = message.attribute("r");
		// The server must add something of its own, or it could replay an old answer.
		if (!nonce.startsWith(this.#nonce) || nonce.length === this.#nonce.length || !isPrintable(nonce)) {
			throw new PgError("FATAL", "08P01", "invalid SCRAM response", "Nonce does not match.");
		}
		const salt = decodeBase64(message.attribute("s"));
		if (salt === null || salt.length === 0) throw malformed("Invalid salt in server-first-message.");
		const count = message.attribute("i");
		const iterations = /^[1-9][0-9]{0,9}$/.test(count) ? Number(count) : 0;
		if (iterations < 1 || iterations > MAX_ITERATIONS)
			throw malformed("Invalid iteration count in server-first-message.");
		while (!message.atEnd) message.anyAttribute();
		this.#withoutProof = `c=${this.#binding},r=${nonce}`;
		this.#authMessage = Buffer.from(`${this.#firstBare},${message.text},${this.#withoutProof}`, "latin1");
		return { salt, iterations };
	}

	/** client-final-message. */
	final(keys: ScramKeys): Buffer {
		const authMessage = this.#authMessage;
		if (authMessage === null) throw new Error("ScramClient.final before challenge");
		const proof = xor(keys.clientKey, hmac(sha256(keys.clientKey), authMessage));
		this.#serverSignature = hmac(keys.serverKey, authMessage);
		return Buffer.from(`${this.#withoutProof},p=${proof.toString("base64")}`, "latin1");
	}

	/** Reads server-final-message; returns only if the server has proven that it knows the verifier. */
	verify(serverFinal: Uint8Array): void {
		const expected = this.#serverSignature;
		if (expected === null) throw new Error("ScramClient.verify before final");
		const message = new ScramMessage(serverFinal);
		if (message.peek() === "e") {
			const reason = message.attribute("e");
			throw new PgError("FATAL", "28000", `error received from server in SCRAM exchange: ${reason}`);
		}
		const signature = decodeBase64(message.attribute("v"));
		if (signature === null || signature.length !== KEY_LENGTH) throw malformed("Invalid server signature.");
		while (!message.atEnd) message.anyAttribute();
		if (!timingSafeEqual(signature, expected)) throw new PgError("FATAL", "28000", "incorrect server signature");
	}
}

/** A proof that was right. */
export interface ScramProof {
	/** Which of the given keys it was made with. */
	readonly index: number;
	/** Recovered from the proof: enough to log in as this client where the verifier is the same. */
	readonly keys: ScramKeys;
	/** server-final-message. */
	readonly serverFinal: Buffer;
}

/** The role of whoever is logged in to: we, towards a client. One salt and iteration count, any number of keys. */
export class ScramServer {
	readonly #salt: Uint8Array;
	readonly #iterations: number;
	readonly #serverNonce: string;
	readonly #endPoint: string | null;
	/** Set by `first`, read by `final`: the attribute `c` that has to come. */
	#binding = "";
	#usesBinding = false;
	#firstBare = "";
	#serverFirst = "";
	#nonce = "";
	#authMessage: Buffer | null = null;
	#proof: Buffer | null = null;

	/** @param endPoint what a login can be bound to, and the client was offered (SCRAM-SHA-256-PLUS); null: it was not */
	constructor(salt: Uint8Array, iterations: number, endPoint: string | null = null, nonce = newNonce()) {
		this.#salt = salt;
		this.#iterations = iterations;
		this.#endPoint = endPoint;
		this.#serverNonce = nonce;
	}

	/** Reads client-first-message, gives server-first-message. @param plus the client has chosen SCRAM-SHA-256-PLUS */
	first(clientFirst: Uint8Array, plus = false): Buffer {
		const message = new ScramMessage(clientFirst);
		const flag = readBindingFlag(message, plus, this.#endPoint !== null);
		this.#usesBinding = flag === "p";
		this.#binding = flag === "p" ? boundTo(this.#endPoint as string) : flag === "n" ? "biws" : "eSws";
		if (message.peek() === "a") throw unsupported("client uses authorization identity, but it is not supported");
		if (message.peek() !== ",") {
			throw malformed(`Unexpected attribute "${printable(message.peek())}" in client-first-message.`);
		}
		message.at++;
		this.#firstBare = message.text.slice(message.at);
		if (message.peek() === "m") throw unsupported("client requires an unsupported SCRAM extension");
		// The user name of the StartupMessage is the one that counts, as in PostgreSQL.
		message.attribute("n");
		const clientNonce = message.attribute("r");
		if (!isPrintable(clientNonce)) throw new PgError("FATAL", "08P01", "non-printable characters in SCRAM nonce");
		while (!message.atEnd) message.anyAttribute();
		this.#nonce = clientNonce + this.#serverNonce;
		const salt = Buffer.from(this.#salt).toString("base64");
		this.#serverFirst = `r=${this.#nonce},s=${salt},i=${this.#iterations}`;
		return Buffer.from(this.#serverFirst, "latin1");
	}

	/** Reads client-final-message up to the proof, which `check` then looks at. */
	final(clientFinal: Uint8Array): void {
		const message = new ScramMessage(clientFinal);
		const binding = message.attribute("c");
		// base64 of the header that the first message began with, and of what the login is bound to.
		if (binding !== this.#binding) {
			if (this.#usesBinding) throw new PgError("FATAL", "28000", "SCRAM channel binding check failed");
			throw new PgError("FATAL", "08P01", "unexpected SCRAM channel-binding attribute in client-final-message");
		}
		const nonce = message.attribute("r");
		let beforeProof = message.at;
		let next = message.anyAttribute();
		while (next.name !== "p") {
			beforeProof = message.at;
			next = message.anyAttribute();
		}
		const proof = decodeBase64(next.value);
		if (proof === null || proof.length !== KEY_LENGTH) throw malformed("Malformed proof in client-final-message.");
		// A comma after the proof is garbage even when nothing follows: otherwise that byte would escape the signature.
		if (!message.text.endsWith(next.value) || !message.atEnd) {
			throw malformed("Garbage found at the end of client-final-message.");
		}
		if (!sameBytes(Buffer.from(nonce, "latin1"), Buffer.from(this.#nonce, "latin1"))) {
			throw new PgError("FATAL", "08P01", "invalid SCRAM response", "Nonce does not match.");
		}
		const withoutProof = message.text.slice(0, beforeProof - 1);
		this.#authMessage = Buffer.from(`${this.#firstBare},${this.#serverFirst},${withoutProof}`, "latin1");
		this.#proof = proof;
	}

	/** Tries every verifier of `candidates`, whether or not an earlier one fitted; null when none did. */
	check(candidates: readonly StoredKeys[]): ScramProof | null {
		const authMessage = this.#authMessage;
		const proof = this.#proof;
		if (authMessage === null || proof === null) throw new Error("ScramServer.check before final");
		let found: ScramProof | null = null;
		candidates.forEach(({ storedKey, serverKey }, index) => {
			const clientKey = xor(proof, hmac(storedKey, authMessage));
			const serverFinal = Buffer.from(`v=${hmac(serverKey, authMessage).toString("base64")}`, "latin1");
			if (timingSafeEqual(sha256(clientKey), storedKey))
				found ??= { index, keys: { clientKey, serverKey }, serverFinal };
		});
		return found;
	}
}

/**
 * The gs2-cbind-flag, with what belongs to it, and its comma: `n` (cannot), `y` ("I could, you cannot") or `p` (does). Errors as in
 * PostgreSQL's auth-scram.c.
 * @param plus the client has chosen SCRAM-SHA-256-PLUS @param offered it was offered that
 */
function readBindingFlag(message: ScramMessage, plus: boolean, offered: boolean): string {
	const flag = message.peek();
	if (flag !== "n" && flag !== "y" && flag !== "p")
		throw malformed(`Unexpected channel-binding flag "${printable(flag)}".`);
	if (flag !== "p" && plus) {
		throw malformed(
			"The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.",
		);
	}
	if (flag === "p" && !plus) {
		throw malformed(
			"The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.",
		);
	}
	if (flag === "y" && offered) {
		throw new PgError(
			"FATAL",
			"28000",
			"SCRAM channel binding negotiation error",
			"The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.",
		);
	}
	if (flag === "p") {
		const type = message.attribute("p");
		if (type !== BINDING_TYPE)
			throw new PgError("FATAL", "08P01", `unsupported SCRAM channel-binding type "${printableText(type)}"`);
		return flag;
	}
	message.at++;
	if (message.peek() !== ",") throw malformed(`Comma expected, but found character "${printable(message.peek())}".`);
	message.at++;
	return flag;
}

function unsupported(message: string): PgError {
	return new PgError("FATAL", "0A000", message);
}

function xor(a: Uint8Array, b: Uint8Array): Buffer {
	const out = Buffer.alloc(KEY_LENGTH);
	for (let i = 0; i < KEY_LENGTH; i++) out[i] = (a[i] as number) ^ (b[i] as number);
	return out;
}

// A client's login by a password that somebody else judges: it is asked for in clear text. Steps as ClientLogin (login.ts).

import { isUtf8 } from "node:buffer";
import { PgError } from "../errors.ts";
import { asBuffer } from "./bytes.ts";
import { AuthCode, type AuthRequest, readPasswordMessage } from "./login.ts";

export class PassedLogin {
	readonly auth = "passthrough";
	/** It proves none. */
	readonly keys = null;
	readonly #judge: (password: string) => Promise<AuthRequest>;

	/** @param judge never rejects */
	constructor(judge: (password: string) => Promise<AuthRequest>) {
		this.#judge = judge;
	}

	start(): AuthRequest {
		return { kind: "ask", code: AuthCode.CleartextPassword, body: undefined };
	}

	/** Takes the body of the one message that answers it. */
	step(body: Uint8Array): AuthRequest | Promise<AuthRequest> {
		try {
			const password = readPasswordMessage(body);
			// As text it would be another one.
			if (!isUtf8(password)) return { kind: "refused", reason: "the password is not UTF-8" };
			return this.#judge(asBuffer(password).toString());
		} catch (error) {
			if (!(error instanceof PgError)) throw error;
			return { kind: "error", error };
		}
	}
}

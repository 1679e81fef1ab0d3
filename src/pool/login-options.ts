// How one logs in to the server of a PoolSpec: the same for a pool's connections (pool.ts) and the monitor's (watch.ts).

import type { Keyring } from "../auth/keyring.ts";
import type { ScramCache } from "../auth/scram-keys.ts";
import type { LoginOptions } from "../backend/login.ts";
import type { PoolSpec } from "../config/snapshot.ts";
import type { Dialling } from "../net/connect.ts";
import type { Names } from "../net/names.ts";

export interface LoginContext {
	readonly names: Names;
	readonly dialling: Dialling;
	readonly keyring: Keyring;
}

/** The StartupMessage without application_name, which is each client's: RESET goes back to PostgreSQL's own default, none. */
function unnamed({ application_name: _, ...startup }: Readonly<Record<string, string>>): Record<string, string> {
	return startup;
}

/** @param timeout for connecting and logging in together, ms */
export function loginOptions(
	spec: PoolSpec,
	passwordIndex: number,
	timeout: number,
	cache: ScramCache,
	{ names, dialling, keyring }: LoginContext,
): LoginOptions {
	const { server_passwords: passwords, server_verifier } = spec;
	return {
		host: spec.host,
		port: spec.port,
		names,
		database: spec.database_name,
		user: spec.server_user,
		credentials: server_verifier === undefined ? { passwords, passwordIndex } : keyring.credentials(server_verifier),
		startup: unnamed(spec.startup),
		timeout,
		cache,
		...dialling,
		tls: spec.server_tls,
	};
}

// One immutable picture of the configuration: what `load.ts` makes and every other room reads.
// Field names are the setting names of `pgdog.toml`, so a grep finds a setting everywhere.

import type { TlsDemands } from "../net/tls.ts";
import type { HbaEntry } from "./hba.ts";
import type { Peer } from "./peers.ts";
import type { General, Tcp } from "./settings.ts";
import type { Sharding } from "./sharding.ts";
import type { TlsFiles } from "./tls.ts";

/** Role of a server: `primary` takes writes, `replica` is read from; `auto`: whichever it is found to be. */
export type Role = "primary" | "replica" | "auto";
/** Which servers of a shard may run a statement. */
export const enum Side {
	Primary,
	/** Any server that may serve reads: `read_write_split` says which. */
	Any,
	/** A replica was asked for by name; the primary only when there is none. */
	Replica,
}

type PoolerMode = "transaction" | "session" | "statement";

/** Settings of pools that `[[databases]]` and `[[users]]` both have; undefined: not given. Durations in ms. */
export interface PoolSettings {
	readonly pool_size?: number | undefined;
	readonly min_pool_size?: number | undefined;
	readonly reserve_pool_size?: number | undefined;
	readonly pool_size_primary?: number | undefined;
	readonly pool_size_replica?: number | undefined;
	readonly min_pool_size_primary?: number | undefined;
	readonly min_pool_size_replica?: number | undefined;
	readonly pooler_mode?: PoolerMode | undefined;
	readonly statement_timeout?: number | undefined;
	readonly lock_timeout?: number | undefined;
	readonly idle_timeout?: number | undefined;
	readonly idle_timeout_primary?: number | undefined;
	readonly idle_timeout_replica?: number | undefined;
	readonly server_lifetime?: number | undefined;
	readonly server_lifetime_jitter?: number | undefined;
	readonly read_only?: boolean | undefined;
}

/** The name of the entries of `[[databases]]` that are for each database that no other entry names. */
export const WILDCARD = "*";

/** An entry of `[[databases]]`. A host that starts with `/` or `@` is the folder of a Unix socket. */
export interface Database extends PoolSettings {
	readonly name: string;
	readonly max_client_connections?: number | undefined;
	readonly max_db_connections?: number | undefined;
	readonly role: Role;
	readonly host: string;
	readonly port: number;
	readonly shard: number;
	readonly database_name: string;
	/** Its share with `weighted_round_robin`. */
	readonly lb_weight: number;
	readonly user?: string | undefined;
	readonly password?: string | undefined;
	/** What is asked of the server over TLS, and shown it; null: nothing is. */
	readonly server_tls: TlsDemands | null;
}

/** An entry of `[[users]]`, expanded to one per database it may use. */
export interface User extends PoolSettings {
	readonly name: string;
	readonly database: string;
	readonly max_client_connections?: number | undefined;
	readonly max_user_connections?: number | undefined;
	/** Any of them lets a client in; towards servers they are tried in order. */
	readonly passwords: readonly string[];
	/** A SCRAM verifier (`SCRAM-SHA-256$…`); clients only. */
	readonly password_hash?: string | undefined;
	/** The name in the certificate that lets a client in, without a password. */
	readonly identity?: string | undefined;
	/** False: a client over TLS need not show a certificate, though there is `tls_client_ca_certificate`. */
	readonly tls_client_certificate_required?: boolean | undefined;
	/** A server was asked for it: it is not in the configuration. `password_hash` may be an MD5 hash then. */
	readonly learned?: boolean;
	/** Learned by its password, which its server has taken (`passthrough_auth`). */
	readonly passed?: boolean;
	/** users.toml has it, for databases by wildcard: learned is that there is this one. */
	readonly listed?: boolean;
	readonly cross_shard_disabled?: boolean | undefined;
	readonly two_phase_commit?: boolean | undefined;
	readonly two_phase_commit_auto?: boolean | undefined;
	readonly server_user?: string | undefined;
	readonly server_password?: string | undefined;
	/** The certificate that servers are shown for it, instead of the database's. */
	readonly server_certificate?: TlsDemands["identity"] | undefined;
}

export interface Admin {
	readonly name: string;
	readonly user: string;
	readonly password: string;
	/** True when no password was configured: it was made at random, and nobody is told it. */
	readonly generated: boolean;
}

/** All that one pool of server connections needs to know: user over database over general, already resolved. */
export interface PoolSpec {
	/** `user@database/shard/role/host:port`: the same pool before and after a reload. */
	readonly key: string;
	readonly user: string;
	readonly database: string;
	readonly host: string;
	readonly port: number;
	readonly shard: number;
	readonly role: Role;
	readonly database_name: string;
	readonly server_user: string;
	/** In the order in which they are tried; empty means that the server must not ask for one. */
	readonly server_passwords: readonly string[];
	/** There are none, and the keys that a client's log-in by this verifier proves log in to the server. */
	readonly server_verifier?: string | undefined;
	/** What is asked of the server over TLS, and shown it; null: nothing is. */
	readonly server_tls: TlsDemands | null;
	readonly pool_size: number;
	readonly min_pool_size: number;
	/** More, while a client has waited for `reserve_pool_timeout`; 0 when that is 0. */
	readonly reserve_pool_size: number;
	/** Of all pools of the entry of `[[databases]]`, and of all pools of the user; `MAX`: no limit. */
	readonly max_db_connections: number;
	readonly max_user_connections: number;
	readonly pooler_mode: PoolerMode;
	readonly lb_weight: number;
	readonly idle_timeout: number;
	readonly server_lifetime: number;
	readonly server_lifetime_jitter: number;
	/** Sent in the StartupMessage to the server, beside user and database. */
	readonly startup: Readonly<Record<string, string>>;
}

/** What is committed in two phases where it has written on several shards. */
export const enum TwoPhase {
	Off = 0,
	/** `two_phase_commit`: transactions. */
	Transactions = 1,
	/** `two_phase_commit_auto`: statements outside of a transaction. */
	Statements = 2,
}

/** What one (user, database) pair connects to: the client side's credentials and the pools behind it. */
export interface ClusterSpec {
	readonly user: User;
	readonly database: string;
	/** Bits of `TwoPhase`; none with one shard. */
	readonly twoPhase?: number;
	/** `read_only` of the user, or of all its database's entries: its transactions read unless they say READ WRITE. */
	readonly readOnly: boolean;
	/** Of its database: the least that an entry says. */
	readonly max_client_connections?: number | undefined;
	/** What is said of its sharded tables; null: nothing. */
	readonly sharding: Sharding | null;
	/** At least one pool: one for each address, by shard, then in the order of the file; at most one primary of each shard. */
	readonly pools: readonly PoolSpec[];
}

/** `[[plugins]]`: see plugin/loader.ts. */
export interface PluginEntry {
	readonly name: string;
	readonly required: boolean;
}

export interface Snapshot {
	readonly general: General;
	readonly tcp: Tcp;
	/** What the files hold that `general` names for TLS. */
	readonly tls: TlsFiles;
	readonly admin: Admin;
	readonly databases: readonly Database[];
	/** Also those of databases by wildcard (`WILDCARD`), who have no clusters before they log in to one. */
	readonly users: readonly User[];
	/** What users.toml says, with `passthrough_auth`, of users whose passwords only their server knows. */
	readonly passwordless: readonly User[];
	/** In the order of the file. */
	readonly clusters: readonly ClusterSpec[];
	readonly plugins: readonly PluginEntry[];
	readonly peers: readonly Peer[];
	/** `[[hba]]`, in its order; none: `auth_type` decides for all. */
	readonly hba: readonly HbaEntry[];
	/** What is said of sharded tables, by the name of their database. */
	readonly sharding: ReadonlyMap<string, Sharding>;
	/** `[[write_functions]]`, as PostgreSQL stores them: `name` or `schema.name`, each once. A SELECT that calls one is a write. */
	readonly writeFunctions: readonly string[];
	/** Paths of the files that all this was read from: a reload has to find them again. */
	readonly files: readonly string[];
	/** Harmless oddities, logged at start and at each reload. */
	readonly warnings: readonly string[];
}

/** What lets its users in, or logs them in to servers, is known from log-ins, and not from the configuration alone. */
export function isLearned({ user, pools }: ClusterSpec): boolean {
	return user.learned === true || pools.some(({ server_verifier }) => server_verifier !== undefined);
}

export function allPools(snapshot: Snapshot): PoolSpec[] {
	return snapshot.clusters.flatMap(({ pools }) => pools);
}

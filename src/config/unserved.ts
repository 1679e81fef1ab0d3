// The keys that PgDog knows and that we do not serve yet, so that a PgDog user is told which of them matter.
// `check.ts` refuses them by name; a served key leaves this file for `settings.ts`.
//
// refused: the proxy would behave otherwise than the file asks for. The values beside a key are those which ask for what
// we do anyway (mostly PgDog's default): they pass. ignored: nothing but comfort or speed is lost, or the key only matters
// together with one that is refused; a warning says so.

export interface Unserved {
	readonly refused: Readonly<Record<string, readonly (string | number | boolean)[]>>;
	readonly ignored: readonly string[];
}

export const unservedGeneral: Unserved = {
	refused: {
		query_log_stdout: [false],
		openmetrics_port: [],
		dry_run: [false],
		// What would be written there is written into the first shard (two-phase/decisions.ts): whoever names a folder counts on it.
		two_phase_commit_wal_dir: [],
		unique_id_min: [0],
		unique_id_function: ["standard"],
		// Without shards they change nothing, but who sets them counts on shards.
		canonicalize_type_information: [false],
	},
	ignored: [
		// Statements are parsed where there is something to decide, by one parser.
		"query_parser",
		"query_parser_enabled",
		"query_parser_engine",
		"regex_parser_limit",
		"query_cache_limit",
		"log_min_duration_parse",
		"log_query_sample_length",
		// PgDog parses it and never uses it.
		"query_log",
		"log_dedup_window",
		"log_dedup_threshold",
		"broadcast_address",
		"broadcast_port",
		// Details of settings, tables and commands that are refused themselves.
		"openmetrics_host",
		"openmetrics_namespace",
		"mirror_queue",
		"mirror_exposure",
		"two_phase_commit_wal_segment_size",
		"two_phase_commit_wal_fsync_interval",
		"two_phase_commit_wal_checkpoint_interval",
		"system_catalogs",
		"omnisharded_sticky",
		"sharding_lookup_cache_size",
		"sharding_lookup_timeout",
		"load_schema",
		"reload_schema_on_ddl",
		"resharding_copy_format",
		"resharding_parallel_copies",
		"resharding_copy_retry_max_attempts",
		"resharding_copy_retry_min_delay",
		"resharding_replication_retry_max_attempts",
		"resharding_replication_retry_min_delay",
		"cutover_traffic_stop_threshold",
		"cutover_replication_lag_threshold",
		"cutover_last_transaction_delay",
		"cutover_timeout",
		"cutover_timeout_action",
		"cutover_save_config",
	],
};

export const unservedTcp: Unserved = { refused: {}, ignored: ["congestion_control"] };

export const unservedAdmin: Unserved = { refused: {}, ignored: [] };

export const unservedDatabase: Unserved = {
	refused: { resharding_only: [false] },
	ignored: [],
};

export const unservedUser: Unserved = {
	refused: {
		schema_admin: [false],
		replication_mode: [false],
		replication_sharding: [],
		server_auth: ["password"],
		server_iam_region: [],
		server_vault_path: [],
		vault_path: [],
	},
	// It only matters with Vault, which is refused.
	ignored: ["vault_refresh_percent"],
};

/** `config`: PgDog hands that path to plugins of the crate's version 0.3.0 and later, which are not loaded yet. */
export const unservedPlugin: Unserved = { refused: { config: [] }, ignored: [] };

/** `[[write_functions]]` is ours alone: PgDog has no keys there. */
export const unservedWriteFunction: Unserved = { refused: {}, ignored: [] };

/** As `[[write_functions]]`. */
export const unservedHba: Unserved = { refused: {}, ignored: [] };

/** As `[[write_functions]]`. */
export const unservedPeer: Unserved = { refused: {}, ignored: [] };

export const unservedShardedTable: Unserved = {
	refused: { lookup_query: [], lookup_result: ["value"] },
	ignored: [],
};

/** All of PgDog's keys of the table are served. */
export const NOTHING_UNSERVED: Unserved = { refused: {}, ignored: [] };

/** Neither are rows of several shards split, nor are rows whose key changes moved. */
export const unservedRewrite: Unserved = {
	refused: {
		enabled: [false],
		shard_key: ["error", "ignore"],
		split_inserts: ["error", "ignore"],
		primary_key: ["ignore"],
	},
	ignored: [],
};

/** Whole tables of pgdog.toml; what is in them is not looked at. An empty list asks for nothing. */
export const unservedTables: Unserved = {
	refused: {
		multi_tenant: [],
		mirroring: [],
		vault: [],
	},
	ignored: ["memory", "query_parsers", "replica_lag", "replication", "otel"],
};

// Built-in functions that keep a SELECT from a replica: they write, lock, change the session, only work on a primary, or mean
// the one server that the client thinks of. `facts.ts` reads the list; a test holds it against PostgreSQL's own catalog.
// PostgreSQL docs, "Functions and Operators" and "Server-side Functions" of large objects.

const SEQUENCES = "nextval setval currval lastval";

const SESSION = "set_config setseed pg_notify";

const LOCKS = `
	pg_advisory_lock pg_advisory_lock_shared pg_advisory_xact_lock pg_advisory_xact_lock_shared
	pg_try_advisory_lock pg_try_advisory_lock_shared pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared
	pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_unlock_all`;

/** Functions that give the transaction a number, which a replica cannot. */
const TRANSACTIONS = "txid_current pg_current_xact_id pg_export_snapshot";

const LARGE_OBJECTS = `
	lo_creat lo_create lo_from_bytea lo_import lo_export lo_put lo_unlink lo_truncate lo_truncate64
	lo_open lo_close lo_lseek lo_lseek64 lo_tell lo_tell64 loread lowrite`;

/** Functions that run SQL which comes as a string. */
const QUERIES = `
	query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema ts_stat ts_rewrite`;

const WRITE_AHEAD_LOG = `
	pg_current_wal_lsn pg_current_wal_insert_lsn pg_current_wal_flush_lsn pg_walfile_name pg_walfile_name_offset
	pg_switch_wal pg_create_restore_point pg_backup_start pg_backup_stop pg_promote pg_wal_replay_pause
	pg_wal_replay_resume pg_logical_emit_message pg_log_standby_snapshot`;

const REPLICATION = `
	pg_create_physical_replication_slot pg_create_logical_replication_slot pg_copy_physical_replication_slot
	pg_copy_logical_replication_slot pg_drop_replication_slot pg_replication_slot_advance pg_sync_replication_slots
	pg_logical_slot_get_changes pg_logical_slot_get_binary_changes pg_logical_slot_peek_changes
	pg_logical_slot_peek_binary_changes pg_replication_origin_create pg_replication_origin_drop
	pg_replication_origin_advance pg_replication_origin_progress pg_replication_origin_session_setup
	pg_replication_origin_session_reset pg_replication_origin_session_is_setup pg_replication_origin_session_progress
	pg_replication_origin_xact_setup pg_replication_origin_xact_reset`;

const ADMINISTRATION = `
	pg_cancel_backend pg_terminate_backend pg_reload_conf pg_rotate_logfile pg_log_backend_memory_contexts
	pg_stat_reset pg_stat_reset_shared pg_stat_reset_single_table_counters pg_stat_reset_single_function_counters
	pg_stat_reset_slru pg_stat_reset_replication_slot pg_stat_reset_subscription_stats pg_stat_force_next_flush
	pg_stat_clear_snapshot pg_import_system_collations pg_extension_config_dump pg_nextoid
	pg_stop_making_pinned_objects brin_summarize_new_values brin_summarize_range brin_desummarize_range
	gin_clean_pending_list`;

const UPGRADE = `
	binary_upgrade_add_sub_rel_state binary_upgrade_create_empty_extension binary_upgrade_logical_slot_has_caught_up
	binary_upgrade_replorigin_advance binary_upgrade_set_missing_value binary_upgrade_set_next_array_pg_type_oid
	binary_upgrade_set_next_heap_pg_class_oid binary_upgrade_set_next_heap_relfilenode
	binary_upgrade_set_next_index_pg_class_oid binary_upgrade_set_next_index_relfilenode
	binary_upgrade_set_next_multirange_array_pg_type_oid binary_upgrade_set_next_multirange_pg_type_oid
	binary_upgrade_set_next_pg_authid_oid binary_upgrade_set_next_pg_enum_oid
	binary_upgrade_set_next_pg_tablespace_oid binary_upgrade_set_next_pg_type_oid
	binary_upgrade_set_next_toast_pg_class_oid binary_upgrade_set_next_toast_relfilenode
	binary_upgrade_set_record_init_privs`;

/** Names of all these functions, whatever the schema they are called with. */
export const WRITE_FUNCTIONS: ReadonlySet<string> = new Set(
	[
		SEQUENCES,
		SESSION,
		LOCKS,
		TRANSACTIONS,
		LARGE_OBJECTS,
		QUERIES,
		WRITE_AHEAD_LOG,
		REPLICATION,
		ADMINISTRATION,
		UPGRADE,
	]
		.join(" ")
		.trim()
		.split(/\s+/),
);

/**
 * The write functions of PostgreSQL and those that the user names, for `writesBy`.
 * @param names as PostgreSQL stores them (folded to lower case): `name`, or `schema.name`
 */
export function writeFunctionsWith(names: readonly string[]): ReadonlySet<string> {
	const all = new Set(WRITE_FUNCTIONS);
	for (const name of names) {
		all.add(name);
		// A call without a schema may mean this one.
		const dot = name.lastIndexOf(".");
		if (dot > 0) all.add(name.slice(dot));
	}
	return all;
}

/** Whether a call of this name may write. @param schema null when the call says none */
export function writesBy(functions: ReadonlySet<string>, name: string, schema: string | null): boolean {
	return functions.has(name) || functions.has(`${schema ?? ""}.${name}`);
}

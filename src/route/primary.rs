//! Built-in functions and views that answer otherwise on a replica, or are refused there: what they ask of is one node's
//! own (its sessions, locks, files, statistics, transactions under way), or they write.
//!
//! Of [`super::function_table`]'s names, none of which leaves anything behind in a session, all others may run on a
//! replica. Made from `pg_proc` of PostgreSQL 15 and 18 and reviewed: of volatile functions only those of [`VOLATILE`] are
//! left out here, of the others those that the server's sources show to depend on the node.

/// Sorted by name, bytewise.
#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    "brin_desummarize_range", "brin_summarize_new_values", "brin_summarize_range", "current_setting", "currtid2",
    "gin_clean_pending_list", "inet_client_addr", "inet_client_port", "inet_server_addr", "inet_server_port",
    "lo_close", "lo_creat", "lo_create", "lo_export", "lo_from_bytea", "lo_import", "lo_lseek", "lo_lseek64",
    "lo_open", "lo_put", "lo_tell", "lo_tell64", "lo_truncate", "lo_truncate64", "lo_unlink", "loread", "lowrite",
    "mxid_age", "pg_advisory_xact_lock", "pg_advisory_xact_lock_shared", "pg_available_extension_versions",
    "pg_available_extensions", "pg_available_wal_summaries", "pg_backend_pid", "pg_blocking_pids",
    "pg_cancel_backend", "pg_clear_attribute_stats", "pg_clear_relation_stats", "pg_collation_actual_version",
    "pg_conf_load_time", "pg_config", "pg_control_checkpoint", "pg_control_init", "pg_control_recovery",
    "pg_control_system", "pg_create_restore_point", "pg_current_logfile", "pg_current_snapshot",
    "pg_current_wal_flush_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_lsn", "pg_current_xact_id",
    "pg_current_xact_id_if_assigned", "pg_cursor", "pg_database_collation_actual_version", "pg_database_size",
    "pg_drop_replication_slot", "pg_event_trigger_ddl_commands", "pg_event_trigger_dropped_objects",
    "pg_event_trigger_table_rewrite_oid", "pg_event_trigger_table_rewrite_reason", "pg_export_snapshot",
    "pg_extension_update_paths", "pg_get_aios", "pg_get_backend_memory_contexts", "pg_get_loaded_modules",
    "pg_get_multixact_members", "pg_get_replication_slots", "pg_get_sequence_data", "pg_get_shmem_allocations",
    "pg_get_shmem_allocations_numa", "pg_get_wait_events", "pg_get_wal_replay_pause_state",
    "pg_get_wal_resource_managers", "pg_get_wal_summarizer_state", "pg_hba_file_rules", "pg_ident_file_mappings",
    "pg_import_system_collations", "pg_indexes_size", "pg_is_in_recovery", "pg_is_other_temp_schema",
    "pg_is_wal_replay_paused", "pg_isolation_test_session_is_blocked", "pg_jit_available", "pg_last_committed_xact",
    "pg_last_wal_receive_lsn", "pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp", "pg_listening_channels",
    "pg_lock_status", "pg_log_backend_memory_contexts", "pg_log_standby_snapshot", "pg_logical_emit_message",
    "pg_my_temp_schema", "pg_notification_queue_usage", "pg_notify", "pg_numa_available", "pg_postmaster_start_time",
    "pg_prepared_statement", "pg_prepared_xact", "pg_promote", "pg_read_binary_file", "pg_read_file",
    "pg_relation_size", "pg_reload_conf", "pg_replication_origin_advance", "pg_replication_origin_create",
    "pg_replication_origin_drop", "pg_replication_origin_progress", "pg_replication_origin_session_is_setup",
    "pg_replication_origin_session_progress", "pg_restore_attribute_stats", "pg_restore_relation_stats",
    "pg_rotate_logfile", "pg_safe_snapshot_blocking_pids", "pg_sequence_last_value", "pg_show_all_file_settings",
    "pg_show_all_settings", "pg_show_replication_origin_status", "pg_switch_wal", "pg_sync_replication_slots",
    "pg_table_size", "pg_tablespace_databases", "pg_tablespace_location", "pg_tablespace_size",
    "pg_terminate_backend", "pg_timezone_abbrevs_abbrevs", "pg_timezone_abbrevs_zone", "pg_timezone_names",
    "pg_total_relation_size", "pg_try_advisory_xact_lock", "pg_try_advisory_xact_lock_shared", "pg_wal_replay_pause",
    "pg_wal_replay_resume", "pg_wal_summary_contents", "pg_walfile_name", "pg_walfile_name_offset",
    "pg_xact_commit_timestamp", "pg_xact_commit_timestamp_origin", "pg_xact_status", "system_user", "txid_current",
    "txid_current_if_assigned", "txid_current_snapshot", "txid_status", "version",
];

/// Volatile, and may run on a replica all the same. Sorted.
#[rustfmt::skip]
pub const VOLATILE: &[&str] = &[
    "array_sample", "array_shuffle", "clock_timestamp", "current_query", "gen_random_uuid", "lo_get",
    "pg_partition_ancestors", "pg_partition_tree", "pg_sleep", "pg_sleep_for", "pg_sleep_until", "random",
    "random_normal", "timeofday", "uuidv4", "uuidv7",
];

/// Views over such functions. Sorted.
#[rustfmt::skip]
const VIEWS: &[&str] = &[
    "pg_aios", "pg_available_extension_versions", "pg_available_extensions", "pg_backend_memory_contexts",
    "pg_config", "pg_cursors", "pg_dsm_registry_allocations", "pg_file_settings", "pg_hba_file_rules",
    "pg_ident_file_mappings", "pg_locks", "pg_prepared_statements", "pg_prepared_xacts",
    "pg_replication_origin_status", "pg_replication_slots", "pg_sequences", "pg_settings", "pg_shmem_allocations",
    "pg_shmem_allocations_numa", "pg_timezone_abbrevs", "pg_timezone_names", "pg_wait_events",
];

/// Names that begin so are all of one kind: statistics, files of the node.
const FUNCTION_PREFIXES: [&[u8]; 2] = [b"pg_stat_", b"pg_ls_"];
const VIEW_PREFIXES: [&[u8]; 2] = [b"pg_stat_", b"pg_statio_"];

/// Whether a built-in function of this name, folded, needs the primary. Names that are not built in are not asked for.
pub fn needs_primary(function: &[u8]) -> bool {
    FUNCTION_PREFIXES.iter().any(|p| function.starts_with(p)) || is_in(FUNCTIONS, function)
}

/// Whether a relation of this name, folded, is a built-in view that needs the primary.
pub fn is_view_of_primary(relation: &[u8]) -> bool {
    VIEW_PREFIXES.iter().any(|p| relation.starts_with(p)) || is_in(VIEWS, relation)
}

fn is_in(list: &[&str], name: &[u8]) -> bool {
    list.binary_search_by(|known| known.as_bytes().cmp(name))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_name_what_differs() {
        for list in [FUNCTIONS, VOLATILE, VIEWS] {
            assert!(list.is_sorted_by(|a, b| a < b));
        }
        for name in [
            "txid_current",
            "pg_stat_get_wal",
            "pg_walfile_name",
            "inet_server_addr",
            "lo_put",
        ] {
            assert!(needs_primary(name.as_bytes()), "{name}");
        }
        for name in [
            "lower",
            "now",
            "random",
            "lo_get",
            "pg_statistics_obj_is_visible",
            "pg_size_pretty",
        ] {
            assert!(!needs_primary(name.as_bytes()), "{name}");
        }
        for name in [
            "pg_locks",
            "pg_stat_activity",
            "pg_statio_all_tables",
            "pg_settings",
        ] {
            assert!(is_view_of_primary(name.as_bytes()), "{name}");
        }
        for name in ["pg_class", "pg_stats", "pg_statistic", "pg_tables"] {
            assert!(!is_view_of_primary(name.as_bytes()), "{name}");
        }
    }
}

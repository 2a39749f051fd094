#!/bin/bash
# Roles and slots, once, when the primary's directory is made. (The image runs this on the new, empty server.)
set -euo pipefail

psql -v ON_ERROR_STOP=1 -U postgres \
  -v replication="$REPLICATION_PASSWORD" -v probe="$PROBE_PASSWORD" -v lookup="$LOOKUP_PASSWORD" -v app="$APP_PASSWORD" <<'SQL'
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication';
CREATE ROLE pgsluice LOGIN PASSWORD :'probe' IN ROLE pg_monitor;
CREATE ROLE pgsluice_auth LOGIN PASSWORD :'lookup';
CREATE ROLE app LOGIN PASSWORD :'app';
GRANT CREATE ON SCHEMA public TO app;
SELECT pg_create_physical_replication_slot('replica1', true);
SELECT pg_create_physical_replication_slot('replica2', true);
SQL

# The image lets everybody in with a password, but nobody for replication.
echo 'host replication replicator all scram-sha-256' >>"$PGDATA/pg_hba.conf"

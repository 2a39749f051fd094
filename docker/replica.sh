#!/bin/bash
# A replica of the service `primary`: its copy is made once, then it streams through the slot $SLOT.
set -euo pipefail

if [ ! -e "$PGDATA/pgsluice.copied" ]; then
  # Whatever an interrupted copy left; PG_VERSION is among the first files, so it counts for nothing.
  mkdir -p "$PGDATA"
  find "$PGDATA" -mindepth 1 -delete
  chown postgres:postgres "$PGDATA"
  chmod 700 "$PGDATA"
  from="host=primary user=replicator password=$REPLICATION_PASSWORD application_name=$SLOT"
  gosu postgres pg_basebackup -D "$PGDATA" -R -X stream -c fast -S "$SLOT" -d "$from"
  touch "$PGDATA/pgsluice.copied"
fi

exec docker-entrypoint.sh "$@"

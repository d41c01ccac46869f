#!/bin/bash
# Makes the database cluster at the first start from POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB, then runs the server.
set -euo pipefail
if [[ ${1:-} != postgres ]]; then exec "$@"; fi
if ((EUID == 0)); then
  install -d -o postgres -g postgres -m 2775 /var/run/postgresql
  chown -R postgres:postgres "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups "${BASH_SOURCE[0]}" "$@"
fi
if [[ ! -s $PGDATA/PG_VERSION ]]; then
  if [[ -z ${POSTGRES_PASSWORD:-} ]]; then
    echo "POSTGRES_PASSWORD must be set to make a database" >&2
    exit 1
  fi
  user=${POSTGRES_USER:-postgres}
  initdb --no-sync --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") --auth-local=trust --auth-host=scram-sha-256 >/dev/null
  if [[ ${POSTGRES_DB:-$user} != postgres ]]; then
    printf 'CREATE DATABASE "%s";\n' "${POSTGRES_DB:-$user}" | postgres --single -j -F -D "$PGDATA" postgres >/dev/null
  fi
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
fi
exec "$@" -c listen_addresses='*' -c jit=off

#!/usr/bin/env bash
# A real n8n from the npm registry over a PostgreSQL of its own, for the tests against the real one. Loopback only;
# diagnostics, version checks and templates are off.
#   n8n.sh up [public-api-off]   install what is missing (about ten minutes the first time), start, print its address
#   n8n.sh down                  stop both, keep the installation, drop the data
#   n8n.sh possible              exit 0 where it can be had, else say what is missing
# Needs npm, curl and PostgreSQL (Debian: apt-get install postgresql). Safe to run twice.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
PATH=$here/node_modules/.bin:$PATH
version=2.40.7
cache=${APIKEYD_TEST_CACHE:-${HOME:-/root}/.cache/apikeyd-test}
root=$cache/n8n
# PostgreSQL does not run as root, and its user must reach its data.
data=${N8N_TEST_DATA:-/var/tmp/apikeyd-test-n8n}
port=${N8N_TEST_PORT:-27140}
pgport=${N8N_TEST_PG_PORT:-27142}
log() { echo "n8n.sh: $*" >&2; }
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

as_postgres() {
  if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups env HOME="$data" "$@"; else "$@"; fi
}

install_n8n() {
  [ -e "$root/node_modules/.installed" ] && return
  log "installing n8n $version into $root (about ten minutes, once)"
  mkdir -p "$root"
  echo '{"private":true}' >"$root/package.json"
  # Its optional parts and native addons are not needed: PostgreSQL's driver is JavaScript.
  (cd "$root" && npm install "n8n@$version" --omit=optional --ignore-scripts --legacy-peer-deps --no-audit --no-fund >&2)
  touch "$root/node_modules/.installed"
}

start_postgres() {
  listening "$pgport" && return
  local bin
  bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
  if [ ! -e "$data/pg/PG_VERSION" ]; then
    mkdir -p "$data"
    [ "$(id -u)" != 0 ] || chown postgres:postgres "$data"
    as_postgres "$bin/initdb" -D "$data/pg" -U n8n -A trust -E UTF8 --no-sync >/dev/null
  fi
  as_postgres "$bin/pg_ctl" -D "$data/pg" -l "$data/pg.log" -w \
    -o "-p $pgport -c listen_addresses=127.0.0.1 -c unix_socket_directories=$data -c fsync=off" start >&2
}

stop_n8n() {
  [ -e "$data/n8n.pid" ] || return 0
  local pid
  pid=$(cat "$data/n8n.pid")
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
  kill -9 "$pid" 2>/dev/null || true
  rm -f "$data/n8n.pid"
}

start_n8n() {
  mkdir -p "$data/home"
  env -i PATH="$PATH" HOME="$data/home" N8N_USER_FOLDER="$data/home" NODE_ENV=production LC_ALL=C.UTF-8 \
    N8N_LISTEN_ADDRESS=127.0.0.1 N8N_PORT="$port" N8N_PROTOCOL=http N8N_HOST=127.0.0.1 \
    N8N_DIAGNOSTICS_ENABLED=false N8N_VERSION_NOTIFICATIONS_ENABLED=false N8N_TEMPLATES_ENABLED=false \
    N8N_PERSONALIZATION_ENABLED=false N8N_HIRING_BANNER_ENABLED=false N8N_COMMUNITY_PACKAGES_ENABLED=false \
    N8N_DYNAMIC_BANNERS_ENABLED=false N8N_RUNNERS_BROKER_PORT=27141 N8N_ENCRYPTION_KEY=for-tests-only \
    N8N_PUBLIC_API_DISABLED="$1" EXTERNAL_FRONTEND_HOOKS_URLS= N8N_DIAGNOSTICS_CONFIG_FRONTEND= N8N_DIAGNOSTICS_CONFIG_BACKEND= \
    DB_TYPE=postgresdb DB_POSTGRESDB_HOST=127.0.0.1 DB_POSTGRESDB_PORT="$pgport" DB_POSTGRESDB_DATABASE=postgres \
    DB_POSTGRESDB_USER=n8n \
    nohup setsid node "$root/node_modules/n8n/bin/n8n" start >"$data/n8n.log" 2>&1 </dev/null &
  echo $! >"$data/n8n.pid"
  # It listens before it is ready.
  for _ in $(seq 900); do
    if curl -fsS -o /dev/null "http://127.0.0.1:$port/healthz/readiness" 2>/dev/null \
      && curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/rest/settings" | grep -q 200; then
      # Its public API is read from files at the first call, which takes seconds.
      curl -s -o /dev/null -m 120 -H 'X-N8N-API-KEY: none' "http://127.0.0.1:$port/api/v1/discover"
      return
    fi
    kill -0 "$(cat "$data/n8n.pid")" 2>/dev/null || break
    sleep 0.2
  done
  log "n8n did not start: see $data/n8n.log"
  exit 69
}

possible() {
  command -v npm >/dev/null && command -v curl >/dev/null || { log "needs npm and curl"; return 78; }
  ls -d /usr/lib/postgresql/*/bin >/dev/null 2>&1 || { log "needs PostgreSQL: apt-get install postgresql"; return 78; }
  [ -e "$root/node_modules/.installed" ] || npm view "n8n@$version" version >/dev/null 2>&1 \
    || { log "npm has no n8n $version here"; return 78; }
}

case "${1:-up}" in
  possible) possible ;;
  up)
    possible
    off=false
    [ "${2:-}" != public-api-off ] || off=true
    mkdir -p "$cache" "$data"
    exec 9>"$cache/n8n.lock"
    flock 9
    install_n8n
    start_postgres 9>&-
    stop_n8n
    start_n8n "$off" 9>&-
    echo "http://127.0.0.1:$port"
    ;;
  down)
    stop_n8n
    if [ -e "$data/pg/postmaster.pid" ]; then
      as_postgres "$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)/pg_ctl" -D "$data/pg" -m immediate -w stop >&2 || true
    fi
    rm -rf --one-file-system "$data"
    ;;
  *) log "usage: n8n.sh up [public-api-off] | down | possible"; exit 2 ;;
esac

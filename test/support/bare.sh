#!/usr/bin/env bash
# README's second command, `npm ci && npm test`, as on a machine that has Node.js with npm, git, sh and the coreutils and
# nothing else, not even a shell of one's own: a clone of the last commit, an empty HOME, no variable but what reaches the
# npm registry and its cache, and other servers on the default ports. Exits with its result; the last line counts the
# tests. bare.sh [FOLDER] leaves the clone in that folder, which must not exist, for whoever goes on with it.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
ports=
trap '[ -z "$ports" ] || kill "$ports"; rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/home"
coreutils='[ base64 basename cat chmod chown cp cut date dd df dirname du echo env expr false head hostid id install join kill
  link ln logname ls md5sum mkdir mkfifo mknod mktemp mv nice nl nohup nproc od paste printenv printf pwd readlink realpath
  rm rmdir seq sha256sum sleep sort split stat stty sum sync tac tail tee test timeout touch tr true truncate tty uname
  uniq unlink wc who whoami yes'
for name in node npm npx git sh $coreutils; do
  path=$(type -P "$name" || true)
  [ -z "$path" ] || ln -s "$path" "$work/bin/$name"
done
clone=${1:-$work/apikeyd}
git clone -q --depth 1 "file://$root" "$clone"
cd "$clone"
node -e 'for (const port of [50051, 8080, 9464]) require("node:net").createServer().on("error", () => {}).listen(port)' &
ports=$!
variables=(HOME="$work/home" PATH="$work/bin" npm_config_registry="$(npm config get registry)" npm_config_cache="$(npm config get cache)")
for name in HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy NODE_EXTRA_CA_CERTS; do
  [ -z "${!name:-}" ] || variables+=("$name=${!name}")
done
bare() { env -i "${variables[@]}" "$@"; }
bare npm ci --no-audit --no-fund
bare npm test

#!/usr/bin/env bash
# Runs the image of build.sh without an engine: unpacked by umoci, as the image's user, on a root that is read-only but for
# /data, as process 1 of a process namespace of its own.
#   run.sh BUNDLE DATA [NAME=value …]    settings that differ from those of the image; ends with the exit code of the server
set -euo pipefail
bundle=$1 data=$2
shift 2
out=${APIKEYD_IMAGE_DIR:-$(cd "$(dirname "$0")/../.." && pwd)/build/image}
[ -d "$bundle" ] || umoci unpack --image "$out/oci:latest" "$bundle" >/dev/null
mkdir -p "$data"
chown 65532:65532 "$data"
# What the image starts, in which environment and as whom, a line each.
of() {
  node -p "const { process: p } = JSON.parse(require('fs').readFileSync('$bundle/config.json')); $1"
}
mapfile -t args < <(of 'p.args.join("\n")')
mapfile -t env < <(of 'p.env.join("\n")')
user=$(of '`${p.user.uid}:${p.user.gid}`')
exec unshare --mount --pid --fork --kill-child -- bash -c '
  set -e
  rootfs=$1 data=$2 user=$3 count=$4
  shift 4
  mount --bind "$rootfs" "$rootfs"
  mkdir -p "$rootfs/data" "$rootfs/proc" "$rootfs/dev"
  mount --bind "$data" "$rootfs/data"
  mount -t proc proc "$rootfs/proc"
  mount --rbind /dev "$rootfs/dev"
  mount -o remount,bind,ro "$rootfs"
  exec env -i "${@:1:$count}" /usr/sbin/chroot --userspec="$user" "$rootfs" "${@:$((count + 1))}"
' run "$bundle/rootfs" "$data" "$user" "$((${#env[@]} + $#))" "${env[@]}" "$@" "${args[@]}"

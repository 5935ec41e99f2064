#!/usr/bin/env bash
# Builds the image of Containerfile without a container engine and without a registry of images: buildah, and bases made of
# Debian's packages and the Node.js of node_modules. Needs root, and: apt-get install buildah umoci mmdebstrap
# Leaves an OCI layout in build/image/oci, tag latest.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${APIKEYD_IMAGE_DIR:-$root/build/image}
for program in buildah umoci mmdebstrap; do
  command -v "$program" >/dev/null || { echo "build.sh: needs $program: apt-get install $program" >&2; exit 78; }
done
node=$root/node_modules/node/bin/node
[ -x "$node" ] || { echo "build.sh: needs node_modules: npm ci" >&2; exit 78; }
mkdir -p "$out/tmp"
export TMPDIR=$out/tmp
buildah=(buildah --storage-driver vfs --root "$out/storage" --runroot "$out/run")
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")

# A root file system of these packages and Node.js; further arguments are folders to copy in, "from:to".
base() {
  local name=$1 packages=$2
  shift 2
  local rootfs=$out/tmp/$name
  rm -rf "$rootfs"
  [ -f "$out/$name.tar" ] || mmdebstrap --quiet --variant=extract --include="$packages" "$suite" "$out/$name.tar"
  mkdir -p "$rootfs"
  tar -xf "$out/$name.tar" -C "$rootfs" --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*'
  mkdir -p "$rootfs/usr/local/bin" "$rootfs/tmp" "$rootfs/root"
  chmod 1777 "$rootfs/tmp"
  cp "$node" "$rootfs/usr/local/bin/node"
  printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/data:/sbin/nologin\n' > "$rootfs/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' > "$rootfs/etc/group"
  for copy in "$@"; do
    mkdir -p "$rootfs${copy#*:}"
    cp -a "${copy%%:*}/." "$rootfs${copy#*:}"
  done
  local container
  container=$("${buildah[@]}" from scratch)
  "${buildah[@]}" add --quiet "$container" "$rootfs" / >/dev/null
  "${buildah[@]}" commit --quiet --rm "$container" "localhost/$name" >/dev/null
  rm -rf "$rootfs"
}

# By where the program lies: with the Node.js of node_modules in front `npm root -g` names another folder.
npm=$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")
base apikeyd-runtime libc6,libstdc++6,libgcc-s1,ca-certificates
base apikeyd-builder libc6,libstdc++6,libgcc-s1,ca-certificates,dash,coreutils "$npm:/usr/local/lib/node_modules/npm"
container=$("${buildah[@]}" from localhost/apikeyd-builder)
mounted=$("${buildah[@]}" mount "$container")
ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$mounted/usr/local/bin/npm"
ln -sf ../lib/node_modules/npm/bin/npx-cli.js "$mounted/usr/local/bin/npx"
mkdir -p "$mounted/usr/bin"
[ -e "$mounted/usr/bin/env" ] || ln -s ../../bin/env "$mounted/usr/bin/env"
"${buildah[@]}" umount "$container" >/dev/null
certificates=/etc/ssl/certs/ca-certificates.crt
"${buildah[@]}" config --env PATH=/usr/local/bin:/usr/bin:/bin --env NODE_EXTRA_CA_CERTS=$certificates "$container"
"${buildah[@]}" commit --quiet --rm "$container" localhost/apikeyd-builder >/dev/null

# What this machine trusts, and where it has packages from.
mounts=()
[ -f "$certificates" ] && mounts+=(--volume "$certificates:$certificates:ro")
[ -f "$HOME/.npmrc" ] && mounts+=(--volume "$HOME/.npmrc:/root/.npmrc:ro")
"${buildah[@]}" bud --quiet --isolation chroot --network host "${mounts[@]}" \
  --build-arg BUILDER=localhost/apikeyd-builder --build-arg RUNTIME=localhost/apikeyd-runtime \
  -t localhost/apikeyd -f "$root/Containerfile" "$root"
rm -rf "$out/oci"
"${buildah[@]}" push --quiet localhost/apikeyd "oci:$out/oci:latest"
echo "$out/oci"

#!/usr/bin/env bash
# The peers that `npm run bench` measures beside apikeyd, into a folder: BENCH_PEERS=DIR npm run bench -- --only peers
set -euo pipefail
folder=${1:?the folder}
mkdir -p "$folder/bin"
[ -x "$folder/bin/openfga" ] || GOBIN=$folder/bin go install github.com/openfga/openfga/cmd/openfga@latest
echo '{"private":true,"type":"module"}' > "$folder/package.json"
# The API-key plugin and its host ask for different versions of a package that they share.
npm install --prefix "$folder" --legacy-peer-deps better-auth@1.7.25 @better-auth/api-key@1.7.5 @better-auth/core@1.7.25

#!/usr/bin/env bash
# What the end-to-end tests run: grpcurl and h2spec by Go, curl, h2load and redis-server by apt. Safe to run twice.
set -euo pipefail
cache=${APIKEYD_TEST_CACHE:-${HOME:-/root}/.cache/apikeyd-test}
mkdir -p "$cache/bin"
[ -x "$cache/bin/grpcurl" ] || GOBIN=$cache/bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
[ -x "$cache/bin/h2spec" ] || GOBIN=$cache/bin go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
missing=()
command -v curl >/dev/null || missing+=(curl)
command -v h2load >/dev/null || missing+=(nghttp2-client)
command -v redis-server >/dev/null || missing+=(redis-server)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  apt-get install -y -qq "${missing[@]}"
fi

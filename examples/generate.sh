#!/usr/bin/env bash
# Makes a client from the protos: generate.sh python|go|java [PYTHON]. Go needs protoc-gen-go and protoc-gen-go-grpc on
# PATH; Java needs Maven, which builds the backend, too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
protos=(apikey/v1/auth.proto apikey/v1/key.proto)
case ${1:?python, go or java} in
  python)
    mkdir -p "$here/python/generated"
    "${2:-python3}" -m grpc_tools.protoc -I "$root/proto" --python_out="$here/python/generated" \
      --grpc_python_out="$here/python/generated" "${protos[@]}"
    ;;
  go)
    "$root/node_modules/.bin/buf" generate "$root/proto" --template "$here/go/buf.gen.yaml" -o "$here/go" --path "$root/proto/apikey"
    ;;
  java)
    mvn -q -B -f "$here/java/pom.xml" package
    ;;
  *)
    echo "no such language: $1" >&2
    exit 64
    ;;
esac

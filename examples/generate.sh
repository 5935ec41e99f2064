#!/usr/bin/env bash
# Makes a client from the protos: generate.sh python|java [PYTHON]. Java needs Maven, which builds the backend, too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
protos=(apikey/v1/auth.proto apikey/v1/key.proto)
case ${1:?python or java} in
  python)
    mkdir -p "$here/python/generated"
    "${2:-python3}" -m grpc_tools.protoc -I "$root/proto" --python_out="$here/python/generated" \
      --grpc_python_out="$here/python/generated" "${protos[@]}"
    ;;
  java)
    mvn -q -B -f "$here/java/pom.xml" package
    ;;
  *)
    echo "no such language: $1" >&2
    exit 64
    ;;
esac

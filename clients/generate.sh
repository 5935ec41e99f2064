#!/usr/bin/env bash
# Generates the messages of a client from the protos: generate.sh go|python [FOLDER]. Without a folder they are written
# into the client itself. Go needs on PATH the programs that these commands install:
#   go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.6
#   go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1
# Python needs a `python` with grpcio-tools 1.75: the output of newer ones needs a newer protobuf than pyproject.toml has.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
language=${1:?go or python}
case $language in
  go) out=${2:-$here/go} ;;
  python) out=${2:-$here/python/src/apikeyd/_generated} ;;
  *) echo "no such language: $language" >&2; exit 64 ;;
esac
mkdir -p "$out"
cd "$here/$language"
"$here/../node_modules/.bin/buf" generate "$here/../proto" --template buf.gen.yaml -o "$out" \
  --path "$here/../proto/apikey/v1/auth.proto" --path "$here/../proto/apikey/v1/key.proto"
if [ "$language" = python ]; then
  # The modules are inside the package, since another package may have the name `apikey`.
  for file in "$out"/apikey/v1/*.py*; do
    sed -e 's/^from apikey\.v1 import /from . import /' "$file" > "$out/${file##*/}"
  done
  rm -r "$out/apikey"
fi

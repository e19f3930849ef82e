#!/usr/bin/env bash
# Builds runc-bounded, which both the engine outside and containerd on the nodes start containers through.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
out=$VECTORIZER_CACHE/bin/runc-bounded
[ -x "$out" ] && [ "$out" -nt "$here/go/runc-bounded/main.go" ] && exit 0
mkdir -p "$VECTORIZER_CACHE/bin"
cd "$here/go/runc-bounded"
CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w' -o "$out.part" .
mv "$out.part" "$out"

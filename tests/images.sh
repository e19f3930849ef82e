#!/bin/bash
# Builds localhost/vectorizer-{node,operator,e2e}:dev and loads them into the cluster, if it runs.
#
# The binaries are compiled here, where the tests want them too, and copied into the images. Where they would not run
# there (a C library newer than that of Debian 12) the images compile from source, which needs a Rust image.
# BINARIES=source or BINARIES=prebuilt decides otherwise.
set -euo pipefail
. "$(dirname "$0")/steps.sh"
. tests/kind/env.sh

suits_debian_12() {
  local version
  version=$(getconf GNU_LIBC_VERSION 2>/dev/null) || return
  [ "$(printf '%s\n' "${version#glibc }" 2.36 | sort -V | tail -n 1)" = 2.36 ]
}
binaries=${BINARIES:-}
[ -n "$binaries" ] || { if suits_debian_12; then binaries=prebuilt; else binaries=source; fi; }

options=()
if [ "$binaries" = prebuilt ]; then
  step "Binaries for the images (about 10 minutes the first time on 2 cores)"
  cargo build "${CARGO_FLAGS[@]}" --bins
  mkdir -p target/image
  for binary in vectorizer-node vectorizer-operator vectorizer-e2e; do
    # Only when it changed: Docker then reuses its layers.
    cmp -s "target/release/$binary" "target/image/$binary" || {
      cp "target/release/$binary" "target/image/$binary.part"
      strip "target/image/$binary.part" 2>/dev/null || true
      mv "target/image/$binary.part" "target/image/$binary"
    }
  done
  options=(--build-arg BUILDER=debian:bookworm-slim)
fi

step "Images"
mkdir -p target
images=()
for target in node operator e2e; do
  image=localhost/vectorizer-$target:dev
  docker build "${options[@]}" --target "$target" -t "$image" . >target/docker-build.log 2>&1 \
    || { tail -n 30 target/docker-build.log >&2; exit 1; }
  printf '    %-36s %s\n' "$image" "$(docker image inspect -f '{{.Size}}' "$image" | awk '{printf "%d MB", $1 / 1000000}')"
  images+=("$image")
done
if kind get clusters 2>/dev/null | grep -qx "$KIND_CLUSTER_NAME"; then
  tests/kind/load.sh "${images[@]}"
fi
step_done

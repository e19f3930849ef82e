#!/bin/bash
# Builds localhost/vectorizer-{node,operator,e2e}:dev and loads them into the cluster, if it runs.
#
# The binaries are compiled here, where the tests want them too, and copied into the images. Where they would not run
# there (a C library newer than that of Debian 12) the images compile from source, which needs a Rust image.
# BINARIES=source or BINARIES=prebuilt decides otherwise. `images.sh --compile` only compiles them; `images.sh --built`
# takes the binaries that are there, which after the tests' own build are those that the process tests run.
set -euo pipefail
. "$(dirname "$0")/steps.sh"
. tests/kind/env.sh

suits_debian_12() {
  local version
  version=$(getconf GNU_LIBC_VERSION 2>/dev/null) || return
  [ "$(printf '%s\n' "${version#glibc }" 2.36 | sort -V | tail -n 1)" = 2.36 ]
}
binaries=${BINARIES:-$(suits_debian_12 && echo prebuilt || echo source)}

options=()
if [ "$binaries" = prebuilt ]; then
  if [ "${1:-}" != --built ]; then
    step "Binaries for the images (about 6 minutes the first time on 2 cores)"
    cargo build "${CARGO_FLAGS[@]}" --bins
  fi
  [ "${1:-}" != --compile ] || exit 0
  mkdir -p target/image
  for binary in vectorizer-node vectorizer-operator vectorizer-e2e; do
    cp "$RELEASE/$binary" target/image/
  done
  options=(--build-arg BUILDER=debian:bookworm-slim)
elif [ "${1:-}" = --compile ]; then
  exit 0
else
  options=(--build-arg "PACKAGES=vectorizer-node vectorizer-operator vectorizer-e2e")
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

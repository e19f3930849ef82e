#!/usr/bin/env bash
# load.sh IMAGE…: puts local images on the cluster's nodes. What is there already, by image id, is left out.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
[ $# -gt 0 ] || { echo "usage: $0 IMAGE…" >&2; exit 2; }
marks=/var/lib/vectorizer-images
mapfile -t nodes < <(kind get nodes --name "$KIND_CLUSTER_NAME")
wanted=()
for image; do
  id=$(docker image inspect -f '{{.Id}}' "$image") || { echo "no local image $image: build it first" >&2; exit 1; }
  for node in "${nodes[@]}"; do
    docker exec "$node" sh -c "grep -qsxF '$id' '$marks/${image//\//_}' && ctr -n k8s.io images ls -q | grep -qF '$image'" ||
      { wanted+=("$image") && break; }
  done
done
[ ${#wanted[@]} -gt 0 ] || exit 0
kind load docker-image --name "$KIND_CLUSTER_NAME" "${wanted[@]}" >/dev/null 2>"$VECTORIZER_CACHE/kind-load.log" ||
  { cat "$VECTORIZER_CACHE/kind-load.log" >&2; exit 1; }
for image in "${wanted[@]}"; do
  id=$(docker image inspect -f '{{.Id}}' "$image")
  for node in "${nodes[@]}"; do docker exec "$node" sh -c "mkdir -p $marks && echo '$id' >'$marks/${image//\//_}'"; done
done

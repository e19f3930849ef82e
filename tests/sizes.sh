#!/bin/bash
# The images are small, run as nobody in particular, and start without a shell.
set -euo pipefail
size() { docker image inspect -f '{{.Size}}' "$1"; }
base=$(size debian:bookworm-slim)
for target in node operator; do
  image=localhost/vectorizer-$target:dev
  over=$((($(size "$image") - base) / 1000000))
  [ "$over" -lt 100 ] || { echo "$image is $over MB over its base: below 100 is wanted"; exit 1; }
  [ "$(docker image inspect -f '{{.Config.User}}' "$image")" = 65532:65532 ] || { echo "$image does not run as 65532"; exit 1; }
  docker run --rm --read-only --network none --cap-drop ALL "$image" --version || { echo "$image does not start"; exit 1; }
done

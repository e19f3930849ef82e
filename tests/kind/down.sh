#!/usr/bin/env bash
# Deletes the test cluster, and nothing else. `down.sh --engine` also stops the Docker engine if engine.sh started it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
if docker info >/dev/null 2>&1 && command -v kind >/dev/null; then
  kind delete cluster --name "$KIND_CLUSTER_NAME" --kubeconfig "$KUBECONFIG"
fi
if [ "${1:-}" = --engine ] && [ -f "$VECTORIZER_CACHE/dockerd.pid" ]; then
  pid=$(cat "$VECTORIZER_CACHE/dockerd.pid")
  # The number may belong to another process by now.
  if grep -qa dockerd "/proc/$pid/cmdline" 2>/dev/null; then
    kill "$pid"
    for _ in $(seq 300); do # a process that has ended and was not waited for has no command line any more
      grep -qa dockerd "/proc/$pid/cmdline" 2>/dev/null || break
      sleep 0.2
    done
    if grep -qa dockerd "/proc/$pid/cmdline" 2>/dev/null; then echo "the Docker engine does not stop" >&2; exit 1; fi
  fi
  rm -f "$VECTORIZER_CACHE/dockerd.pid"
fi

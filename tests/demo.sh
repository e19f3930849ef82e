#!/bin/bash
# `make demo`: everything from a bare machine to a promotion under load, and it stays running afterwards.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

step "Kubernetes, and beside it the binaries for the images"
begin_cluster
tests/images.sh --compile
await_cluster
step_done
. tests/kind/env.sh
tests/images.sh --built
step "The operator: helm install vectorizer-operator charts/vectorizer-operator"
tests/install.sh
step_done
cargo build --quiet "${CARGO_FLAGS[@]}" --bin vectorizer-e2e
exec "$RELEASE/vectorizer-e2e" demo

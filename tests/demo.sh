#!/bin/bash
# `make demo`: everything from a bare machine to a promotion under load, and it stays running afterwards.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

step "Kubernetes"
tests/kind/up.sh
step_done
. tests/kind/env.sh
tests/images.sh
step "The operator: helm install vectorizer-operator charts/vectorizer-operator"
tests/install.sh
step_done
cargo build --quiet "${CARGO_FLAGS[@]}" --bin vectorizer-e2e
exec "$RELEASE/vectorizer-e2e" demo

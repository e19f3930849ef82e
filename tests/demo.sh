#!/bin/bash
# `make demo`: everything from a bare machine to a promotion under load, and it stays running afterwards.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

step "Kubernetes"
tests/kind/up.sh
. tests/kind/env.sh
tests/images.sh
step "The operator: helm install vectorizer-operator charts/vectorizer-operator"
tests/install.sh
step_done
exec target/image/vectorizer-e2e demo

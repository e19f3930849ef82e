#!/bin/bash
# Installs or upgrades the operator in the cluster by its chart, with the images built here, and waits for it. Arguments
# go to helm.
set -euo pipefail
. "$(dirname "$0")/steps.sh"
. tests/kind/env.sh

helm upgrade --install vectorizer-operator charts/vectorizer-operator \
  --namespace vectorizer-system --create-namespace \
  --set image.repository=localhost/vectorizer-operator,image.tag=dev,image.pullPolicy=Never \
  --set nodeImage.repository=localhost/vectorizer-node,nodeImage.tag=dev \
  --set-string "podAnnotations.image=$(docker image inspect -f '{{.Id}}' localhost/vectorizer-operator:dev)" \
  "$@" --wait --timeout 3m >target/helm.log 2>&1 || {
    cat target/helm.log >&2
    kubectl -n vectorizer-system get pods -o wide >&2
    kubectl -n vectorizer-system logs -l app.kubernetes.io/name=vectorizer-operator --tail 20 >&2
    exit 1
  }

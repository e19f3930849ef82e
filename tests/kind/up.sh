#!/usr/bin/env bash
# Brings the test cluster up from whatever state the machine is in, and touches no other cluster. Idempotent:
# a second run takes about a second. Where the node image can be had or pulled, plain kind; otherwise image.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
nodes=("$KIND_CLUSTER_NAME-control-plane" "$KIND_CLUSTER_NAME-worker" "$KIND_CLUSTER_NAME-worker2")
mkdir -p "$VECTORIZER_CACHE/bin"
(. "$here/../steps.sh") # installs what scripts use

api() { kubectl --request-timeout=5s "$@"; }
since=0 # nodes must have been heard of after this: a node that was just killed still counts as ready for a while
healthy() { # every node ready and heard of, cluster DNS and storage at work
  { api get nodes -o json && api -n kube-node-lease get leases -o json; } 2>/dev/null | python3 -c '
import datetime, json, sys
decoder, text = json.JSONDecoder(), sys.stdin.read()
nodes, end = decoder.raw_decode(text)
leases, _ = decoder.raw_decode(text[end:].lstrip())
ready = {n["metadata"]["name"] for n in nodes["items"]
         if any(c["type"] == "Ready" and c["status"] == "True" for c in n["status"]["conditions"])}
heard = {l["metadata"]["name"] for l in leases["items"]
         if datetime.datetime.fromisoformat(l["spec"]["renewTime"].replace("Z", "+00:00")).timestamp() > float(sys.argv[1])}
sys.exit(not set(sys.argv[2:]) <= ready & heard)' "$since" "${nodes[@]}" 2>/dev/null &&
    api -n kube-system rollout status deployment/coredns --timeout=3s >/dev/null 2>&1 &&
    api -n local-path-storage rollout status deployment/local-path-provisioner --timeout=3s >/dev/null 2>&1 &&
    routed && dns
}
dns() { # asked from another machine: what the API server says of pods may be from before a restart
  local ips ip
  ips=$(api -n kube-system get pods -l k8s-app=kube-dns -o jsonpath='{.items[*].status.podIP}' 2>/dev/null) && [ -n "$ips" ] || return 1
  for ip in $ips; do docker exec "${nodes[1]}" curl -sf --max-time 2 "http://$ip:8181/ready" >/dev/null || return 1; done
}
# Every node gives its pods addresses of its own range, and knows the way to the others': machines that start again
# may have changed addresses among themselves.
routed() {
  local ranges node name range routes
  ranges=$(api get nodes -o jsonpath='{range .items[*]}{.metadata.name} {.spec.podCIDR}{"\n"}{end}' 2>/dev/null) || return 1
  for node in "${nodes[@]}"; do
    routes=$(docker exec "$node" ip -4 route) || return 1
    while read -r name range; do
      if [ "$name" = "$node" ]; then
        docker exec "$node" grep -qF "\"$range\"" /etc/cni/net.d/10-kindnet.conflist || return 1
      else
        grep -q "^$range via $(docker inspect -f '{{.NetworkSettings.Networks.kind.IPAddress}}' "$name") " <<<"$routes" || return 1
      fi
    done <<<"$ranges"
  done
}
exists() { docker inspect "${nodes[0]}" >/dev/null 2>&1; }
ours() { grep -qs "name: kind-$KIND_CLUSTER_NAME\$" "$KUBECONFIG"; } # that file is written here and nowhere else
revive() { # nodes that a test or a killed engine left paused or stopped
  local node state
  for node in "${nodes[@]}"; do
    # Fails where it is connected, as it should be.
    if docker network connect kind "$node" 2>/dev/null; then since=$(date +%s); fi
    state=$(docker inspect -f '{{.State.Status}}' "$node" 2>/dev/null) || return 1
    case $state in
      running) continue ;;
      paused) docker unpause "$node" >/dev/null ;;
      *) docker start "$node" >/dev/null || return 1 ;;
    esac
    since=$(date +%s)
  done
}
wait_healthy() { # wait_healthy SECONDS
  local until=$((SECONDS + $1))
  while ! healthy; do
    [ $SECONDS -lt $until ] || return 1
    sleep 1
  done
}

# One at a time. The engine outlives this script, and so must not hold the lock.
exec 9>"$VECTORIZER_CACHE/lock"
if command -v flock >/dev/null && ! flock -n 9; then
  say "waiting for another up.sh"
  flock 9
fi
"$here/engine.sh" 9>&-
if exists && ! ours; then
  echo "a kind cluster named $KIND_CLUSTER_NAME exists that was not made here: choose another name with" \
    "KIND_CLUSTER_NAME=…, or remove it with: kind delete cluster --name $KIND_CLUSTER_NAME" >&2
  exit 1
fi
outdated=false
if "$here/image.sh" --outdated; then outdated=true; fi
if ! $outdated && exists && revive; then
  if ! healthy; then
    say "waiting for the cluster to come back (usually under a minute)"
    kind export kubeconfig --name "$KIND_CLUSTER_NAME" --kubeconfig "$KUBECONFIG" >/dev/null 2>&1 || true
  fi
  if wait_healthy 120; then
    for node in "${nodes[@]}"; do api uncordon "$node" >/dev/null; done
    exit 0
  fi
  say "the cluster does not come back: making it anew"
fi

pull() { # pull IMAGE: gives up on a registry that has not answered after 20 s, but not on a slow one
  local log=$VECTORIZER_CACHE/pull.log pid
  docker image inspect "$1" >/dev/null 2>&1 && return
  say "looking for the image $1"
  docker pull "$1" >"$log" 2>&1 9>&- &
  pid=$!
  for _ in $(seq 20); do
    if grep -q 'Pulling from' "$log" || ! kill -0 "$pid" 2>/dev/null; then break; fi
    sleep 1
  done
  grep -q 'Pulling from' "$log" || kill "$pid" 2>/dev/null || true
  wait "$pid"
}
if $outdated || ! { pull "$node_image" && pull debian:bookworm-slim; }; then "$here/image.sh"; fi
command -v kind >/dev/null || GOBIN=$VECTORIZER_CACHE/bin go install -trimpath "sigs.k8s.io/kind@v$kind_version"
command -v helm >/dev/null || GOBIN=$VECTORIZER_CACHE/bin go install -trimpath "helm.sh/helm/v3/cmd/helm@v$helm_version"
if ! command -v kubectl >/dev/null; then
  docker run --rm --entrypoint cat "$node_image" /usr/bin/kubectl >"$VECTORIZER_CACHE/bin/kubectl.part"
  chmod +x "$VECTORIZER_CACHE/bin/kubectl.part" && mv "$VECTORIZER_CACHE/bin/kubectl.part" "$VECTORIZER_CACHE/bin/kubectl"
fi

say "creating the cluster $KIND_CLUSTER_NAME (usually 40 s)"
kind delete cluster --name "$KIND_CLUSTER_NAME" --kubeconfig "$KUBECONFIG" >/dev/null 2>&1 || true
kind create cluster --name "$KIND_CLUSTER_NAME" --image "$node_image" --config "$here/cluster.yaml" \
  --kubeconfig "$KUBECONFIG" --wait 180s >"$VECTORIZER_CACHE/kind-create.log" 2>&1 ||
  { tail -30 "$VECTORIZER_CACHE/kind-create.log" >&2; exit 1; }
wait_healthy 120 || { api get pods -A >&2; echo "the new cluster is not healthy after 120 s" >&2; exit 1; }

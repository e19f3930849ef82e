# shellcheck shell=bash
# Names, versions and places of the test cluster. Source it; it changes nothing.
export KIND_CLUSTER_NAME=${KIND_CLUSTER_NAME:-vectorizer}
VECTORIZER_CACHE=${VECTORIZER_CACHE:-$HOME/.cache/vectorizer-kind}
export VECTORIZER_CACHE
export VECTORIZER_KUBECONFIG=${VECTORIZER_KUBECONFIG:-$VECTORIZER_CACHE/kubeconfig}
export KUBECONFIG=$VECTORIZER_KUBECONFIG
export PATH=$VECTORIZER_CACHE/bin:$PATH
export DOCKER_BUILDKIT=0

# One place for versions. The tags are those that kubeadm and kind of these versions ask for.
kubernetes_version=1.34.4
kind_version=0.30.0
helm_version=3.19.5
containerd_version=2.2.3
etcd_version=3.6.4
coredns_version=1.12.4
local_path_version=0.0.30
etcd_tag=3.6.5-0
coredns_tag=v1.12.1
pause_tag=3.10
kindnetd_tag=v20250512-df8de77b
local_path_tag=v20250214-acbabc1a
local_path_helper_tag=v20241212-8ac705d0
node_image=${NODE_IMAGE:-kindest/node:v$kubernetes_version}
export kubernetes_version kind_version helm_version containerd_version etcd_version coredns_version local_path_version
export etcd_tag coredns_tag pause_tag kindnetd_tag local_path_tag local_path_helper_tag node_image

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }

#!/usr/bin/env bash
# Builds kindest/node from Go modules and Debian packages, and kind, kubectl and helm beside it, for machines that
# cannot pull it. kind's own `kind build node-image` puts it together; this makes what it would otherwise download.
#
# Two lanes side by side: Debian roots (network and disk) and Go programs (processors). Every step is skipped once its
# output is there, and leaves no output when it fails. Needs root, Go, gcc, python3 and a Docker engine.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
cache=$VECTORIZER_CACHE bin=$VECTORIZER_CACHE/bin logs=$VECTORIZER_CACHE/logs
mkdir -p "$bin" "$logs"
export GOFLAGS=-buildvcs=false
# The compiler is short-lived and memory is there: collecting garbage less often saves a tenth of its time.
export GOGC=${GOGC:-400}
began=$SECONDS

step() { # step NAME USUALLY COMMAND…: runs the command, its output in a log, and says how long it took
  local name=$1 usually=$2 log=$logs/$1.log started=$SECONDS
  shift 2
  say "$name … (usually $usually)"
  if ! "$@" >"$log" 2>&1; then
    printf '%s failed; the end of its log:\n' "$name" >&2
    tail -15 "$log" >&2
    return 1
  fi
  say "$name: done in $((SECONDS - started)) s"
}

# --- Go programs ----------------------------------------------------------------------------------------------------
link() { go build -trimpath -ldflags "-s -w ${ldflags:-}" -o "$1.part" "${@:2}" && mv "$1.part" "$1"; }
install_program() { # install_program NAME PACKAGE@VERSION
  GOBIN=$cache/gobin go install -trimpath -ldflags '-s -w' "$2" && mv "$cache/gobin/$1" "$bin/$1"
}
module_dir() { # module_dir NAME: an empty folder for a Go module made on the spot
  rm -rf "$cache/src/$1" && mkdir -p "$cache/src/$1" && cd "$cache/src/$1"
}
build_kubernetes() {
  module_dir kubernetes && cp "$here/go/kubernetes/main.go" . || return
  local mod
  mod=$(go mod download -json "k8s.io/kubernetes@v$kubernetes_version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  # Kubernetes names its parts by a path in its own repository; they are published as v0.<minor>.<patch>.
  {
    printf 'module kubernetes-all\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes v%s\n\n' "$kubernetes_version"
    awk -v version="v0.${kubernetes_version#1.}" '/=> .\/staging/ { print "replace " $1 " => " $1 " " version }' "$mod"
  } >go.mod
  go mod tidy || return
  local package=k8s.io/component-base/version minor=${kubernetes_version#1.}
  local ldflags="-X $package.gitVersion=v$kubernetes_version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean"
  link "$bin/kubernetes" .
}
build_containerd() {
  module_dir containerd && go mod init containerd-tools || return
  local package=github.com/containerd/containerd/v2/cmd program
  go get -tool "$package/containerd@v$containerd_version" "$package/ctr@v$containerd_version" "$package/containerd-shim-runc-v2@v$containerd_version" || return
  local ldflags="-X github.com/containerd/containerd/v2/version.Version=v$containerd_version"
  for program in ctr containerd-shim-runc-v2 containerd; do # the one that is looked for comes last
    link "$bin/$program" -tags 'no_btrfs no_devmapper no_zfs' "$package/$program" || return
  done
}
build_etcd() {
  module_dir etcd && go mod init etcd-main || return
  cat >main.go <<'GO'
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
GO
  go get "go.etcd.io/etcd/server/v3@v$etcd_version" && go mod tidy && link "$bin/etcd" .
}
build_coredns() {
  module_dir coredns && cp "$here/go/coredns/main.go" . && go mod init coredns-main || return
  go get "github.com/coredns/coredns@v$coredns_version" && go mod tidy && link "$bin/coredns" .
}
go_lane() {
  [ -x "$bin/kind" ] || step kind '1 min' install_program kind "sigs.k8s.io/kind@v$kind_version"
  [ -x "$bin/kubernetes" ] || step kubernetes '4 to 6 min' build_kubernetes
  ln -sf kubernetes "$bin/kubectl"
  [ -x "$bin/containerd" ] || step containerd '1 min' build_containerd
  [ -x "$bin/etcd" ] || step etcd '1 min' build_etcd
  [ -x "$bin/coredns" ] || step coredns '1 min' build_coredns
  [ -x "$bin/local-path-provisioner" ] || step local-path-provisioner '1 min' \
    install_program local-path-provisioner "github.com/rancher/local-path-provisioner@v$local_path_version"
  [ -x "$bin/helm" ] || step helm '1 to 2 min' install_program helm "helm.sh/helm/v3/cmd/helm@v$helm_version"
  "$here/runc-bounded.sh"
  gcc -O2 -static -s -o "$bin/pause" "$here/pause.c"
  install -m755 "$here/kindnetd" "$bin/kindnetd"
}

# --- Debian roots ---------------------------------------------------------------------------------------------------
make_root() { # make_root NAME PACKAGES: a Debian root file system as a tar
  local root scratch=$cache
  # Unpacking packages syncs after each file; in memory that costs nothing.
  if [ "$(df --output=avail -m /dev/shm 2>/dev/null | tail -1)" -gt 3000 ]; then scratch=/dev/shm; fi
  root=$(mktemp -d "$scratch/vectorizer-root.XXXXXX")
  mkdir -p "$cache/debs"
  if debootstrap --variant=minbase --cache-dir="$cache/debs" --include="$2" bookworm "$root"; then
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
    tar -C "$root" -cf "$cache/$1.tar.part" . && mv "$cache/$1.tar.part" "$cache/$1.tar"
  fi
  rm -rf "$root"
  [ -f "$cache/$1.tar" ]
}
get_debootstrap() { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap; }
debian_lane() {
  command -v debootstrap >/dev/null || step debootstrap '10 s' get_debootstrap
  [ -f "$cache/slim.tar" ] || step root-slim '30 s' make_root slim ca-certificates
  [ -f "$cache/components.tar" ] || step root-components '40 s' make_root components \
    iptables,nftables,conntrack,kmod,busybox-static,iproute2,curl,jq,ca-certificates
  [ -f "$cache/node.tar" ] || step root-node '1 min' make_root node \
    systemd,conntrack,iptables,nftables,iproute2,ethtool,mount,kmod,libseccomp2,pigz,ca-certificates,curl,jq,procps,containernetworking-plugins,runc,nfs-common,open-iscsi
}

# --- Images ---------------------------------------------------------------------------------------------------------
context() { # context NAME: an empty folder for a docker build
  rm -rf "$cache/context-$1" && mkdir -p "$cache/context-$1" && echo "$cache/context-$1"
}
build_base() { # kind's base image, on a Debian root and with programs built here
  local ctx source
  ctx=$(context base)
  source=$(go mod download -json "sigs.k8s.io/kind@v$kind_version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  cp -r "$source/images/base/files" "$ctx/files" && chmod -R u+w "$ctx/files"
  ln "$cache/node.tar" "$ctx/" && cp "$bin"/{containerd,ctr,containerd-shim-runc-v2,runc-bounded} "$ctx/"
  # Containers on the nodes start through runc-bounded as well.
  sed -i -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
    -e 's#^\( *\)SystemdCgroup = true#&\n\1BinaryName = "/usr/local/bin/runc-bounded"#' "$ctx/files/etc/containerd/config.toml"
  cat >"$ctx/Dockerfile" <<'DOCKERFILE'
FROM scratch
ADD node.tar /
COPY files/ /
COPY containerd ctr containerd-shim-runc-v2 runc-bounded /usr/local/bin/
RUN chmod 755 /usr/local/bin/* /kind /kind/bin /kind/bin/* \
 && rm -f /lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \
    /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* /lib/systemd/system/local-fs.target.wants/* \
    /lib/systemd/system/sockets.target.wants/*udev* /lib/systemd/system/sockets.target.wants/*initctl* /lib/systemd/system/basic.target.wants/* \
 && echo ReadKMsg=no >>/etc/systemd/journald.conf && ln -sf /lib/systemd/systemd /sbin/init \
 && systemctl enable kubelet.service containerd.service undo-mount-hacks.service && systemctl mask systemd-binfmt.service \
 && mkdir -p /etc/kubernetes/manifests /opt/cni && ln -s /usr/lib/cni /opt/cni/bin \
 && ctr oci spec | jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' >/etc/containerd/cri-base.json
ENV container=docker
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
DOCKERFILE
  docker build -q -t vectorizer-kind-base "$ctx" && rm -rf "$ctx"
}
build_components() { # the images that kubeadm and kind expect on a node
  local ctx target
  ctx=$(context components)
  mkdir "$ctx/bin" && ln "$cache/components.tar" "$ctx/"
  cp "$bin"/{kubernetes,etcd,coredns,local-path-provisioner,pause,kindnetd} "$ctx/bin/"
  cat >"$ctx/Dockerfile" <<'DOCKERFILE'
FROM scratch AS all
ADD components.tar /
COPY bin/ /usr/local/bin/
RUN cd /usr/local/bin && for c in kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do ln -s kubernetes $c; done
FROM all AS coredns
ENTRYPOINT ["/usr/local/bin/coredns"]
FROM all AS kindnetd
ENTRYPOINT ["/usr/local/bin/kindnetd"]
FROM scratch AS pause
COPY bin/pause /pause
ENTRYPOINT ["/pause"]
DOCKERFILE
  for target in all coredns kindnetd pause; do docker build -q --target $target -t vectorizer-kind-$target "$ctx"; done
  rm -rf "$ctx"
}
archive() { # archive FILE IMAGE TAG…: an image under the names that the node will ask for
  local file=$1 from=$2 tag
  shift 2
  for tag; do docker tag "$from" "$tag"; done
  docker save "$@" | python3 "$here/full_names.py" >"$file"
  docker rmi "$@" >/dev/null
}
build_node() {
  local out=$cache/server server r=registry.k8s.io program
  rm -rf "$out" && server=$out/kubernetes/server/bin && mkdir -p "$server"
  echo "v$kubernetes_version" >"$out/kubernetes/version"
  for program in kubeadm kubelet kubectl; do cp "$bin/kubernetes" "$server/$program"; done
  # kind loads these four files, whatever images are in them.
  archive "$server/kube-apiserver.tar" vectorizer-kind-all \
    $r/kube-apiserver:v$kubernetes_version $r/kube-controller-manager:v$kubernetes_version \
    $r/kube-scheduler:v$kubernetes_version $r/kube-proxy:v$kubernetes_version $r/etcd:$etcd_tag \
    kindest/local-path-provisioner:$local_path_tag kindest/local-path-helper:$local_path_helper_tag
  archive "$server/kube-controller-manager.tar" vectorizer-kind-coredns $r/coredns/coredns:v$coredns_version
  archive "$server/kube-scheduler.tar" vectorizer-kind-pause $r/pause:$pause_tag
  archive "$server/kube-proxy.tar" vectorizer-kind-kindnetd kindest/kindnetd:$kindnetd_tag
  tar -C "$out" -c kubernetes | gzip -1 >"$cache/server.tar.gz" && rm -rf "$out"
  kind build node-image --type file "$cache/server.tar.gz" --base-image vectorizer-kind-base --image "$node_image" || return
  rm -f "$cache/server.tar.gz"
}

# A function called from `if` or `||` runs without `set -e`: the steps are processes of this script's own instead.
if [ "${1:-}" = --part ]; then "$2"; exit; fi

say "building the cluster's image from source: about 12 minutes on 2 cores the first time, nothing afterwards"
for lane in debian_lane go_lane; do "$0" --part $lane & lanes+=($!); done
trap 'kill "${lanes[@]}" 2>/dev/null || true' EXIT
for _ in "${lanes[@]}"; do wait -n; done # the first failure ends the script, and the trap the other lane
trap - EXIT
docker image inspect debian:bookworm-slim >/dev/null 2>&1 || docker import "$cache/slim.tar" debian:bookworm-slim >/dev/null
if ! docker image inspect "$node_image" >/dev/null 2>&1; then
  for part in build_base build_components build_node; do step "$part" '1 min' "$0" --part $part; done
fi
say "the cluster's image is ready after $((SECONDS - began)) s"

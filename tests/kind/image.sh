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
images=vectorizer-kind # what the images that are made on the way are called
programs=(kind helm ctr containerd-shim-runc-v2 containerd etcd coredns kubernetes local-path-provisioner)

# --- Parts ----------------------------------------------------------------------------------------------------------
# A part is a function of this file that runs as a process of its own: called from `if` or `||` it would run without
# `set -e`, and in the background it could not be ended together with what it started.
together() { # together PART…: side by side; the first that fails ends the others, and this script
  local part pids=()
  set -m # a process group for each, so that a compiler goes with the part that started it
  for part; do
    "$0" --part "$part" &
    pids+=($!)
  done
  # shellcheck disable=SC2064 # the ids of now
  trap "kill -- ${pids[*]/#/-} 2>/dev/null || true" EXIT
  trap 'exit 130' INT TERM
  for part; do wait -n; done
  trap - EXIT INT TERM
  set +m
}

step() { # step NAME USUALLY PART ARGUMENT…: its output goes to a log; a line each minute, and how long it took
  local name=$1 usually=$2 log=$logs/$1.log started=$SECONDS ticker status=0
  shift 2
  say "$name … (usually $usually)"
  while sleep 60 >/dev/null 2>&1; do say "$name: $(((SECONDS - started) / 60)) min so far"; done &
  ticker=$!
  "$0" --part "$@" >"$log" 2>&1 </dev/null || status=$?
  kill "$ticker" 2>/dev/null || true
  if [ $status != 0 ]; then
    printf '%s failed; the end of its log, %s:\n' "$name" "$log" >&2
    tail -15 "$log" >&2
    return 1
  fi
  say "$name: done in $((SECONDS - started)) s"
}

image_exists() { docker image inspect "$1" >/dev/null 2>&1; }

# --- Go programs ----------------------------------------------------------------------------------------------------
# What the programs are made from: another version, or another program, makes them anew.
recipe() { cat "$here/env.sh" "$here/image.sh" "$here"/go/*/* | sha256sum; }
have_programs() {
  local program
  [ "$(cat "$bin/recipe" 2>/dev/null)" = "$(recipe)" ] || return 1
  for program in "${programs[@]}"; do [ -x "$bin/$program" ] || return 1; done
}
# All programs as one module: they agree on the versions of the libraries that they have in common, Kubernetes' client
# and gRPC above all, so that each is compiled once, and one program links while others still compile.
build_programs() {
  local source=$cache/src built=$cache/built mod minor=${kubernetes_version#1.} version=k8s.io/component-base/version
  local containerd=github.com/containerd/containerd/v2
  # Memory is there: collecting the compiler's garbage less often saves a tenth of its time.
  export GOFLAGS=-buildvcs=false GOGC=${GOGC:-400} CGO_ENABLED=0
  rm -rf "$source" "$built"
  mkdir -p "$source"
  cp -r "$here"/go/{kubernetes,etcd,coredns} "$source/"
  cd "$source"
  mod=$(go mod download -json "k8s.io/kubernetes@v$kubernetes_version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  {
    cat <<MODULE
module programs

go 1.24.0

require (
	k8s.io/kubernetes v$kubernetes_version
	go.etcd.io/etcd/server/v3 v$etcd_version
	github.com/coredns/coredns v$coredns_version
	$containerd v$containerd_version
	github.com/rancher/local-path-provisioner v$local_path_version
	sigs.k8s.io/kind v$kind_version
	helm.sh/helm/v3 v$helm_version
)

tool (
	$containerd/cmd/containerd
	$containerd/cmd/containerd-shim-runc-v2
	$containerd/cmd/ctr
	github.com/rancher/local-path-provisioner
	sigs.k8s.io/kind
	helm.sh/helm/v3/cmd/helm
)

MODULE
    # Kubernetes names its parts by a path in its own repository; they are published as v0.<minor>.<patch>.
    awk -v version="v0.$minor" '/=> .\/staging/ { print "replace " $1 " => " $1 " " version }' "$mod"
  } >go.mod
  go mod tidy
  link() {
    go build -trimpath -tags 'no_btrfs no_devmapper no_zfs' -o "$built/" -ldflags "-s -w \
      -X $version.gitVersion=v$kubernetes_version -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*} \
      -X $version.gitTreeState=clean -X $containerd/version.Version=v$containerd_version" "$@"
  }
  link ./kubernetes ./etcd ./coredns "$containerd"/cmd/{containerd,containerd-shim-runc-v2,ctr} sigs.k8s.io/kind helm.sh/helm/v3/cmd/helm
  # By itself: it still spells a library's name as it was once, and Go refuses both spellings in one command.
  link github.com/rancher/local-path-provisioner
  mv "$built"/* "$bin/"
  recipe >"$bin/recipe"
  rmdir "$built"
}
go_lane() {
  have_programs || step programs '6 to 8 min' build_programs
  ln -sf kubernetes "$bin/kubectl"
  "$here/runc-bounded.sh"
  gcc -O2 -static -s -o "$bin/pause" "$here/pause.c"
  install -m755 "$here/kindnetd" "$bin/kindnetd"
}

# --- Debian roots ---------------------------------------------------------------------------------------------------
make_root() { # make_root IMAGE PACKAGES: a Debian root file system as an image
  local scratch=$cache id
  # Unpacking packages syncs after each file; in memory that costs nothing.
  if [ "$(df --output=avail -m /dev/shm 2>/dev/null | tail -1)" -gt 3000 ]; then scratch=/dev/shm; fi
  root=$scratch/vectorizer-root${cache//\//-}
  trap 'rm -rf "$root"' EXIT
  rm -rf "$root"
  mkdir -p "$root" "$cache/debs"
  # In a mount namespace of its own, so that nothing stays mounted when this is killed.
  unshare --mount debootstrap --variant=minbase --cache-dir="$cache/debs" --include="$2" bookworm "$root"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
  id=$(tar -C "$root" -c . | docker import -)
  docker tag "$id" "$1"
}
get_debootstrap() { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap; }
debian_lane() {
  command -v debootstrap >/dev/null || step debootstrap '10 s' get_debootstrap
  image_exists debian:bookworm-slim || step root-slim '30 s' make_root debian:bookworm-slim ca-certificates
  image_exists $images-root-components || step root-components '40 s' make_root $images-root-components \
    iptables,nftables,conntrack,kmod,busybox-static,iproute2,curl,jq,ca-certificates
  # What kind's own base image has, but for what mounts NFS and iSCSI.
  image_exists $images-root-node || step root-node '1 min' make_root $images-root-node \
    systemd,conntrack,iptables,nftables,iproute2,ethtool,mount,kmod,libseccomp2,pigz,ca-certificates,curl,jq,procps,containernetworking-plugins,runc
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
  mkdir "$ctx/bin"
  ln "$bin"/{containerd,ctr,containerd-shim-runc-v2,runc-bounded} "$ctx/bin/"
  # Containers on the nodes start through runc-bounded as well.
  sed -i -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
    -e 's#^\( *\)SystemdCgroup = true#&\n\1BinaryName = "/usr/local/bin/runc-bounded"#' "$ctx/files/etc/containerd/config.toml"
  cat >"$ctx/Dockerfile" <<DOCKERFILE
FROM $images-root-node
COPY files/ /
COPY bin/ /usr/local/bin/
RUN chmod 755 /usr/local/bin/* /kind /kind/bin /kind/bin/* \\
 && rm -f /lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \\
    /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* /lib/systemd/system/local-fs.target.wants/* \\
    /lib/systemd/system/sockets.target.wants/*udev* /lib/systemd/system/sockets.target.wants/*initctl* /lib/systemd/system/basic.target.wants/* \\
 && echo ReadKMsg=no >>/etc/systemd/journald.conf && ln -sf /lib/systemd/systemd /sbin/init \\
 && systemctl enable kubelet.service containerd.service undo-mount-hacks.service && systemctl mask systemd-binfmt.service \\
 && mkdir -p /etc/kubernetes/manifests /opt/cni && ln -s /usr/lib/cni /opt/cni/bin \\
 && ctr oci spec | jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' >/etc/containerd/cri-base.json \\
 && mkdir /usr/local/lib/kubernetes && for c in kubeadm kubelet; do ln -s /usr/bin/kubectl /usr/local/lib/kubernetes/\$c; done
ENV container=docker
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
DOCKERFILE
  docker build -q -t $images-base "$ctx"
  rm -rf "$ctx"
}
build_components() { # the images that kubeadm and kind expect on a node
  local ctx target
  ctx=$(context components)
  mkdir "$ctx/bin"
  ln "$bin"/{kubernetes,etcd,coredns,local-path-provisioner,pause,kindnetd} "$ctx/bin/"
  cat >"$ctx/Dockerfile" <<DOCKERFILE
FROM $images-root-components AS all
COPY bin/ /usr/local/bin/
RUN cd /usr/local/bin && for c in kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do ln -s kubernetes \$c; done
FROM all AS coredns
ENTRYPOINT ["/usr/local/bin/coredns"]
FROM all AS kindnetd
ENTRYPOINT ["/usr/local/bin/kindnetd"]
FROM scratch AS pause
COPY bin/pause /pause
ENTRYPOINT ["/pause"]
DOCKERFILE
  for target in all coredns kindnetd pause; do docker build -q --target $target -t $images-$target "$ctx"; done
  rm -rf "$ctx"
}
build_base_step() { step base '20 s' build_base; }
build_components_step() { step components '20 s' build_components; }
build_node() { # through an archive like those that Kubernetes publishes: kind makes the node image from it
  local out=$cache/server server r=registry.k8s.io kindest=docker.io/kindest program
  rm -rf "$out"
  server=$out/kubernetes/server/bin
  mkdir -p "$server"
  echo "v$kubernetes_version" >"$out/kubernetes/version"
  # One program under three names, but kind copies files and not links.
  ln "$bin/kubernetes" "$server/kubectl"
  # shellcheck disable=SC2016
  for program in kubeadm kubelet; do printf '#!/bin/sh\nexec /usr/local/lib/kubernetes/%s "$@"\n' $program >"$server/$program"; done
  chmod +x "$server"/kube*
  # kind wants these four files, and loads whatever images are in them. Together, their common layers are there once.
  docker save $images-all $images-coredns $images-kindnetd $images-pause | python3 "$here/node_images.py" \
    "$images-all=$r/kube-apiserver:v$kubernetes_version" "$images-all=$r/kube-controller-manager:v$kubernetes_version" \
    "$images-all=$r/kube-scheduler:v$kubernetes_version" "$images-all=$r/kube-proxy:v$kubernetes_version" \
    "$images-all=$r/etcd:$etcd_tag" "$images-all=$kindest/local-path-provisioner:$local_path_tag" \
    "$images-all=$kindest/local-path-helper:$local_path_helper_tag" "$images-coredns=$r/coredns/coredns:$coredns_tag" \
    "$images-kindnetd=$kindest/kindnetd:$kindnetd_tag" "$images-pause=$r/pause:$pause_tag" >"$server/kube-apiserver.tar"
  docker save $images-pause | python3 "$here/node_images.py" "$images-pause=$r/pause:$pause_tag" >"$server/kube-scheduler.tar"
  for program in kube-controller-manager kube-proxy; do ln "$server/kube-scheduler.tar" "$server/$program.tar"; done
  # kind wants gzip: without compressing, which would take longer than all of the rest. Hard links would arrive empty.
  tar -C "$out" --hard-dereference -c kubernetes | python3 -c '
import gzip, shutil, sys
with gzip.open(sys.stdout.buffer, "wb", 0) as out:
    shutil.copyfileobj(sys.stdin.buffer, out, 1 << 20)' >"$out/server.tar.gz"
  # kind leaves what it unpacks in TMPDIR.
  TMPDIR=$out kind build node-image --type file "$out/server.tar.gz" --base-image $images-base --image "$node_image"
  rm -rf "$out"
}

# What the node image is made from. An image from something else is made anew, and with it the cluster.
node_recipe() { { recipe; cat "$here"/{kindnetd,pause.c,node_images.py,runc-bounded.sh}; } | sha256sum; }
have_node() { image_exists "$node_image" && [ "$(cat "$cache/node-recipe" 2>/dev/null)" = "$(node_recipe)" ]; }

case ${1:-} in
  --part)
    shift
    "$@"
    exit
    ;;
  --outdated) # succeeds where the node image was made here, from other files than these
    image_exists $images-all && ! have_node
    exit
    ;;
esac

say "building the cluster's image from source: about 10 minutes on 2 cores the first time, nothing afterwards"
began=$SECONDS
together debian_lane go_lane
if ! have_node; then
  together build_base_step build_components_step
  step node '1 min' build_node
  node_recipe >"$cache/node-recipe"
fi
say "the cluster's image is ready after $((SECONDS - began)) s"

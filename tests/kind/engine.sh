#!/usr/bin/env bash
# Starts a Docker engine where none answers: Debian's, its containers started through runc-bounded. Needs root then.
# Only an engine that was started here is ever stopped here (`down.sh --engine`): its pid is in the cache.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
docker info >/dev/null 2>&1 && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "no Docker engine answers: start it and run this again. (As root on Debian, one would be started here.)" >&2
  exit 1
fi

say "starting a Docker engine"
mkdir -p "$VECTORIZER_CACHE/bin"
if ! command -v dockerd >/dev/null; then
  {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables
  } >"$VECTORIZER_CACHE/apt.log" 2>&1 || { tail -5 "$VECTORIZER_CACHE/apt.log" >&2; exit 1; }
  docker info >/dev/null 2>&1 && exit 0 # where systemd runs, its package has started it
fi
options=()
bounding=$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)
if ((16#$bounding != (2 << $(</proc/sys/kernel/cap_last_cap)) - 1)); then
  "$here/runc-bounded.sh"
  options=(--add-runtime "bounded=$VECTORIZER_CACHE/bin/runc-bounded" --default-runtime bounded)
fi
# An engine that was killed leaves its pid files; they stop the next one when another process has the number by now.
for file in /var/run/docker.pid /run/docker/containerd/containerd.pid; do
  if [ -f "$file" ] && ! grep -qaE 'dockerd|containerd' "/proc/$(cat "$file")/cmdline" 2>/dev/null; then rm -f "$file"; fi
done
# The cache's containerd is for the nodes. The engine takes the one that it was packaged with.
PATH=${PATH//"$VECTORIZER_CACHE/bin:"/} setsid dockerd "${options[@]}" >"$VECTORIZER_CACHE/dockerd.log" 2>&1 </dev/null &
echo $! >"$VECTORIZER_CACHE/dockerd.pid"
for _ in $(seq 120); do
  docker info >/dev/null 2>&1 && exit 0
  sleep 0.5
done
echo "the Docker engine did not come up within 60 s; the end of its log:" >&2
tail -5 "$VECTORIZER_CACHE/dockerd.log" >&2
exit 1

# Sourced by the scripts beside it: the repository's root as the working directory, and steps that show their time.
# shellcheck shell=bash
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# One set of flags for every cargo command of tests and images: another set would compile everything once more.
# shellcheck disable=SC2034
CARGO_FLAGS=(--release --locked --workspace --features vectorizer-e2e/e2e)
# shellcheck disable=SC2034
RELEASE=${CARGO_TARGET_DIR:-target}/release

step() { # step TITLE: begins a step, and says how long the one before it took
  step_done
  step_since=$SECONDS
  printf '\033[1m==> %s\033[0m\n' "$*"
}

step_done() {
  [ -z "${step_since:-}" ] || printf '    %d s\n' $((SECONDS - step_since))
  step_since=
}

need() { # need PROGRAM PACKAGE: installs a Debian package when its program is missing
  command -v "$1" >/dev/null && return
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || {
    printf '%s is missing: install it and run this again\n' "$1" >&2
    return 1
  }
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2"; } \
    >/dev/null 2>&1 || printf '%s could not be installed\n' "$2" >&2
  command -v "$1" >/dev/null
}

begin_cluster() { # Kubernetes comes up beside what follows; await_cluster waits for it
  mkdir -p target
  # In a group of its own, with all that it starts: it ends with this script.
  setsid tests/kind/up.sh >target/cluster.log 2>&1 &
  cluster=$!
  trap 'kill -- "-$cluster" 2>/dev/null' EXIT
  tail -n +1 -f --pid=$cluster target/cluster.log 2>/dev/null | sed -u 's/^/    cluster: /' &
}

await_cluster() {
  local status=0
  wait "$cluster" || status=$?
  trap - EXIT
  return $status
}

# What the scripts themselves use; Rust, Go and a C compiler are the user's to bring.
need python3 python3

#!/bin/bash
# `make mutants`: switches deliberate defects on, one at a time, and shows that a test notices each. Prints a table, and
# fails when one goes unnoticed. Those of the protocol run in the simulator, seed after seed; those of the node run its
# unit tests.
set -uo pipefail
. "$(dirname "$0")/steps.sh"
need column bsdextrautils
mkdir -p target
export PROPTEST_DISABLE_FAILURE_PERSISTENCE=1
rows=target/mutants.txt missed=0
: >"$rows"

step "Defects of the protocol, in the simulator"
log=target/mutants-simulator.log
cargo test --release --locked -p vectorizer-replication --lib -- --exact --nocapture \
  sim::tests::every_deliberate_defect_is_noticed >"$log" 2>&1 || missed=$((missed + 1))
sed -n 's/^.*mutant|//p' "$log" >>"$rows"
[ -s "$rows" ] || { tail -n 40 "$log"; exit 1; }
sed -n 's/^.*not noticed: /not noticed: /p' "$log"

step "Defects of the node, in its unit tests"
log=target/mutants-build.log
cargo test --release --locked -p vectorizer-node --lib --no-run >"$log" 2>&1 || { tail -n 40 "$log"; exit 1; }
binary=$(realpath "$(sed -n 's/^ *Executable unittests .*(\(.*\))$/\1/p' "$log")")

node() { # node DEFECT FILE TEST…: the tests pass without the defect, and one of them fails with it
  local defect=$1 file=$2 log=$PWD/target/mutants-$1.log since=$SECONDS noticed
  shift 2
  # As cargo does it: tests run in their package's directory.
  if ! (cd node && "$binary" "$@") >"$log" 2>&1; then
    tail -n 40 "$log"
    printf '%s: its tests fail without it\n' "$defect"
    missed=$((missed + 1))
    return
  fi
  (cd node && VECTORIZER_BREAKAGE=$defect timeout 120 "$binary" "$@") >"$log" 2>&1
  noticed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | head -n 1)
  if [ -z "$noticed" ]; then
    printf 'not noticed: %s\n' "$defect"
    missed=$((missed + 1))
  else
    printf '%s|%s|%s||%s\n' "$defect" "$file" "$noticed" $((SECONDS - since)) >>"$rows"
  fi
}

node ForgetDeletes writer/follower.rs link::
node KeepDroppedCollections store.rs link:: store::
node KeepListener link/feed.rs link::
node StampCurrentOffset store.rs store::
node SkipFsync writer/thread.rs writer::tests::power
node ResetOffsetsOnRestart journal/recover.rs writer::
node GiveUpOnConflict lease/leadership.rs lease::
node RepeatRequests lease/kubernetes.rs lease::

step_done
{
  echo 'defect|where|caught by|seeds|seconds'
  cat "$rows"
} | column -t -s '|' -o ' | '
[ "$missed" = 0 ] || { printf '%s not noticed\n' "$missed"; exit 1; }
printf 'all %s noticed\n' "$(wc -l <"$rows")"

#!/bin/bash
# `make test`: every check of the project, the scenarios on Kubernetes included. Ends with `N passed, N failed`, summed
# from what the test runners say; target/test-summary has the same line.
set -uo pipefail
. "$(dirname "$0")/steps.sh"
mkdir -p target
rm -f target/test-summary
began=$SECONDS passed=0 failed=0 failures=()

tests() { # tests NAME COMMAND…: cargo's own results are counted; a run that ended without any counts as one failure
  local name=$1 log=target/test-$1.log p f
  shift
  "$@" 2>&1 | tee "$log" | grep -vE '^(test .* ok$|running |$|     Running |   Doc-tests )'
  local status=${PIPESTATUS[0]}
  read -r p f < <(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 \2/p' "$log" \
    | awk '{ p += $1; f += $2 } END { print p + 0, f + 0 }')
  passed=$((passed + p)) failed=$((failed + f))
  [ "$f" = 0 ] || failures+=("$name: $f tests, see $log")
  # A suite without a test is none.
  [ $((p + f)) != 0 ] || status=1
  [ "$status" = 0 ] || [ "$f" != 0 ] || { failed=$((failed + 1)); failures+=("$name, see $log"); }
  [ "$status" = 0 ]
}

check() { # check NAME COMMAND…: counts as one
  local name=$1 log=target/check-${1// /-}.log
  shift
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1)) failures+=("$name, see $log")
    tail -n 40 "$log"
    return 1
  fi
}

finish() {
  step_done
  [ ${#failures[@]} = 0 ] || printf 'failed: %s\n' "${failures[@]}"
  printf 'in %d min %d s\n' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60))
  printf '%d passed, %d failed\n' "$passed" "$failed" | tee target/test-summary
  [ "$failed" = 0 ] && [ "$passed" != 0 ]
  exit
}

need shellcheck shellcheck

step "Format and scripts"
scripts=()
while read -r script; do scripts+=("$script"); done < <(git ls-files '*.sh' .ci/run)
check "rustfmt" cargo fmt --all --check
check "shellcheck" shellcheck -x -P SCRIPTDIR -S warning "${scripts[@]}"

step "Kubernetes begins to come up, beside what follows"
begin_cluster

step "Lints (about 2 minutes the first time)"
check "clippy" cargo clippy "${CARGO_FLAGS[@]}" --all-targets -- -D warnings
step "Compiling (about 8 minutes the first time)"
# All targets at once, so that tests and images share what they have in common.
check "build" cargo build "${CARGO_FLAGS[@]}" --all-targets || finish

step "Waiting for Kubernetes"
# The tests of timing want the machine for themselves.
await_cluster || { failed=$((failed + 1)); failures+=("the cluster did not come up, see target/cluster.log"); }

step "Unit, property and process tests (about 2 minutes)"
# The same commit gives the same result; PROPTEST_RNG_SEED=$RANDOM looks elsewhere.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}
integration=()
for file in node/tests/*.rs operator/tests/*.rs tests/tests/*.rs; do
  [ -e "$file" ] && integration+=(--test "$(basename "$file" .rs)")
done
tests unit cargo test "${CARGO_FLAGS[@]}" --no-fail-fast --lib --bins "${integration[@]}"

step "Python client (about 2 minutes)"
check "client lints" tests/client.sh lint
VECTORIZER_NODE=$PWD/$RELEASE/vectorizer-node
[ "${RELEASE#/}" = "$RELEASE" ] || VECTORIZER_NODE=$RELEASE/vectorizer-node
export VECTORIZER_NODE
tests client tests/client.sh test

step "Images"
. tests/kind/env.sh
check "images" tests/images.sh --built || finish
check "image sizes" tests/sizes.sh
check "helm install" tests/install.sh || finish

step "Scenarios on Kubernetes (about 2 minutes)"
tests scenarios cargo test "${CARGO_FLAGS[@]}" --test scenarios -- --test-threads 3
step "Disruptions: the operator killed, a machine lost (about 4 minutes)"
tests disruptions cargo test "${CARGO_FLAGS[@]}" --test disruptions -- --test-threads 1
finish

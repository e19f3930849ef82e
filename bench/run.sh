#!/bin/bash
# make bench: builds the node and the benchmark, sees that redis-server is there, and runs it.
#   QUICK=1        one round of little, printed and not kept: shows that everything works
#   ARGUMENTS=...  such as "--gib 4 --rounds 7"; `--help` lists them
set -eu
. "$(dirname "$0")/../tests/steps.sh"
# It must not start by itself: what listens on its port is none of ours.
RUNLEVEL=1 need redis-server redis-server
cargo build --release --locked -p vectorizer-node -p vectorizer-bench
if [ -n "${QUICK:-}" ]; then
    # shellcheck disable=SC2086 # arguments are several
    exec target/release/vectorizer-bench --quick ${ARGUMENTS:-}
fi
# shellcheck disable=SC2086
exec target/release/vectorizer-bench --out docs/benchmarks ${ARGUMENTS:-}

#!/bin/bash
# `make fuzz`: each target of fuzz/, one after the other, for FUZZ_SECONDS; FUZZ_TARGET names one of them.
# What is found is in fuzz/artifacts. Inputs that reach new code are kept in fuzz/target/found.
set -euo pipefail
. "$(dirname "$0")/steps.sh"
need g++ g++
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
cd fuzz
# Sanitizers are for nightly compilers; this makes a stable one take their flags.
export RUSTC_BOOTSTRAP=1
# Programs of another libc cannot be linked with the sanitizer's runtime.
host=$(rustc -vV | sed -n 's/^host: //p')
host=${host/musl/gnu}
seconds=${FUZZ_SECONDS:-600}
for target in ${FUZZ_TARGET:-frames handshake journal snapshot}; do
  step "$target for $seconds s"
  mkdir -p "target/found/$target"
  # New inputs go into the first directory: those in corpus/ were chosen.
  cargo fuzz run --fuzz-dir . --target "$host" "$target" "target/found/$target" "corpus/$target" -- \
    -max_total_time="$seconds" -max_len=16384 -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=64 -print_final_stats=1
done
step_done

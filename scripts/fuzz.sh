#!/usr/bin/env bash
# Builds the fuzzer and gives each target FUZZ_SECONDS (60); FUZZ_TARGETS names some of them.
# See fuzz/README.md.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Zsanitizer=address"
# With a target given, build scripts and macros are built without the flags. Not --locked: the lock file follows
# that of the main package.
cargo build --release --target "$host"

for target in ${FUZZ_TARGETS:-$(ls corpus)}; do
  printf '\n== %s\n' "$target"
  mkdir -p "gathered/$target" "artifacts/$target"
  FUZZ_TARGET=$target "target/$host/release/tidegate-fuzz" "gathered/$target" "corpus/$target" \
    -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="artifacts/$target/"
done

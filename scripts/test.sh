#!/usr/bin/env bash
# Everything that CI runs, cheap things first. `scripts/test.sh lint` stops after the checks
# that need no running gateway.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
sudo_if_needed() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

step "format"
cargo fmt --check

step "clippy"
cargo clippy --locked --all-targets -- -D warnings

step "licences, bans, sources"
if ! cargo deny --version >/dev/null 2>&1; then
  cargo install --locked --quiet cargo-deny@0.20.2
fi
cargo deny --log-level error check licenses bans sources

step "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet

if [ "${1:-all}" = lint ]; then exit 0; fi

step "fetch ONNX Runtime, models, data"
python3 scripts/fetch.py all

step "build"
cargo build --release --locked

step "unit and integration tests"
cargo test --locked --lib --bins --tests --examples -- --quiet
cargo build --locked --examples --benches
cargo test --locked --doc -- --quiet

step "the demo"
target/debug/examples/demo --gateway target/release/tidegate

step "the benchmarks' rig: right answers, no times"
python3 benches/end_to_end.py --smoke --no-build --rig target/debug/examples/bench_rig
python3 benches/endurance.py --smoke --no-build --rig target/debug/examples/bench_rig

step "tools for the client tests"
if ! command -v promtool >/dev/null; then
  sudo_if_needed apt-get -qq update
  sudo_if_needed env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends prometheus >/dev/null
fi
if [ ! -x .venv/bin/python ]; then python3 -m venv .venv; fi
.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/clients/requirements.txt

step "client tests: tritonclient, Prometheus, the README"
.venv/bin/python -m pytest --quiet tests/clients

step "done"

#!/bin/sh
# Coverage-guided fuzzing: `scripts/fuzz.sh [SECONDS [TARGET...]]`, a minute a target unless told
# otherwise. New inputs go to a scratch folder; what crashes is kept in rust/fuzz/artifacts.
set -eu
cd "$(dirname "$0")/../rust/fuzz"

seconds=${1:-60}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- image index codec cowfile

command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

# The sanitizers are unstable features; the stable toolchain has them all the same.
export RUSTC_BOOTSTRAP=1
for target; do
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    cargo fuzz run --fuzz-dir . "$target" "$scratch" "corpus/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -max_len=65536
    rm -rf "$scratch"
done

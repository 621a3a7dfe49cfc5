#!/bin/sh
# Coverage-guided fuzzing: `scripts/fuzz.sh [SECONDS [TARGET...]]`, a minute per target by default.
# New inputs go to a scratch folder; inputs that crash are kept in rust/fuzz/artifacts. Without
# targets it also checks the unsafe parts of rust/inflate with Miri and valgrind, and runs the tests
# of rust/inflate on an emulated aarch64.
set -eu
cd "$(dirname "$0")/../rust/fuzz"

seconds=${1:-60}
[ $# -eq 0 ] || shift
check=
[ $# -gt 0 ] || { check=yes; set -- image index codec cowfile inflate written; }

command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

# The sanitizers are unstable features, but the stable toolchain can be told to use them.
for target; do
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . "$target" "$scratch" "corpus/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -max_len=65536
    rm -rf "$scratch"
done
[ -n "$check" ] || exit 0

cd ../..
# The portable form; Miri knows no library, and neither does this test need one.
if cargo +nightly miri --version >/dev/null 2>&1; then
    cargo +nightly miri test --locked -p cowcloop-inflate --test differential alike
else
    echo 'skipped: Miri (rustup toolchain install nightly --component miri,rust-src)'
fi

# Both forms, as this processor and valgrind's have them.
if command -v valgrind >/dev/null; then
    program=$(cargo test --release --locked -p cowcloop-inflate --test differential --no-run 2>&1 |
        sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
    valgrind --quiet --error-exitcode=1 "$program" alike literals fewer
else
    echo 'skipped: valgrind (apt install valgrind)'
fi

# The one test that starts itself anew as a child cannot do so there.
if command -v qemu-aarch64 >/dev/null && command -v aarch64-linux-gnu-gcc >/dev/null &&
    rustup target list --installed 2>/dev/null | grep -q '^aarch64-unknown-linux-gnu$'; then
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64 \
        QEMU_LD_PREFIX=/usr/aarch64-linux-gnu \
        cargo test --release --locked -p cowcloop-inflate --lib --tests \
        --target aarch64-unknown-linux-gnu -- --skip children
else
    echo 'skipped: aarch64 (apt install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross;' \
        'rustup target add aarch64-unknown-linux-gnu)'
fi

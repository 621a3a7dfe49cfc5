#!/bin/sh
# coverage.sh [rust|python]: the lines that the tests reach, as two tables. The Rust code that
# Python's tests reach is not counted: it would have to be built a second time for them.
set -eu
cd "$(dirname "$0")/.."
wanted=${1:-rust python}
bin=${VENV:-.venv}/bin
target=target/coverage

# LLVM's tools must be of the version that rustc was built with: rustup's, or Debian's llvm-N.
find_tools() {
    tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
    if [ ! -x "$tools/llvm-cov" ] && command -v rustup >/dev/null; then
        rustup component add llvm-tools || true
    fi
    major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    [ -x "$tools/llvm-cov" ] || tools=/usr/lib/llvm-$major/bin
    if [ ! -x "$tools/llvm-cov" ]; then
        echo "cowcloop: llvm-cov is missing: rustup component add llvm-tools, or install llvm-$major" >&2
        exit 1
    fi
}

rust() {
    find_tools
    rm -rf "$target/raw"
    mkdir -p "$target"
    # With the directory of their own, the crates' other builds stay as they are.
    export RUSTFLAGS="-C instrument-coverage" CARGO_TARGET_DIR="$target"
    export LLVM_PROFILE_FILE="$PWD/$target/raw/%p-%m.profraw"
    set -- --release --locked --workspace --exclude cowcloop-python --tests
    cargo test "$@" --quiet
    programs=$(cargo test "$@" --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*\)".*/--object=\1/p')
    "$tools/llvm-profdata" merge --sparse "$target"/raw/*.profraw -o "$target/all.profdata"
    # shellcheck disable=SC2086 # a list of words
    "$tools/llvm-cov" report --instr-profile="$target/all.profdata" \
        --ignore-filename-regex='/registry/|/rustc/|/tests/|tests\.rs|build/' \
        --show-branch-summary=false --show-region-summary=false $programs
}

python() {
    "$bin/coverage" erase
    # A test that fails does not take the table away.
    code=0
    "$bin/coverage" run -m pytest -q -n "${WORKERS:-auto}" tests || code=$?
    "$bin/coverage" combine --quiet
    "$bin/coverage" report
    return "$code"
}

for one in $wanted; do
    "$one"
done

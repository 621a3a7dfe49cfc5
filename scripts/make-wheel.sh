#!/bin/sh
# make-wheel.sh DIR: a wheel in DIR, tagged for the oldest C library that it works with.
set -eu
mkdir -p "$1"
directory=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
PATH=$PWD/${VENV:-.venv}/bin:$PATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir "$work" .
auditwheel --verbose repair --wheel-dir "$directory" "$work"/cowcloop-*.whl >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
ls "$directory"/cowcloop-*.whl

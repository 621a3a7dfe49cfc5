#!/bin/sh
# check_offline.sh: installs the sdist without a network, from the packages that its lock files
# name, as docs/packaging.md describes. It fetches them first, and then needs a network namespace:
# root, or a kernel that lets users have one.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-/usr/bin/python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if unshare --net true 2>/dev/null; then
    alone="unshare --net"
elif unshare --map-root-user --net true 2>/dev/null; then
    alone="unshare --map-root-user --net"
else
    echo "cowcloop: no network namespace can be had here: run this as root" >&2
    exit 1
fi

cd "$work"
export PIP_DISABLE_PIP_VERSION_CHECK=1
# Compiled anew, from the sdist's files: by their dates cargo would think them compiled already.
unset CARGO_TARGET_DIR
(cd "$root" && "${VENV:-.venv}/bin/maturin" sdist --out "$work" 2>"$work/sdist.log") || { cat "$work/sdist.log" >&2; exit 1; }
sdist=$(ls cowcloop-*.tar.gz)
maturin=$(sed -n 's/^requires = \["\(maturin==[0-9.]*\)"\]/\1/p' "$root/pyproject.toml")

# The commands of docs/packaging.md for a machine with a network …
tar xf "$sdist"
cargo fetch --quiet --locked --manifest-path "${sdist%.tar.gz}/Cargo.toml"
"$python" -m venv venv
venv/bin/pip download --quiet --dest wheels "$sdist" "$maturin"

# … and those for one without.
$alone env CARGO_NET_OFFLINE=true \
    venv/bin/pip install --quiet --no-index --find-links wheels cowcloop

printf %65536s sample >raw
venv/bin/cowcloop create --quiet raw image
venv/bin/python - <<'END'
import cowcloop

with cowcloop.open("image", ":memory:") as disk, open("raw", "rb") as raw:
    assert disk.read() == raw.read()
END
echo "cowcloop: $sdist builds and runs without a network"

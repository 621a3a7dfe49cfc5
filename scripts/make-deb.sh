#!/bin/sh
# make-deb.sh DIR: a Debian package of the wheel in DIR, made there. Needs dpkg-deb and pip.
#
# What rich-click needs is newer than what Debian 12 has, so the Python packages that cowcloop
# uses are put beside it, where nothing else looks for them. pycdlib is Debian's: it is under the
# LGPL, and no part of the package.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$1"
wheel=$(ls -t cowcloop-*.whl 2>/dev/null | head -n 1)
[ -n "$wheel" ] || { echo "cowcloop: no wheel in $1: run make wheel first" >&2; exit 1; }
version=$(echo "$wheel" | cut -d- -f2)
architecture=$(dpkg --print-architecture)
plugins=usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)/nbdkit/plugins

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
umask 022
chmod 755 "$tree"
home=$tree/usr/lib/cowcloop
mkdir -p "$home" "$tree/usr/bin" "$tree/$plugins" "$tree/DEBIAN" "$tree/lib/systemd/system" \
    "$tree/usr/share/bash-completion/completions"
/usr/bin/python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --no-compile --target "$home" "$wheel"
rm -rf "$home/bin" "$home"/cowcloop-*.dist-info/direct_url.json "$home"/pycdlib*
# pip puts a wheel's data below the target.
mv "$home/share" "$tree/usr/share.wheel"
mv "$tree/usr/share.wheel/man" "$tree/usr/share/man"
rm -rf "$tree/usr/share.wheel"
find "$tree/usr/share/man" -type f -exec gzip -9n {} +

cat >"$tree/usr/bin/cowcloop" <<'END'
#!/usr/bin/python3 -s
import sys

sys.path.insert(0, "/usr/lib/cowcloop")
from cowcloop.cli import main  # noqa: E402

sys.exit(main())
END
chmod 755 "$tree/usr/bin/cowcloop"
ln -s ../../../cowcloop/cowcloop/nbdkit-cowcloop-plugin.so "$tree/$plugins/"
cp "$root"/contrib/systemd/* "$tree/lib/systemd/system/"
cat >"$tree/usr/share/bash-completion/completions/cowcloop" <<'END'
eval "$(cowcloop --show-completion bash)"
END

docs=$tree/usr/share/doc/cowcloop
mkdir -p "$docs"
cp "$root/README.md" "$docs/"
gzip -9nc "$root/CHANGELOG.md" >"$docs/changelog.gz"
cat "$root/LICENSE-MIT" "$root/LICENSE-APACHE" "$root/THIRD-PARTY-LICENSES.txt" >"$docs/copyright"

cat >"$tree/DEBIAN/control" <<END
Package: cowcloop
Version: $version
Architecture: $architecture
Section: admin
Priority: optional
Maintainer: The cowcloop authors <cowcloop@example.org>
Installed-Size: $(du -sk "$tree/usr" | cut -f1)
Depends: python3 (>= 3.9), python3-pycdlib, nbdkit (>= 1.24), libc6
Recommends: libnbd-bin, e2fsprogs, fuse3
Description: compressed block images, with copy-on-write files over them
 Reads cloop and uzip images without unpacking them, and serves them over NBD.
 Writes go to cowfiles, in the layout of the cowloop driver; the image never
 changes.
END
dpkg-deb --root-owner-group --build "$tree" "cowcloop_${version}_$architecture.deb"

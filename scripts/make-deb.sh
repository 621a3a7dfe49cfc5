#!/bin/sh
# make-deb.sh DIR: a Debian package of the wheel in DIR, made there. Needs dpkg-deb and pip.
#
# cowcloop needs a newer rich-click than Debian 12 has, so the Python packages that it uses are put
# beside it, where no other program looks for them. pycdlib comes from Debian: it is under the LGPL,
# and not part of this package.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$1"
wheel=$(ls -t cowcloop-*.whl 2>/dev/null | head -n 1)
[ -n "$wheel" ] || { echo "cowcloop: no wheel in $1: run make wheel first" >&2; exit 1; }
version=$(echo "$wheel" | cut -d- -f2)
maintainer="The cowcloop authors <cowcloop@example.org>"
architecture=$(dpkg --print-architecture)
plugins=usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)/nbdkit/plugins

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
umask 022
chmod 755 "$tree"
home=$tree/usr/lib/cowcloop
mkdir -p "$home" "$tree/usr/bin" "$tree/$plugins" "$tree/DEBIAN" "$tree/usr/lib/systemd/system" \
    "$tree/usr/share/bash-completion/completions"
python=$root/${VENV:-.venv}/bin/python
[ -x "$python" ] || python=/usr/bin/python3
"$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --no-compile --target "$home" "$wheel"
rm -rf "$home/bin" "$home"/cowcloop-*.dist-info/direct_url.json "$home"/pycdlib*
# pip puts the wheels' data below the target: ours, and pycdlib's man pages, which Debian's own
# package brings.
mkdir -p "$tree/usr/share"
(cd "$root/docs/man/data/share" && find man -type f) | while read -r page; do
    mkdir -p "$tree/usr/share/${page%/*}"
    mv "$home/share/$page" "$tree/usr/share/$page"
done
rm -rf "$home/share"
find "$tree/usr/share/man" -type f -exec gzip -9n {} +

cat >"$tree/usr/bin/cowcloop" <<'END'
#!/usr/bin/python3 -s
import sys

sys.path.insert(0, "/usr/lib/cowcloop")
from cowcloop.cli import main  # noqa: E402

sys.exit(main())
END
chmod 755 "$tree/usr/bin/cowcloop"
ln -s ../../../cowcloop/cowcloop/lib/nbdkit-cowcloop-plugin.so "$tree/$plugins/"
cp "$root"/contrib/systemd/* "$tree/usr/lib/systemd/system/"
# A root from an image: docs/howto/live-boot.md.
mkdir -p "$home/boot" "$tree/usr/share/initramfs-tools" "$tree/usr/lib/dracut/modules.d"
cp "$root"/contrib/boot/* "$home/boot/"
cp -r "$root"/contrib/dracut/* "$tree/usr/lib/dracut/modules.d/"
cp -r "$root"/contrib/initramfs-tools/* "$tree/usr/share/initramfs-tools/"
mkdir -p "$tree/etc/init.d"
cp "$root/contrib/sysvinit/cowcloop-root" "$tree/etc/init.d/"
chmod 755 "$tree/etc/init.d/cowcloop-root"
# systemd needs no such script, and would make a service of it.
ln -s /dev/null "$tree/usr/lib/systemd/system/cowcloop-root.service"
cat >"$tree/usr/share/bash-completion/completions/cowcloop" <<'END'
eval "$(cowcloop --show-completion bash)"
END

docs=$tree/usr/share/doc/cowcloop
mkdir -p "$docs"
cp "$root/README.md" "$docs/"
gzip -9nc "$root/CHANGELOG.md" >"$docs/changelog.gz"
gzip -9nc >"$docs/changelog.Debian.gz" <<END
cowcloop ($version-1) unstable; urgency=medium

  * Made by scripts/make-deb.sh. What is new in cowcloop is in changelog.gz.

 -- $maintainer  $(date -R -r "$root/CHANGELOG.md")
END
# The licences of linked code have a file of their own: Debian wants no copy of the Apache licence
# in this file.
cp "$root/THIRD-PARTY.md" "$docs/"
gzip -9nc "$root/THIRD-PARTY-LICENSES.txt" >"$docs/THIRD-PARTY-LICENSES.txt.gz"
{
    cat <<'END'
cowcloop is under the MIT licence or the Apache License, Version 2.0, at your option.
The latter is in /usr/share/common-licenses/Apache-2.0, the former is:

END
    cat "$root/LICENSE-MIT"
    cat <<'END'

The package also contains libraries of others. THIRD-PARTY.md says which and for what,
THIRD-PARTY-LICENSES.txt.gz has their licences; both are in this directory.
END
} >"$docs/copyright"

# This package is not uploaded to Debian, so it closes no bug there. The script for sysvinit prints
# nothing, and is for the machine's end alone: runlevel 1 keeps the root.
mkdir -p "$tree/usr/share/lintian/overrides"
cat >"$tree/usr/share/lintian/overrides/cowcloop" <<'END'
cowcloop: initial-upload-closes-no-bugs
cowcloop: init.d-script-does-not-source-init-functions
cowcloop: init.d-script-possible-missing-stop
END

cat >"$tree/DEBIAN/control" <<END
Package: cowcloop
Version: $version-1
Architecture: $architecture
Section: admin
Priority: optional
Maintainer: $maintainer
Installed-Size: $(du -sk "$tree/usr" | cut -f1)
Depends: python3 (>= 3.9), python3-pycdlib, nbdkit (>= 1.24), libc6
Recommends: e2fsprogs, fuse3, libnbd-bin
Suggests: initramfs-tools | dracut, busybox, nbd-client, dracut-network
Description: compressed block images, with copy-on-write files over them
 Reads cloop and uzip images without unpacking them, and serves them over NBD.
 Writes go to cowfiles, in the layout of the cowloop driver; the image never
 changes.
END
echo "activate-noawait update-initramfs" >"$tree/DEBIAN/triggers"
echo /etc/init.d/cowcloop-root >"$tree/DEBIAN/conffiles"
cat >"$tree/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
if [ -x /etc/init.d/cowcloop-root ]; then
    update-rc.d cowcloop-root defaults >/dev/null
fi
END
cat >"$tree/DEBIAN/postrm" <<'END'
#!/bin/sh
set -e
if [ "$1" = purge ]; then
    update-rc.d cowcloop-root remove >/dev/null
fi
END
chmod 755 "$tree/DEBIAN/postinst" "$tree/DEBIAN/postrm"
dpkg-deb --root-owner-group --build "$tree" "cowcloop_${version}-1_$architecture.deb"

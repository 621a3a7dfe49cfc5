#!/bin/sh
# link-libnbd.sh VENV: links libnbd's Python module into a virtual environment. The module comes
# with the distribution, for the distribution's interpreter only. It is linked alone, so that the
# tests see no other package of the system.
set -eu
venv=$1

site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
suffix=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
system=/usr/lib/python3/dist-packages
if [ -e "$system/libnbdmod$suffix" ]; then
    ln -sf "$system/nbd.py" "$system/libnbdmod$suffix" "$site/"
fi

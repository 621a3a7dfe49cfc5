#!/bin/sh
# link-libnbd.sh VENV: libnbd's Python module in a virtual environment. It comes with the
# distribution, for its own interpreter only. It is linked in by itself, so that nothing else of
# the system's packages is seen by the tests.
set -eu
venv=$1

site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
suffix=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
system=/usr/lib/python3/dist-packages
if [ -e "$system/libnbdmod$suffix" ]; then
    ln -sf "$system/nbd.py" "$system/libnbdmod$suffix" "$site/"
fi

#!/bin/sh
# make-venv.sh PYTHON VENV: a virtual environment with the locked development tools.
set -eu
cd "$(dirname "$0")/.."
python=$1
venv=$2

"$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --requirement requirements-dev.txt

# libnbd's Python module comes with the distribution, for its own interpreter only. It is
# linked in by itself, so that nothing else of the system's packages is seen by the tests.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
suffix=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
system=/usr/lib/python3/dist-packages
if [ -e "$system/libnbdmod$suffix" ]; then
    ln -sf "$system/nbd.py" "$system/libnbdmod$suffix" "$site/"
fi

#!/bin/sh
# make-venv.sh PYTHON VENV: a virtual environment with the locked development tools.
set -eu
cd "$(dirname "$0")/.."
python=$1
venv=$2

"$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --requirement requirements-dev.txt

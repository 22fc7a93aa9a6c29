# Sourced by the other scripts: `use_environment [EXTRA...]` makes the virtual environment current
# and sets RRM_VENV to its absolute path. RRM_VENV names another environment than .venv, RRM_PYTHON
# the Python to make it with.

RRM_ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"

# Prints the Python to make an environment with. The newest that all dependencies support comes
# first; one without venv or ensurepip (Debian packs them apart) is passed over.
find_python() {
    local candidate reasons="" candidates
    candidates=(python3.13 python3.12 python3.11 python3.10 python3 python)
    if [[ -n "${RRM_PYTHON:-}" ]]; then candidates=("$RRM_PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if ! command -v -- "$candidate" >/dev/null 2>&1; then
            if [[ -n "${RRM_PYTHON:-}" ]]; then reasons+="; $candidate (RRM_PYTHON) was not found"; fi
            continue
        fi
        if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            reasons+="; $candidate is older than 3.10 or does not start"
        elif ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            reasons+="; $candidate has no venv module (on Debian and Ubuntu: apt install python3-venv)"
        else
            command -v -- "$candidate"
            return
        fi
    done
    echo "rrm-extract: error: no Python 3.10 or later with venv found${reasons}." \
        "Install one, or name one with RRM_PYTHON=/path/to/python3." >&2
    return 2
}

use_environment() {
    local python extra arguments=()
    RRM_VENV="${RRM_VENV:-$RRM_ROOT/.venv}"
    case "$RRM_VENV" in /*) ;; *) RRM_VENV="$PWD/$RRM_VENV" ;; esac
    export RRM_VENV
    for extra in "$@"; do arguments+=(--extra "$extra"); done
    # An existing environment brings its own Python; none else is needed then.
    python="$RRM_VENV/bin/python"
    if [[ -n "${RRM_PYTHON:-}" || ! -x "$python" ]] ||
        ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        python="$(find_python)" || return
    fi
    "$python" "$RRM_ROOT/scripts/environment.py" ${arguments[@]+"${arguments[@]}"}
}

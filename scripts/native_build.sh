# shellcheck shell=bash
# Sourced by the scripts that compile the native engine apart from its installation.

# build_native FOLDER [-DOPTION=VALUE...]: configures and builds the C++ sources in FOLDER, with
# cmake and ninja of the environment before any others; prints only what fails.
build_native() {
    local folder="$1" log="$1/build.log"
    shift
    mkdir -p -- "$folder"
    if ! {
        PATH="$RRM_VENV/bin:$PATH" cmake -S "$RRM_ROOT" -B "$folder" -G Ninja \
            -DRRM_REQUIRE_NATIVE=ON "$@" &&
            PATH="$RRM_VENV/bin:$PATH" cmake --build "$folder"
    } >"$log" 2>&1; then
        cat -- "$log" >&2
        echo "rrm-extract: error: the C++ sources did not compile, see above" >&2
        return 1
    fi
}

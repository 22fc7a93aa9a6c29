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

# build_sanitized FOLDER PYTHON MODULE: the module and rrm_kernel_test, with sanitizers, for the
# instruction sets of this processor, which MODULE, any build of the same, knows.
build_sanitized() {
    local folder="$1" python="$2" module="$3" isas
    isas="$("$python" - "$module" <<'EOF'
import sys
from importlib.util import module_from_spec, spec_from_file_location

spec = spec_from_file_location("_native", sys.argv[1])
native = module_from_spec(spec)
spec.loader.exec_module(native)
print(*(name for name in native.available_isas() if name.startswith("avx")), sep=";")
EOF
    )"
    build_native "$folder" -DRRM_SANITIZE=ON -DRRM_KERNEL_TEST=ON "-DRRM_ISAS=$isas" \
        -DPython_EXECUTABLE="$python" -DCMAKE_CXX_COMPILER="${CXX:-c++}"
}

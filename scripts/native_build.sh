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

# Instruction sets of this processor for which there are kernels, as the compiler knows it; in
# CMake's form.
isas_of_processor() {
    local known isas=()
    known="$("${CXX:-c++}" -march=native -dM -E -x c++ /dev/null)"
    has() { for macro; do [[ "$known" == *" __${macro}__ "* ]] || return; done; }
    if has AVX2 FMA; then isas+=(avx2); fi
    if has AVX512F AVX512BW AVX512VL AVX512DQ; then isas+=(avx512); fi
    if has AVX512BF16 AVX512VBMI2 AVX512VPOPCNTDQ AVX512VNNI; then isas+=(avx512bf16); fi
    (IFS=";" && echo "${isas[*]-}")
}

# build_sanitized FOLDER PYTHON: the module and rrm_kernel_test, with sanitizers, for this processor.
build_sanitized() {
    build_native "$1" -DRRM_SANITIZE=ON -DRRM_KERNEL_TEST=ON "-DRRM_ISAS=$(isas_of_processor)" \
        -DPython_EXECUTABLE="$2" -DCMAKE_CXX_COMPILER="${CXX:-c++}"
}

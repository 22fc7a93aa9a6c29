// Holds every kernel of every instruction set that this processor has against the plain scalar
// one, on random shapes and densities:
//     rrm_kernel_test [CASES [SEED]]
// Needs neither Python nor a test framework, so that it runs under an emulator and the sanitizers.
// Exits with 1 when a result differs.
#include <cstdio>
#include <cstdlib>

#include "../../../rrm_extract/engine/csrc/cpu.hpp"
#include "harness.hpp"

namespace {

using namespace rrm::test;

struct Entry {
    const char* name;
    Check check;
    bool arithmetics;  // has a form for bf16
};

constexpr Entry kEntries[] = {
    {"window", check_window, true},
    {"tap", check_tap, true},
    {"column", check_column, false},
    {"dense", check_dense, true},
    {"winograd_weights", check_winograd_weights, true},
    {"winograd_input", check_winograd_input, true},
    {"winograd_output", check_winograd_output, true},
    {"winograd", check_winograd, true},
    {"int16_weights", check_int16_weights, false},
    {"int16_input", check_int16_input, true},
    {"int16_products", check_int16_products, false},
    {"int16", check_int16, true},
    {"depthwise", check_depthwise, false},
    {"compress", check_compress, true},
    {"keep", check_keep, true},
    {"select", check_select, false},
    {"compress_columns", check_compress_columns, false},
    {"keep_columns", check_keep_columns, false},
    {"truncated", check_truncated, false},
    {"sign_bits", check_sign_bits, false},
    {"xnor", check_xnor, false},
    {"flips", check_flips, false},
    {"scale_sums", check_scale_sums, false},
    {"coded", check_coded, false},
    {"finish", check_finish, false},
    {"map", check_map, false},
    {"pool", check_pool, false},
    {"preprocess", check_preprocess, false},
};

// Whether all cases are right; says what is wrong with the first that is not.
bool passes(const rrm::Kernels& kernels, const Entry& entry, rrm::Arithmetic arithmetic, int cases,
            uint64_t seed) {
    for (int number = 0; number < cases; number++) {
        Case c = {kernels, arithmetic, Random(seed * 1000003 + static_cast<uint64_t>(number)), ""};
        entry.check(c);
        if (c.problem.empty()) continue;
        std::printf("%s %s %s, case %d of seed %llu: %s\n", kernels.name, entry.name,
                    arithmetic == rrm::Arithmetic::fp32 ? "fp32" : "bf16", number,
                    static_cast<unsigned long long>(seed), c.problem.c_str());
        return false;
    }
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    const int cases = argc > 1 ? std::atoi(argv[1]) : 200;
    const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
    if (argc > 3 || cases < 1) {
        std::fprintf(stderr, "usage: rrm_kernel_test [CASES [SEED]], CASES at least 1\n");
        return 2;
    }
    int passed = 0, failed = 0;
    for (const std::string& isa : rrm::available_isas()) {
        if (isa == "reference") continue;
        const rrm::Kernels& kernels = rrm::kernels_of(isa);
        int here = 0;
        for (const Entry& entry : kEntries)
            for (const auto arithmetic : {rrm::Arithmetic::fp32, rrm::Arithmetic::bf16}) {
                if (arithmetic == rrm::Arithmetic::bf16 && !entry.arithmetics) continue;
                if (passes(kernels, entry, arithmetic, cases, seed))
                    here++;
                else
                    failed++;
            }
        std::printf("%s: %d kernels right, %d cases of each\n", kernels.name, here, cases);
        std::fflush(stdout);
        passed += here;
    }
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}

#include "cpu.hpp"

#include <stdexcept>

namespace rrm {

namespace {

struct Choice {
    const char* name;
    const Kernels& (*kernels)();
};

// Compiled, and known to this processor; the best one last.
std::vector<Choice> choices() {
    std::vector<Choice> all = {{"reference", reference_kernels}, {"portable", portable_kernels}};
#if defined(RRM_X86)
    __builtin_cpu_init();
    [[maybe_unused]] const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    [[maybe_unused]] const bool avx512 =
        avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    [[maybe_unused]] const bool avx512bf16 =
        avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi2") &&
        __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vnni");
#if defined(RRM_WITH_avx2)
    if (avx2) all.push_back({"avx2", avx2_kernels});
#endif
#if defined(RRM_WITH_avx512)
    if (avx512) all.push_back({"avx512", avx512_kernels});
#endif
#if defined(RRM_WITH_avx512bf16)
    if (avx512bf16) all.push_back({"avx512bf16", avx512bf16_kernels});
#endif
#endif
    return all;
}

}  // namespace

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Choice& choice : choices()) names.emplace_back(choice.name);
    return names;
}

const Kernels& kernels_of(const std::string& isa) {
    std::string known;
    for (const Choice& choice : choices()) {
        if (isa == choice.name) return choice.kernels();
        known += std::string(known.empty() ? "" : ", ") + choice.name;
    }
    throw std::invalid_argument("instruction set '" + isa +
                                "' cannot be used on this processor; expected one of " + known);
}

}  // namespace rrm

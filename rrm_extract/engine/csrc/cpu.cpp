#include "cpu.hpp"

#include <stdexcept>

namespace rrm {

std::vector<std::string> available_isas() {
    std::vector<std::string> names = {"reference", "portable"};
#if defined(RRM_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        names.emplace_back("avx2");
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
            names.emplace_back("avx512");
            if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi2") &&
                __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vnni"))
                names.emplace_back("avx512bf16");
        }
    }
#endif
    return names;
}

const Kernels& kernels_of(const std::string& isa) {
    std::string known;
    for (const std::string& name : available_isas()) {
        known += (known.empty() ? "" : ", ") + name;
        if (name != isa) continue;
        if (isa == "reference") return reference_kernels();
        if (isa == "portable") return portable_kernels();
#if defined(RRM_X86)
        if (isa == "avx2") return avx2_kernels();
        if (isa == "avx512") return avx512_kernels();
        if (isa == "avx512bf16") return avx512bf16_kernels();
#endif
    }
    throw std::invalid_argument("instruction set '" + isa +
                                "' cannot be used on this processor; expected one of " + known);
}

}  // namespace rrm

// The one place where the processor is looked at.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace rrm {

// Names of the instruction sets that this processor can run, the best last.
std::vector<std::string> available_isas();
// The kernels of an instruction set. Throws std::invalid_argument, naming what there is.
const Kernels& kernels_of(const std::string& isa);

}  // namespace rrm

// The table of kernels of one instruction set; compiled once for each, with RRM_ISA its name.
#include "column.hpp"
#include "compress.hpp"
#include "dense.hpp"
#include "depthwise.hpp"
#include "elementwise.hpp"
#include "tap.hpp"
#include "window.hpp"

#define RRM_PASTE_(a, b) a##b
#define RRM_PASTE(a, b) RRM_PASTE_(a, b)
#define RRM_TEXT_(a) #a
#define RRM_TEXT(a) RRM_TEXT_(a)

namespace rrm {

const Kernels& RRM_PASTE(RRM_ISA, _kernels)() {
    static const Kernels table = {
        RRM_TEXT(RRM_ISA),    RRM_ISA::window,           RRM_ISA::tap,    RRM_ISA::dense,
        RRM_ISA::column,      RRM_ISA::depthwise,        RRM_ISA::compress, RRM_ISA::keep,
        RRM_ISA::select,      RRM_ISA::compress_columns, RRM_ISA::finish, RRM_ISA::map,
        RRM_ISA::pool,
    };
    return table;
}

}  // namespace rrm

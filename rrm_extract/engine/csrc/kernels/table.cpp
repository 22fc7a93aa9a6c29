// The table of kernels of one instruction set; compiled once for each, with RRM_ISA its name.
#include "coded.hpp"
#include "column.hpp"
#include "compress.hpp"
#include "dense.hpp"
#include "depthwise.hpp"
#include "elementwise.hpp"
#include "flips.hpp"
#include "signs.hpp"
#include "tap.hpp"
#include "truncated.hpp"
#include "window.hpp"
#include "winograd.hpp"
#include "winograd_int16.hpp"
#include "xnor.hpp"

#define RRM_PASTE_(a, b) a##b
#define RRM_PASTE(a, b) RRM_PASTE_(a, b)
#define RRM_TEXT_(a) #a
#define RRM_TEXT(a) RRM_TEXT_(a)

namespace rrm {

const Kernels& RRM_PASTE(RRM_ISA, _kernels)() {
    using namespace RRM_ISA;
    static const Kernels table = {
        RRM_TEXT(RRM_ISA), window, tap, dense, winograd_weights, winograd_input, winograd_output,
        int16_weights, int16_input, int16_products,
        column, depthwise, compress, keep, select, compress_columns, keep_columns,
        truncated, sign_bits, xnor, flips, scale_sums, coded, finish, map, pool,
    };
    return table;
}

}  // namespace rrm

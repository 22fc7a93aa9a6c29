#include "pack.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <unordered_map>

namespace rrm {

namespace {

uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

// Round to nearest even; a NaN stays a NaN.
uint32_t bf16_of(float value) {
    const uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

uint32_t element(const Weights& w, Arithmetic arithmetic, int output, int unit, int row,
                 int column) {
    if (arithmetic == Arithmetic::fp32) return bits_of(w.at(output, unit, row, column));
    return bf16_of(w.at(output, 2 * unit, row, column)) |
           (bf16_of(w.at(output, 2 * unit + 1, row, column)) << 16);
}

// The units that some blocks of outputs read, widened to whole groups of the list.
std::pair<int, int> unit_range(const Weights& w, Arithmetic arithmetic, int group_blocks,
                               int first_block, int blocks) {
    const int per_unit = arithmetic == Arithmetic::fp32 ? 1 : 2;
    const int block_units = kBlock / per_unit;
    const int group_units = block_units * group_blocks;
    const int all = (w.inputs + kBlock - 1) / kBlock * block_units;
    if (w.groups == 1) return {0, all};
    const int group_outputs = w.outputs / w.groups, group_inputs = w.inputs / w.groups;
    const int last_output = std::min(w.outputs, (first_block + blocks) * kBlock) - 1;
    const int begin = first_block * kBlock / group_outputs * group_inputs;
    const int end = (last_output / group_outputs + 1) * group_inputs;
    const int first_unit = begin / per_unit / group_units * group_units;
    const int end_unit = ((end + per_unit - 1) / per_unit + group_units - 1) / group_units * group_units;
    return {first_unit, std::min(all, end_unit)};
}

// All taps of a set, [tap][unit][output], from a layer without groups in fp32: the usual case, and
// layers of a hundred million weights. Some units at a time, whose weights stay in the cache while
// they are spread over the taps.
void fill_taps(const Weights& w, const WeightSet& set, uint32_t* out) {
    constexpr int kTogether = 16;
    const int outputs = set.blocks * kBlock, units = set.unit_end - set.unit_begin;
    const int taps = w.rows * w.columns;
    const int inputs = std::min(set.unit_end, w.inputs);
    for (int unit = set.unit_begin; unit < inputs; unit += kTogether) {
        const int end = std::min(inputs, unit + kTogether);
        for (int lane = 0; lane < outputs; lane++) {
            const int output = set.first_block * kBlock + lane;
            if (output >= w.outputs) break;
            const float* from = w.data + (static_cast<size_t>(output) * w.inputs + unit) * taps;
            for (int u = unit; u < end; u++)
                for (int tap = 0; tap < taps; tap++)
                    out[(static_cast<size_t>(tap) * units + u - set.unit_begin) * outputs + lane] =
                        bits_of(*from++);
        }
    }
}

}  // namespace

float Weights::at(int output, int input, int row, int column) const {
    if (output >= outputs || input >= inputs) return 0;
    const int group_inputs = inputs / groups;
    const int local = input - output / (outputs / groups) * group_inputs;
    if (local < 0 || local >= group_inputs) return 0;
    return data[((static_cast<size_t>(output) * group_inputs + local) * rows + row) * columns + column];
}

Packed pack_window(const Weights& w, Arithmetic arithmetic, int group_blocks) {
    Packed packed;
    const int blocks = (w.outputs + kBlock - 1) / kBlock;
    for (int block = 0; block < blocks; block++) {
        const auto [begin, end] = unit_range(w, arithmetic, group_blocks, block, 1);
        packed.sets.push_back({block, 1, begin, end, packed.elements.size()});
        for (int unit = begin; unit < end; unit++)
            for (int column = 2; column >= 0; column--)
                for (int row = 2; row >= 0; row--)
                    for (int lane = 0; lane < kBlock; lane++)
                        packed.elements.push_back(
                            element(w, arithmetic, block * kBlock + lane, unit, row, column));
    }
    return packed;
}

Packed pack_taps(const Weights& w, Arithmetic arithmetic, int group_blocks) {
    Packed packed;
    const int blocks = (w.outputs + kBlock - 1) / kBlock;
    for (int block = 0; block < blocks;) {
        int count = 8;
        // A set belongs to one stage of eight blocks.
        while (count > blocks - block || count > 8 - block % 8) count /= 2;
        // Only blocks of the same groups share a set: the others would read zeros.
        while (count > 1 && unit_range(w, arithmetic, group_blocks, block, count) !=
                                unit_range(w, arithmetic, group_blocks, block, 1))
            count /= 2;
        const auto [begin, end] = unit_range(w, arithmetic, group_blocks, block, count);
        packed.sets.push_back({block, count, begin, end, packed.elements.size()});
        const size_t at = packed.elements.size();
        packed.elements.resize(at + static_cast<size_t>(w.rows) * w.columns * (end - begin) *
                                        count * kBlock);
        uint32_t* out = packed.elements.data() + at;
        if (w.groups == 1 && arithmetic == Arithmetic::fp32)
            fill_taps(w, packed.sets.back(), out);
        else
            for (int row = 0; row < w.rows; row++)
                for (int column = 0; column < w.columns; column++)
                    for (int unit = begin; unit < end; unit++)
                        for (int lane = 0; lane < count * kBlock; lane++)
                            *out++ =
                                element(w, arithmetic, block * kBlock + lane, unit, row, column);
        block += count;
    }
    return packed;
}

std::vector<uint32_t> pack_columns(const Weights& w, int stride) {
    std::vector<uint32_t> packed;
    const int blocks = (w.outputs + kBlock - 1) / kBlock;
    const int positions = (w.columns + stride - 1) / stride;
    for (int first = 0, outputs = 0; first < blocks; first += outputs / kBlock) {
        outputs = column_blocks_of(blocks - first) * kBlock;
        for (int phase = 0; phase < stride; phase++)
            for (int row = 0; row < w.rows; row++)
                for (int channel = 0; channel < w.inputs; channel++)
                    for (int position = 0; position < positions; position++) {
                        const int column = phase + position * stride;
                        for (int lane = 0; lane < outputs; lane++)
                            packed.push_back(
                                column < w.columns
                                    ? bits_of(w.at(first * kBlock + lane, channel, row, column))
                                    : 0u);
                    }
    }
    return packed;
}

std::vector<uint32_t> pack_columns_dense(const Weights& w, int pixel) {
    std::vector<uint32_t> packed;
    const int blocks = (w.outputs + kBlock - 1) / kBlock;
    const int rows = (w.rows + pixel - 1) / pixel, columns = (w.columns + pixel - 1) / pixel;
    for (int block = 0; block < blocks; block++)
        for (int part = 0; part < pixel * pixel; part++)
            for (int channel = 0; channel < w.inputs; channel++)
                for (int tap = 0; tap < rows * columns; tap++) {
                    const int row = tap / columns * pixel + part / pixel;
                    const int column = tap % columns * pixel + part % pixel;
                    const bool exists = row < w.rows && column < w.columns;
                    for (int lane = 0; lane < kBlock; lane++)
                        packed.push_back(
                            exists ? bits_of(w.at(block * kBlock + lane, channel, row, column)) : 0u);
                }
    return packed;
}

std::vector<uint32_t> pack_signs(const Weights& w) {
    const int blocks = (w.outputs + kBlock - 1) / kBlock, words = (w.inputs + 63) / 64;
    const int taps = w.rows * w.columns;
    std::vector<uint32_t> packed(static_cast<size_t>(blocks) * taps * words * kBlock * 2);
    auto* bits = reinterpret_cast<unsigned char*>(packed.data());
    for (int output = 0; output < w.outputs; output++)
        for (int channel = 0; channel < w.inputs; channel++) {
            const float* from = w.data + (static_cast<size_t>(output) * w.inputs + channel) * taps;
            for (int tap = 0; tap < taps; tap++) {
                const size_t word =
                    ((static_cast<size_t>(output / kBlock) * taps + tap) * words + channel / 64) * kBlock +
                    output % kBlock;
                if (from[tap] < 0)
                    bits[word * 8 + channel % 64 / 8] |= static_cast<unsigned char>(1u << channel % 8);
            }
        }
    return packed;
}

std::vector<uint32_t> pack_sign_rows(const Weights& w) {
    const int stride = (w.outputs + kSumOutputs - 1) / kSumOutputs * kSumOutputs;
    const int taps = w.rows * w.columns;
    std::vector<uint32_t> packed(static_cast<size_t>(taps) * w.inputs * stride / 4);
    auto* rows = reinterpret_cast<int8_t*>(packed.data());
    for (int output = 0; output < w.outputs; output++)
        for (int channel = 0; channel < w.inputs; channel++) {
            const float* from = w.data + (static_cast<size_t>(output) * w.inputs + channel) * taps;
            for (int tap = 0; tap < taps; tap++)
                rows[(static_cast<size_t>(tap) * w.inputs + channel) * stride + output] =
                    from[tap] < 0 ? -1 : 1;
        }
    return packed;
}

PackedCodes pack_codes(const Weights& w, const float* codebook, int code_bits) {
    // A column of all rows and channels in the order of the weights, as one of the dense form.
    const int taps = w.rows * w.columns;
    const size_t inputs = static_cast<size_t>(w.inputs) * taps;
    const size_t columns = static_cast<size_t>((w.inputs + kBlock - 1) / kBlock) * taps * kBlock;
    std::vector<uint32_t> column_of(inputs);
    for (int channel = 0; channel < w.inputs; channel++)
        for (int tap = 0; tap < taps; tap++)
            column_of[static_cast<size_t>(channel) * taps + tap] = static_cast<uint32_t>(
                (channel / kBlock * taps + tap) * kBlock + channel % kBlock);
    std::unordered_map<uint32_t, uint16_t> codes;
    for (int code = 0; code < 1 << code_bits; code++)
        codes.emplace(bits_of(codebook[code]), static_cast<uint16_t>(code));
    const int rows = coded_rows(code_bits), segments = (w.outputs + rows - 1) / rows;
    PackedCodes packed;
    packed.starts.assign(static_cast<size_t>(segments) * (columns + 1), 0);
    std::vector<uint16_t> sorted;
    for (int segment = 0; segment < segments; segment++) {
        uint32_t* const starts = packed.starts.data() + segment * (columns + 1);
        const int first = segment * rows, last = std::min(w.outputs, first + rows);
        const float* const from = w.data + static_cast<size_t>(first) * inputs;
        for (int row = 0; row < last - first; row++)
            for (size_t i = 0; i < inputs; i++)
                starts[column_of[i] + 1] += from[row * inputs + i] != 0;
        starts[0] = static_cast<uint32_t>(sorted.size());
        for (size_t column = 0; column < columns; column++) starts[column + 1] += starts[column];
        sorted.resize(starts[columns]);
        std::vector<uint32_t> next(starts, starts + columns);
        for (int row = 0; row < last - first; row++)
            for (size_t i = 0; i < inputs; i++) {
                const float value = from[row * inputs + i];
                if (value == 0) continue;
                const auto code = codes.find(bits_of(value));
                if (code == codes.end()) throw std::invalid_argument("a weight is not in the codebook");
                sorted[next[column_of[i]]++] =
                    static_cast<uint16_t>(row << code_bits | code->second);
            }
    }
    packed.entries.resize((sorted.size() + 1) / 2);
    if (!sorted.empty())
        std::memcpy(packed.entries.data(), sorted.data(), sizeof(uint16_t) * sorted.size());
    return packed;
}

}  // namespace rrm

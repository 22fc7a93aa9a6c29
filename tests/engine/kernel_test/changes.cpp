// Kernels that compare an activation with its snapshot.
#include <bit>
#include <limits>

#include "harness.hpp"

namespace rrm::test {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// One row of activations, [blocks][width][16] with zeros where no channel is, and its snapshot.
struct Row {
    Row(Case& c, int most_channels)
        : width(c.random.between(1, 24)),
          channels(c.random.chance(0.5) ? c.random.one_of({16, 32, 64, 128})
                                        : c.random.between(1, most_channels)),
          blocks((channels + kBlock - 1) / kBlock), block(static_cast<ptrdiff_t>(width) * kBlock),
          x(static_cast<size_t>(blocks * block)), snapshot(x), occupied(width), hits(width) {
        Random& random = c.random;
        const double zeros = random.density(), changes = random.density();
        const bool special = random.chance(0.1);
        for (int channel = 0; channel < channels; channel++)
            for (int column = 0; column < width; column++) {
                const size_t i = channel / kBlock * block + column * kBlock + channel % kBlock;
                snapshot[i] = random.chance(zeros) ? 0.0f : random.real();
                x[i] = snapshot[i];
                if (random.chance(changes)) x[i] = random.chance(0.5) ? random.real() : 0.0f;
                if (special && random.chance(0.01)) x[i] = random.one_of({kInfinity, -kInfinity, kNan});
            }
        for (int column = 0; column < width; column++) {
            occupied[column] = static_cast<uint8_t>(random.between(0, channels));
            hits[column] = random.chance(0.3);
        }
        threshold = random.one_of({0.0f, 0.01f, 0.5f, 4.0f});
        paper = random.chance(0.3);
        first = random.chance(0.5);
    }

    int width, channels, blocks;
    ptrdiff_t block;
    Array<float> x, snapshot;
    Array<uint8_t> occupied, hits;
    float threshold;
    bool paper, first;
};

Counts some_counts(Case& c) {
    return {c.random.between(0, 99), c.random.between(0, 99), c.random.chance(0.9)};
}

void equal_counts(Case& c, const Counts& actual, const Counts& expected) {
    c.expect(actual.nonzero == expected.nonzero, "counts.nonzero differs");
    c.expect(actual.deltas == expected.deltas, "counts.deltas differs");
    c.expect(actual.finite == expected.finite, "counts.finite differs");
}

std::vector<Run> some_runs(Case& c, int width) {
    std::vector<Run> runs;
    for (int column = c.random.between(0, 2); column < width;) {
        const int end = std::min(width, column + c.random.between(1, 24));
        runs.push_back({column, end});
        column = end + c.random.between(1, 4);
    }
    return runs;
}

}  // namespace

void check_compress(Case& c) {
    Row expected(c, 128);
    const std::vector<Run> runs = some_runs(c, expected.width);
    // What lies outside of the runs must not be read.
    for (int column = 0; column < expected.width; column++) {
        bool inside = false;
        for (const Run& run : runs) inside |= column >= run.begin && column < run.end;
        for (int i = 0; !inside && i < expected.blocks * kBlock; i++)
            expected.x[i / kBlock * expected.block + column * kBlock + i % kBlock] = kNan;
    }
    const size_t capacity = static_cast<size_t>(expected.width) * expected.channels + kListSlack;
    const auto width = static_cast<size_t>(expected.width);
    Row actual = expected;
    Array<uint32_t> expected_values(capacity), actual_values(capacity);
    Array<uint8_t> expected_units(capacity), actual_units(capacity);
    Array<uint32_t> expected_starts(width + 1), actual_starts(width + 1);
    Counts expected_counts = some_counts(c), actual_counts = expected_counts;
    const auto args = [&](Row& row, Array<uint32_t>& values, Array<uint8_t>& units,
                          Array<uint32_t>& starts, Counts& counts) {
        return CompressArgs{row.x.data(), row.block, row.snapshot.data(), row.block, runs.data(),
                            static_cast<int>(runs.size()), row.width, row.channels,
                            row.occupied.data(), row.hits.data(), row.first, row.threshold,
                            row.paper, values.data(), units.data(), starts.data(), &counts};
    };
    reference_kernels().compress(
        args(expected, expected_values, expected_units, expected_starts, expected_counts),
        c.arithmetic);
    c.kernels.compress(args(actual, actual_values, actual_units, actual_starts, actual_counts),
                       c.arithmetic);
    c.equal("starts", actual_starts, expected_starts);
    for (size_t i = 0; c.problem.empty() && i < expected_starts[width]; i++) {
        c.equal_unit("values", i, actual_values[i], expected_values[i]);
        c.compare("units", i, actual_units[i], expected_units[i],
                  actual_units[i] == expected_units[i]);
    }
    c.equal("snapshot", actual.snapshot, expected.snapshot);
    c.equal("occupied", actual.occupied, expected.occupied);
    c.equal("hits", actual.hits, expected.hits);
    equal_counts(c, actual_counts, expected_counts);
}

void check_keep(Case& c) {
    Random& random = c.random;
    Row expected(c, 128);
    const ptrdiff_t dense_block = c.bf16() ? expected.block / 2 : expected.block;
    const auto units = static_cast<size_t>(expected.blocks * dense_block);
    // The frame before is a snapshot or a dense form, which may be the one to be written.
    const bool from_snapshot = random.chance(0.5), in_place = random.chance(0.5);
    const bool keeps_snapshot = random.chance(0.5), counted = random.chance(0.7);
    Array<uint32_t> last(units);
    for (size_t i = 0; i < units; i++) {
        const auto bits = [](float x) { return std::bit_cast<uint32_t>(x); };
        // To nearest, as dense forms are: pixels that rest are equal to theirs.
        const auto rounded = [&](float x) { return bits(x) + 0x7fffu + (bits(x) >> 16 & 1u); };
        last[i] = c.bf16() ? (rounded(expected.snapshot[2 * i]) >> 16) |
                                 (rounded(expected.snapshot[2 * i + 1]) & 0xffff0000u)
                           : bits(expected.snapshot[i]);
    }
    Row actual = expected;
    Array<uint32_t> expected_dense = in_place ? last : Array<uint32_t>(units);
    Array<uint32_t> actual_dense = expected_dense;
    Counts expected_counts = some_counts(c), actual_counts = expected_counts;
    const auto args = [&](Row& row, Array<uint32_t>& dense, Counts& counts) {
        return KeepArgs{row.x.data(), row.block, from_snapshot ? row.snapshot.data() : nullptr,
                        row.block, in_place ? dense.data() : last.data(),
                        keeps_snapshot ? row.snapshot.data() : nullptr, dense.data(), dense_block, 0,
                        row.width, row.channels, row.occupied.data(), row.threshold,
                        counted ? &counts : nullptr};
    };
    reference_kernels().keep(args(expected, expected_dense, expected_counts), c.arithmetic);
    c.kernels.keep(args(actual, actual_dense, actual_counts), c.arithmetic);
    for (size_t i = 0; i < expected_dense.size(); i++)
        c.equal_unit("dense", i, actual_dense[i], expected_dense[i]);
    c.equal("snapshot", actual.snapshot, expected.snapshot);
    c.equal("occupied", actual.occupied, expected.occupied);
    equal_counts(c, actual_counts, expected_counts);
}

void check_keep_columns(Case& c) {
    Random& random = c.random;
    const int width = random.between(1, 60), channels = random.between(1, 4);
    const auto size = static_cast<size_t>(width) * channels;
    const double changes = random.density();
    const bool in_place = random.chance(0.5), keeps_snapshot = random.chance(0.5);
    const bool special = random.chance(0.1);
    Array<float> x(size), last(size);
    for (size_t i = 0; i < size; i++) {
        last[i] = random.chance(0.2) ? 0.0f : random.real();
        x[i] = random.chance(changes) ? random.real() : last[i];
        if (special && random.chance(0.01)) x[i] = random.one_of({kInfinity, kNan});
    }
    const float threshold = random.one_of({0.0f, 0.01f, 0.5f});
    const Counts counts = some_counts(c);
    struct Kept {
        Array<float> dense, snapshot;
        Array<uint8_t> hits;
        Counts counts;
    };
    const auto run = [&](const Kernels& kernels) {
        Kept kept = {in_place ? last : Array<float>(size), last, Array<uint8_t>(width), counts};
        kernels.keep_columns({x.data(), in_place ? kept.dense.data() : last.data(),
                              keeps_snapshot ? kept.snapshot.data() : nullptr, kept.dense.data(),
                              width, channels, kept.hits.data(), threshold, &kept.counts});
        return kept;
    };
    const Kept expected = run(reference_kernels()), actual = run(c.kernels);
    c.equal("dense", actual.dense, expected.dense);
    c.equal("snapshot", actual.snapshot, expected.snapshot);
    c.equal("hits", actual.hits, expected.hits);
    equal_counts(c, actual.counts, expected.counts);
}

void check_select(Case& c) {
    Row expected(c, 128);
    Row actual = expected;
    const bool fresh = c.random.chance(0.2), in_place = c.random.chance(0.5);
    Array<float> expected_next(expected.snapshot.size()), actual_next = expected_next;
    // The frame before: like this one in places.
    Array<float> expected_previous = expected.x;
    for (size_t i = 0; i < expected_previous.size(); i++)
        if (expected_previous[i] != 0 && c.random.chance(0.5)) expected_previous[i] = c.random.real();
    Array<float> actual_previous = expected_previous;
    Counts expected_counts = some_counts(c), actual_counts = expected_counts;
    const auto args = [&](Row& row, Array<float>& next, Array<float>& previous, Counts& counts) {
        return SelectArgs{row.x.data(), row.block,
                          fresh ? nullptr : row.snapshot.data(), row.block,
                          in_place ? row.snapshot.data() : next.data(), row.block, 0,
                          row.width, row.channels, row.occupied.data(), row.hits.data(),
                          row.threshold, row.paper, &counts, row.paper ? previous.data() : nullptr,
                          row.block};
    };
    reference_kernels().select(args(expected, expected_next, expected_previous, expected_counts));
    c.kernels.select(args(actual, actual_next, actual_previous, actual_counts));
    c.equal("next", actual_next, expected_next);
    c.equal("previous", actual_previous, expected_previous);
    c.equal("last", actual.snapshot, expected.snapshot);
    c.equal("occupied", actual.occupied, expected.occupied);
    c.equal("hits", actual.hits, expected.hits);
    equal_counts(c, actual_counts, expected_counts);
}

void check_truncated(Case& c) {
    const Row row(c, 128);
    const std::vector<Run> runs = some_runs(c, row.width);
    const bool kept = c.random.chance(0.7);
    Array<float> expected_energy(row.width);
    for (int column = 0; column < row.width; column++) expected_energy[column] = c.random.exact();
    Array<float> actual_energy = expected_energy;
    double expected = 3, actual = 3;
    const auto args = [&](Array<float>& energy, double& sum) {
        return TruncatedArgs{row.x.data(), row.block, row.snapshot.data(), row.block, runs.data(),
                             static_cast<int>(runs.size()), row.channels, row.threshold,
                             kept ? energy.data() : nullptr, &sum};
    };
    reference_kernels().truncated(args(expected_energy, expected));
    c.kernels.truncated(args(actual_energy, actual));
    // The order of the sums differs.
    for (int column = 0; column < row.width; column++) {
        const float a = actual_energy[column], b = expected_energy[column];
        c.compare("energy", static_cast<size_t>(column), a, b,
                  std::fabs(a - b) <= 1e-5f * std::fabs(b));
    }
    c.expect(std::fabs(actual - expected) <= 1e-5 * (std::fabs(expected) + row.width * 8),
             "the sum differs");
}

void check_compress_columns(Case& c) {
    Random& random = c.random;
    const int height = random.between(1, 6), width = random.between(1, 24);
    const int channels = random.one_of({1, 2, 3, 3, 4});
    const float threshold = random.one_of({0.0f, 0.01f, 0.5f});
    const bool paper = random.chance(0.3), special = random.chance(0.1);
    const double changes = random.density();
    const size_t capacity = static_cast<size_t>(height) * channels + kListSlack;
    struct Lists {
        Array<uint32_t> values;
        Array<uint16_t> rows, starts;
        Array<uint8_t> hits;
        Array<float> snapshot;
        ColumnList list;
        Counts counts;
    };
    const size_t size = static_cast<size_t>(height) * width * channels;
    Array<float> x(size), snapshot(size);
    for (size_t i = 0; i < size; i++) {
        snapshot[i] = random.chance(0.2) ? 0.0f : random.real();
        x[i] = random.chance(changes) ? random.real() : snapshot[i];
        if (special && random.chance(0.01)) x[i] = random.one_of({kInfinity, kNan});
    }
    const Counts counts = some_counts(c);
    const auto run = [&](const Kernels& kernels) {
        Lists lists = {Array<uint32_t>(capacity * width), Array<uint16_t>(capacity * width),
                       Array<uint16_t>(static_cast<size_t>(height + 1) * width),
                       Array<uint8_t>(static_cast<size_t>(height) * width), snapshot, {}, counts};
        lists.list = {height, width, channels, capacity,
                      lists.values.data(), lists.rows.data(), lists.starts.data()};
        for (int row = 0; row < height; row++) {
            const size_t at = static_cast<size_t>(row) * width;
            kernels.compress_columns({x.data() + at * channels,
                                      lists.snapshot.data() + at * channels, row, threshold, paper,
                                      &lists.list, lists.hits.data() + at, &lists.counts});
        }
        return lists;
    };
    Lists expected = run(reference_kernels()), actual = run(c.kernels);
    c.equal("starts", actual.starts, expected.starts);
    for (int column = 0; column < width; column++) {
        const int count = expected.starts[static_cast<size_t>(height) * width + column];
        for (int i = 0; c.problem.empty() && i < count; i++) {
            const size_t at = column * capacity + i;
            c.equal_unit("values", at, actual.values[at], expected.values[at]);
            c.compare("rows", at, actual.rows[at], expected.rows[at],
                      actual.rows[at] == expected.rows[at]);
        }
    }
    c.equal("snapshot", actual.snapshot, expected.snapshot);
    c.equal("hits", actual.hits, expected.hits);
    equal_counts(c, actual.counts, expected.counts);
}

}  // namespace rrm::test

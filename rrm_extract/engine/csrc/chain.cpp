// Layers that hand their rows on to each other while those are in the second-level cache.
//
// A block of a mobile network widens its map, filters it, and narrows it again; the wide maps are
// larger than the cache. Where all of them change anyway, nobody looks at them but the next layer:
// then each layer takes some rows as soon as the one before has made what they need. The sums are
// those of whole frames, in the same order. All chains share the memory for such rows; only what the
// next frame will be compared with is written as a whole map.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <numeric>

#include "operations.hpp"

namespace rrm {

namespace {

// Of rows between the layers of a chain: with weights, they share the second-level cache.
constexpr size_t kRowsBytes = 256 * 1024;
constexpr int kFewestRows = 4;         // for which it is worth to fetch the weights again
constexpr size_t kWeightBytes = 512 * 1024;  // of all its layers, which pass once for each strip

// How many rows of a result can be made when `done` of its input's `height` rows are there.
int rows_ready(const Geometry& window, int done, int height, int rows) {
    if (done == height) return rows;
    const int last = done - 1 + window.row_padding - window.row_dilation * (window.kernel_rows - 1);
    return last < 0 ? 0 : std::min(rows, last / window.row_stride + 1);
}

// Rows that one layer makes and the next one reads, as part of its input's dense form.
class Link {
public:
    // `most`: rows that are made at a time.
    Link(State& state, int index, const Geometry& reader, int most)
        : delta_(state.deltas[index]), plan_(state.network->deltas[index]), reader_(reader),
          row_(state.whole_row(index)), side_(row_ / (plan_.width + 2 * plan_.halo) * plan_.halo),
          capacity_(most + reader.row_dilation * (reader.kernel_rows - 1) + reader.row_padding +
                    reader.row_behind) {}
    size_t size() const { return static_cast<size_t>(capacity_ * row_) * plan_.blocks(); }
    // Rows that the reader makes at a time.
    int most_read(int most) const {
        return (most + reader_.row_padding + reader_.row_behind) / reader_.row_stride + 2;
    }

    void begin(uint32_t* memory) {
        memory_ = memory;
        for (int block = 0; block < plan_.blocks(); block++)
            for (int row = 0; row < capacity_; row++) {
                uint32_t* const line = memory_ + (block * capacity_ + row) * row_;
                const bool above = row < reader_.row_padding;
                std::fill(line, line + (above ? row_ : side_), 0u);
                std::fill(line + row_ - side_, line + row_, 0u);
            }
        turn_to(-reader_.row_padding);
    }
    // Drops the rows that nobody reads again, when rows up to `made` are there, and `read` of the
    // reader's.
    void advance(int made, int read) {
        const int next = std::min(made, read * reader_.row_stride - reader_.row_padding);
        if (next == first_) return;
        for (int block = 0; block < plan_.blocks(); block++) {
            uint32_t* const to = memory_ + block * capacity_ * row_;
            std::memmove(to, to + (next - first_) * row_,
                         sizeof(uint32_t) * static_cast<size_t>((made - next) * row_));
        }
        turn_to(next);
    }
    // All rows are there, and zeros below them.
    void end() {
        const ptrdiff_t count = reader_.row_behind * row_;
        for (int block = 0; block < plan_.blocks(); block++)
            std::fill_n(memory_ + (block * capacity_ + plan_.height - first_) * row_, count, 0u);
    }
    ~Link() { delta_.handed = nullptr; }
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;

private:
    void turn_to(int first) {
        first_ = first;
        delta_.handed = memory_ - first * row_ + side_;
        delta_.handed_block = capacity_ * row_;
    }

    DeltaState& delta_;
    const Delta& plan_;
    const Geometry& reader_;
    const ptrdiff_t row_;              // in units, with the halo on both sides, and of one of them
    const ptrdiff_t side_;
    const ptrdiff_t capacity_;         // in rows
    uint32_t* memory_ = nullptr;
    int first_ = 0;                    // row that lies first in the memory
};

}  // namespace

void Network::find_chains() {
    std::vector<int> readers(deltas.size());
    for (const auto& operation : operations)
        if (operation->source_delta() >= 0) readers[operation->source_delta()]++;
    const auto in_rows = [&](size_t index) -> const RowOperation* {
        const RowOperation* const one = operations[index]->by_rows();
        return one != nullptr && tensors[one->target()].height > 1 ? one : nullptr;
    };
    const auto takes_all = [&](size_t index) {  // that the operation before it makes
        const RowOperation* const one = in_rows(index);
        if (one == nullptr || in_rows(index - 1) == nullptr) return false;
        const Tensor& between = tensors[operations[index - 1]->target()];
        const int delta = one->source_delta();
        return !between.stored && between.deltas == std::vector<int>{delta} && readers[delta] == 1;
    };
    for (size_t begin = 0, end = 0; begin < operations.size(); begin = end) {
        for (end = begin + 1; end < operations.size() && takes_all(end);) end++;
        if (end - begin < 2) continue;
        size_t weights = 0, between = 0;
        for (size_t i = begin; i < end; i++) {
            weights += operations[i]->by_rows()->weight_bytes();
            const Tensor& made = tensors[operations[i]->target()];
            if (i + 1 < end) between += sizeof(float) * made.plane() * made.blocks();
        }
        const int height = tensors[operations[begin]->target()].height;
        const int rows = static_cast<int>(kRowsBytes * static_cast<size_t>(height) / between);
        if (weights <= kWeightBytes)
            chains.push_back({begin, end, std::min(height, std::max(rows, kFewestRows))});
    }
}

const Network::Chain* Network::chain_at(size_t index) const {
    for (const Chain& chain : chains)
        if (chain.begin == index) return &chain;
    return nullptr;
}

bool State::passes_rows(const Network::Chain& chain, int frame) const {
    for (size_t i = chain.begin; i < chain.end; i++) {
        const DeltaState& delta = deltas[network->operations[i]->source_delta()];
        if (!delta.everywhere || delta.dense[frame] == 0) return false;
        if (i > chain.begin && delta.measured[frame] != 0) return false;
    }
    return true;
}

bool State::is_compared_with(const Network::Chain& chain, int frame) const {
    for (size_t i = chain.begin + 1; i < chain.end; i++)
        if (is_compared_with(network->operations[i]->source_delta(), frame)) return true;
    return false;
}

void State::run_chain(const Network::Chain& chain, int frame) {
    const size_t count = chain.end - chain.begin;
    frames_by_rows++;
    const auto layer = [&](size_t i) { return network->operations[chain.begin + i]->by_rows(); };
    // The thread's own clock is too slow to be read for a few rows; how its time divides among the
    // layers is left to the other one.
    using Clock = std::chrono::steady_clock;
    const double began = thread_seconds();
    std::vector<double> shares(count);
    const auto timed_step = [&](size_t i, const auto& work) {
        const auto before = Clock::now();
        step(chain.begin + i, work);
        shares[i] += std::chrono::duration<double>(Clock::now() - before).count();
    };
    std::vector<Changes> changes(count);
    std::vector<int> heights(count), done(count);
    for (size_t i = 0; i < count; i++) {
        heights[i] = network->tensors[layer(i)->target()].height;
        timed_step(i, [&] { layer(i)->look(*this, frame, changes[i]); });
        if (i + 1 == count) break;
        for (int row = 0; row < heights[i]; row++)
            mark(layer(i + 1)->source_delta(), frame, row, changes[i].sent(row).changed);
    }
    std::deque<Link> links;  // those between the layers, unless whole maps are written
    if (!is_compared_with(chain, frame)) {
        size_t size = 0;
        int most = chain.rows;
        for (size_t i = 1; i < count; i++) {
            links.emplace_back(*this, layer(i)->source_delta(), layer(i)->window(), most);
            size += links.back().size();
            most = links.back().most_read(most);
        }
        uint32_t* memory = room(chain_rows_, size, true);
        for (Link& link : links) {
            link.begin(memory);
            memory += link.size();
        }
    }
    while (done[0] < heights[0])
        for (size_t i = 0; i < count; i++) {
            const int ready =
                i == 0 ? std::min(done[0] + chain.rows, heights[0])
                       : rows_ready(layer(i)->window(), done[i - 1], heights[i - 1], heights[i]);
            if (ready <= done[i]) continue;
            const bool linked = i < links.size();
            if (linked) links[i].advance(done[i], done[i + 1]);
            timed_step(i, [&] { layer(i)->run_rows(*this, frame, done[i], ready, changes[i]); });
            done[i] = ready;
            if (linked && ready == heights[i]) links[i].end();
        }
    const double spent = thread_seconds() - began;
    const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
    for (size_t i = 0; i < count && sum > 0; i++)
        operations[chain.begin + i].seconds += spent * shares[i] / sum;
}

}  // namespace rrm

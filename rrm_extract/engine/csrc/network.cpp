#include "network.hpp"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <utility>

#include "operations.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace rrm {

namespace {

// Numbers too small for a normal float cost a hundred times the time and change nothing.
class FlushDenormals {
public:
#if defined(__SSE2__)
    FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
    ~FlushDenormals() { _mm_setcsr(before_); }

private:
    unsigned before_;
#elif defined(__aarch64__)
    FlushDenormals() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
        __asm__ volatile("msr fpcr, %0" : : "r"(before_ | (uint64_t{1} << 24)));
    }
    ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" : : "r"(before_)); }

private:
    uint64_t before_;
#endif
};

// Frames of a select that are kept: those of a batch and the one before, unless frames come one by
// one and each can take the place of the last. Of bits both are always kept.
int rings(const Delta& delta) {
    return delta.versions == 1 && delta.kind != DeltaKind::bits ? 1 : delta.versions + 1;
}

// A layer that runs dense goes back to lists only well below the break-even.
constexpr float kHysteresis = 0.93f;

// Frames after which accumulators are made anew: each sum is rounded, and in ten thousand frames of
// lists the errors would add up to 1e-5 of the features.
constexpr int kOldest = 1000;

// While nearly everything changes, only one frame in so many is compared with the one before: at
// first, and where it goes on.
constexpr int kFirstPause = 8, kLongestPause = 32;

// Pictures often come in pairs that are alike: one frame in which little has changed does not speak
// for the rest. So many of the next batch are asked as well.
constexpr int kAskedInDoubt = 2;

// Above this share of outputs that may have changed, those that have not are not worth keeping: where
// a dense frame skips them, and where it computes all the same.
constexpr double kNearlyAll = 0.7, kMost = 0.2;

}  // namespace

double thread_seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void Network::schedule() {
    find_chains();
    // Frames pass an operation together so that weights, accumulators and snapshots are read once
    // for all of them; but not more than keep what they hand on in the third-level cache. Where
    // weights are large for their use, one use a pixel, they count for more, unless they stay in the
    // second-level cache anyway.
    constexpr size_t kHandedOn = size_t{2} << 20, kLargeWeights = size_t{256} << 10;
    constexpr int kEnoughPixels = 1200;
    size_t chained = 0;  // operations before it belong to a chain
    for (const auto& operation : operations) {
        int frames = segments.empty() ? 1 : segments.back().frames;
        const size_t index = static_cast<size_t>(operation->index);
        if (const Chain* const chain = chain_at(index)) chained = chain->end;
        const bool inside = index < chained && chain_at(index) == nullptr;
        const Tensor& out = tensors[operation->target() < 0 ? 0 : operation->target()];
        const size_t bytes = 4 * out.plane() * out.blocks();
        const RowOperation* const layer = operation->by_rows();
        const bool is_large = operation->source_delta() >= 0 &&
                              (layer == nullptr || layer->weight_bytes() >= kLargeWeights);
        while (!inside && frames < batch &&
               (frames * 2 * bytes <= kHandedOn ||
                (is_large && frames * out.height * out.width < kEnoughPixels)))
            frames *= 2;
        frames = std::min(frames, batch);
        operation->frames = frames;
        if (segments.empty() || segments.back().frames != frames)
            segments.push_back({index, 0, frames});
        segments.back().end = index + 1;
    }
    // What only its own segment reads is kept for the frames of one pass, the rest for all.
    std::vector<const Segment*> made(tensors.size());
    for (const auto& operation : operations)
        if (operation->target() >= 0) {
            made[operation->target()] = &segment_of(static_cast<size_t>(operation->index));
            tensors[operation->target()].versions = operation->frames;
        }
    std::vector<std::vector<int>> bases(tensors.size());
    for (size_t i = 0; i < tensors.size(); i++) {
        std::vector<int> waiting = {static_cast<int>(i)};
        while (!waiting.empty()) {
            const int tensor = waiting.back();
            waiting.pop_back();
            if (tensors[tensor].planes.empty()) bases[i].push_back(tensor);
            for (const Tensor::Plane& plane : tensors[tensor].planes) waiting.push_back(plane.tensor);
        }
    }
    for (const auto& operation : operations) {
        const Segment* const segment = &segment_of(static_cast<size_t>(operation->index));
        for (const int source : operation->sources())
            for (const int base : bases[source])
                if (made[base] != segment) tensors[base].versions = batch;
        const int index = operation->source_delta();
        if (index < 0) continue;
        Delta& delta = deltas[index];
        delta.skipped |= operation->skips_unchanged();
        const bool inside =
            delta.tensor >= 0 ? made[delta.tensor] == segment : segment == &segments.front();
        delta.versions = std::max(delta.versions, inside ? operation->frames : batch);
        const Tensor& out = tensors[operation->target()];
        delta.joint = delta.joint || (delta.kind == DeltaKind::list && out.height * out.width == 1);
    }
    for (const int output : outputs)
        for (const int base : bases[output]) tensors[base].versions = batch;
    for (Delta& delta : deltas) {
        if (delta.tensor < 0 || delta.kind != DeltaKind::list) continue;
        const Tensor& source = tensors[delta.tensor];
        delta.stored_alike = arithmetic == Arithmetic::fp32 && delta.halo == 0 && !delta.joint &&
                             source.stored && source.planes.empty() &&
                             source.versions >= delta.versions;
    }
    if (arithmetic == Arithmetic::bf16) find_rounded();
    place_lists();
}

const Network::Segment& Network::segment_of(size_t index) const {
    return *std::find_if(segments.begin(), segments.end(),
                         [&](const Segment& segment) { return index < segment.end; });
}

// Stored tensors that only residual sums read, and linear layers as a whole list.
void Network::find_rounded() {
    std::vector<uint8_t> wanted(tensors.size());  // as floats
    std::vector<int> made_from(tensors.size(), -1);
    for (const auto& operation : operations) {
        if (operation->writes_rounded()) made_from[operation->target()] = operation->source_delta();
        if (!operation->reads_rounded())
            for (const int source : operation->sources()) wanted[source] = 1;
    }
    for (const int output : outputs) wanted[output] = 1;
    for (const Tensor& tensor : tensors)
        for (const Tensor::Plane& plane : tensor.planes) wanted[plane.tensor] = 1;
    for (size_t i = 0; i < tensors.size(); i++) {
        Tensor& tensor = tensors[i];
        if (!tensor.stored || !tensor.planes.empty() || wanted[i] != 0) continue;
        // Maps of one pixel are computed for several frames together.
        if (tensor.deltas.empty() && tensor.height * tensor.width > 1) {
            tensor.rounded = made_from[i];
            tensor.in_place = true;
            continue;
        }
        for (const int index : tensor.deltas) {
            Delta& delta = deltas[index];
            if (delta.kind != DeltaKind::list || delta.joint) continue;
            delta.versions = std::max(delta.versions, tensor.versions);
            tensor.rounded = index;
            break;
        }
    }
}

State::State(std::shared_ptr<const Network> plan)
    : network(std::move(plan)),
      deltas(network->deltas.size()),
      operations(network->operations.size()),
      values_(network->tensors.size()),
      list_values_(network->list_memory.values),
      list_starts_(network->list_memory.starts),
      list_units_(network->list_memory.units),
      changed_(network->tensors.size()) {
    const int batch = network->batch;
    for (size_t i = 0; i < network->tensors.size(); i++) {
        const Tensor& tensor = network->tensors[i];
        if (tensor.stored && tensor.planes.empty())
            values_[i] = Buffer<float>(tensor.plane() * tensor.blocks() * tensor.versions, true);
        if (tensor.stored && tensor.planes.empty())
            changed_[i] = Buffer<uint8_t>(static_cast<size_t>(tensor.versions) * tensor.height *
                                          tensor.width);
    }
    for (size_t i = 0; i < network->deltas.size(); i++) {
        const Delta& plan = network->deltas[i];
        DeltaState& state = deltas[i];
        state.dense.resize(batch);
        state.measured.resize(batch);
        state.counts.resize(batch);
        state.whole.resize(plan.versions);
        const size_t pixels = static_cast<size_t>(plan.height) * plan.width;
        for (int version = 0; version < plan.versions; version++) state.hits.emplace_back(pixels);
        if (plan.kind == DeltaKind::select) {
            state.snapshot =
                Buffer<float>(static_cast<size_t>(whole_block(static_cast<int>(i))) *
                                  plan.blocks() * rings(plan), true);
            state.occupied = Buffer<uint8_t>(pixels * ((plan.blocks() + 7) / 8));
            if (plan.paper) state.previous = Buffer<float>(pixels * plan.blocks() * kBlock, true);
        } else if (plan.kind == DeltaKind::bits) {
            state.bits = Buffer<uint64_t>(pixels * plan.words() * rings(plan), true);
        } else if (plan.kind == DeltaKind::columns) {
            state.snapshot = Buffer<float>(pixels * plan.channels);
            for (int version = 0; version < plan.versions; version++) {
                ColumnList list{plan.height, plan.width, plan.channels, 0, nullptr, nullptr, nullptr};
                list.capacity = static_cast<size_t>(plan.height) * plan.channels + kListSlack;
                state.column_values.emplace_back(list.capacity * plan.width);
                state.column_rows.emplace_back(list.capacity * plan.width);
                state.column_starts.emplace_back(static_cast<size_t>(plan.height + 1) * plan.width);
                list.values = state.column_values.back().data();
                list.rows = state.column_rows.back().data();
                list.starts = state.column_starts.back().data();
                state.columns.push_back(list);
            }
        } else {
            state.snapshot = Buffer<float>(pixels * plan.blocks() * kBlock, true);
            state.occupied = Buffer<uint8_t>(pixels * plan.groups());
            for (int version = 0; version < plan.versions; version++) {
                const size_t before = static_cast<size_t>(version);
                List list = network->list_shape(plan);
                list.values = list_values_.data() + plan.list_place.values +
                              before * plan.list_room.values;
                list.units = list_units_.data() + plan.list_place.units +
                             before * plan.list_room.units;
                list.starts = list_starts_.data() + plan.list_place.starts +
                              before * plan.list_room.starts;
                state.lists.push_back(list);
            }
        }
    }
    for (const auto& operation : network->operations) operation->prepare(*this);
}

void State::reset() {
    for (DeltaState& delta : deltas) {
        delta.valid = delta.dense_mode = delta.everywhere = delta.kept = delta.doubted = false;
        delta.last_whole = -1;
    }
}

void State::key_frame() {
    for (DeltaState& delta : deltas) delta.valid = delta.kept = false;
}

void State::track(bool on) {
    tracked_ = on;
    reset();
}

// Of the pixels of a row, or of the row's sixteenths where the first layer's input is taken.
float* State::energy(int index, int row, int group) {
    const Delta& plan = network->deltas[index];
    if (plan.paper) return nullptr;
    Buffer<float>& buffer = deltas[index].energy;
    const bool columns = plan.kind == DeltaKind::columns;
    const int width = columns ? (plan.width * plan.channels + kBlock - 1) / kBlock : plan.width;
    const int groups = columns ? 1 : plan.blocks();
    if (buffer.empty()) buffer = Buffer<float>(static_cast<size_t>(groups) * plan.height * width, true);
    return buffer.data() + (static_cast<size_t>(group) * plan.height + row) * width;
}

// Whether the layers run dense for a whole batch. Their input's dense form is the snapshot then.
bool State::all_dense(int delta) const {
    return deltas[delta].dense_mode || network->deltas[delta].break_even < 0;
}

int State::whole_before(int delta, int frame) const {
    if (frame == 0) return deltas[delta].last_whole;
    return all_dense(delta) ? (frame - 1) % network->deltas[delta].versions : -1;
}

// Takes the snapshot out of the dense form, for lists.
void State::settle(int index) {
    const Delta& plan = network->deltas[index];
    DeltaState& delta = deltas[index];
    if (delta.last_whole < 0) return;
    const uint32_t* from = whole_version(index, delta.last_whole);
    delta.last_whole = -1;
    const int blocks = plan.kind == DeltaKind::columns ? 1 : plan.blocks();
    const int pixel = plan.kind == DeltaKind::columns ? plan.channels : kBlock;
    const bool pairs = plan.kind != DeltaKind::columns && network->arithmetic == Arithmetic::bf16;
    const int count = plan.width * pixel;
    float* to = delta.snapshot.data();
    for (int block = 0; block < blocks; block++)
        for (int row = 0; row < plan.height; row++, to += count) {
            const uint32_t* units = from + block * whole_block(index) + row * whole_row(index);
            if (!pairs)
                std::memcpy(to, units, sizeof(float) * static_cast<size_t>(count));
            else
                for (int i = 0; i < count; i++) {
                    const uint32_t pair = units[i / 2];
                    const uint32_t bits = i % 2 == 0 ? pair << 16 : pair & 0xffff0000u;
                    std::memcpy(to + i, &bits, sizeof(bits));
                }
        }
}

void State::begin(int frames) {
    for (size_t i = 0; i < deltas.size(); i++) {
        DeltaState& delta = deltas[i];
        const bool all = all_dense(static_cast<int>(i));
        if (!all) settle(static_cast<int>(i));
        if (delta.age >= kOldest) delta.kept = false;
        const int first = delta.valid ? 0 : 1;  // a key frame says nothing of what changes
        if (first == 1 || !delta.doubted)       // what is known is of another scene, or had its say
            delta.reached = delta.outputs = delta.changed = delta.compared = 0;
        for (int frame = 0; frame < frames; frame++) {
            delta.dense[frame] = all || (frame == 0 && !(delta.valid && delta.kept));
            const bool compared = !delta.everywhere || delta.unseen >= delta.pause || frame < first ||
                                  (frame < first + kAskedInDoubt && delta.doubted);
            delta.measured[frame] = compared;
            // The frame after a key frame is the first that tells.
            delta.unseen = frame < first ? delta.pause : compared ? 1 : delta.unseen + 1;
            delta.counts[frame] = Counts();
        }
        if (tracked_ && delta.dense[0] != 0 && !delta.energy.empty()) {
            std::fill_n(delta.energy.data(), delta.energy.size(), 0.0f);
            delta.truncated = 0;
        }
    }
    // Where a layer turns dense, those behind it look at all pixels. In bfloat16 the rounding that is
    // left there passes on lists once, and the picture rests all the same.
    stirs_ = false;
    for (size_t i = 0; i < deltas.size() && network->arithmetic == Arithmetic::bf16; i++)
        stirs_ = stirs_ || (deltas[i].valid && changes_everywhere(static_cast<int>(i), 0));
}

void State::end(int frames) {
    for (size_t i = 0; i < deltas.size(); i++) {
        const Delta& plan = network->deltas[i];
        DeltaState& delta = deltas[i];
        const int first = delta.valid ? 0 : 1;  // a key frame says nothing of what changes
        const bool select = plan.kind == DeltaKind::select;
        const bool bits = plan.kind == DeltaKind::bits;  // each frame decides for itself
        delta.last_whole =
            !select && !bits && all_dense(static_cast<int>(i)) ? (frames - 1) % plan.versions : -1;
        delta.kept = select || !delta.everywhere;
        if (bits || all_dense(static_cast<int>(i)))
            delta.age = 0;
        else
            delta.age = frames + (delta.dense[0] != 0 ? -1 : delta.age);
        // Frames that were not compared have the counts of an earlier one, which say nothing new.
        for (int frame = first; frame < frames; frame++)
            if (delta.measured[frame] != 0) {
                delta.changed += delta.counts[frame].deltas;
                delta.compared++;
            }
        const double enough =
            (plan.skipped ? kNearlyAll : kMost) * (delta.everywhere ? kHysteresis : 1.0f);
        const bool reached_enough =
            delta.outputs == 0 ? delta.everywhere
                               : static_cast<double>(delta.reached) >
                                     enough * static_cast<double>(delta.outputs);
        bool dense_mode = delta.dense_mode;
        if (delta.compared > 0 && !bits) {
            const double elements = static_cast<double>(plan.channels) * plan.height * plan.width;
            const double density = static_cast<double>(delta.changed) / (elements * delta.compared);
            dense_mode = density > plan.break_even * (delta.dense_mode ? kHysteresis : 1.0f) &&
                         // What has no lists only wins where nothing is compared.
                         (!select || (reached_enough && !plan.paper));
        }
        delta.was_rounded = delta.everywhere && delta.dense[frames - 1] != 0;
        const bool everywhere = dense_mode && reached_enough;
        // A key frame reaches everything, whatever has changed.
        const bool tells = frames > first;
        const bool enough_asked = delta.doubted && delta.compared >= kAskedInDoubt;
        if (tells) delta.doubted = delta.everywhere && !everywhere && !enough_asked;
        if (tells && !delta.doubted) {
            // Both at once: frames that are not compared have no lists.
            delta.dense_mode = dense_mode;
            if (!delta.everywhere)
                delta.pause = kFirstPause;
            else if (delta.outputs > 0)
                delta.pause = std::min(2 * delta.pause, kLongestPause);
            delta.everywhere = everywhere;
        }
        delta.was_dense = delta.dense[frames - 1] != 0;
        delta.ring = (delta.ring + frames) % rings(plan);
        delta.valid = true;
    }
    thresholds_fell_ = false;
}

Share State::count_for(Share share) {
    const auto now = std::chrono::steady_clock::now();
    if (split_ != nullptr)
        (*split_)[static_cast<size_t>(share_)] +=
            std::chrono::duration<double>(now - since_).count();
    since_ = now;
    return std::exchange(share_, share);
}

bool State::run(std::vector<Array> given, int frames) {
    try {
        return compute(std::move(given), frames);
    } catch (...) {  // there was no memory: nothing that is half done may stay
        for (DeltaState& delta : deltas) {
            if (!delta.occupied.empty()) std::memset(delta.occupied.data(), 0, delta.occupied.size());
            delta.nonzero = 0;
        }
        batch_scratch_ = Buffer<float>();
        reset();
        throw;
    }
}

bool State::compute(std::vector<Array> given, int frames) {
    [[maybe_unused]] const FlushDenormals flush;
    inputs = std::move(given);
    batch_frames_ = frames;
    begin(frames);
    for (const Network::Segment& segment : network->segments)
        for (int first = 0; first < frames; first += segment.frames) {
            const int last = std::min(frames, first + segment.frames);
            for (size_t i = segment.begin; i < segment.end;) {
                const Network::Chain* const chain = network->chain_at(i);
                const size_t next = chain == nullptr ? i + 1 : chain->end;
                for (int from = first, to = first; from < last; from = to) {
                    while (chain != nullptr && to < last && passes_rows(*chain, to))
                        run_chain(*chain, to++);
                    for (from = to; to < last && (chain == nullptr || !passes_rows(*chain, to));) to++;
                    for (size_t one = i; one < next && from < to; one++) {
                        const double began = thread_seconds();
                        step(one, [&] { network->operations[one]->run(*this, from, to); });
                        operations[one].seconds += thread_seconds() - began;
                    }
                }
                i = next;
            }
        }
    bool finite = true;
    for (size_t i = 0; i < deltas.size(); i++)
        for (int frame = 0; frame < frames; frame++) {
            Counts& counts = deltas[i].counts[frame];
            finite = finite && counts.finite;
            const bool columns = network->deltas[i].kind == DeltaKind::columns;
            if (deltas[i].measured[frame] != 0) {
                deltas[i].seen = counts;
            } else {
                counts.deltas = deltas[i].seen.deltas;
                if (columns) counts.nonzero = deltas[i].seen.nonzero;
            }
            if (network->deltas[i].kind == DeltaKind::bits)  // a sign is never zero
                counts.nonzero = static_cast<int64_t>(network->deltas[i].channels) *
                                 network->deltas[i].height * network->deltas[i].width;
            else if (!columns)  // so far only what changed
                counts.nonzero = deltas[i].nonzero += counts.nonzero;
            if (!network->deltas[i].paper) counts.truncated = deltas[i].truncated += counts.truncated;
        }
    if (!finite) {
        reset();
        return false;
    }
    end(frames);
    return true;
}

float* State::plane(int tensor, int block, int frame) const {
    const Tensor* plan = &network->tensors[tensor];
    while (!plan->planes.empty()) {
        const Tensor::Plane where = plan->planes[block];
        tensor = where.tensor;
        block = where.block;
        plan = &network->tensors[tensor];
    }
    return values_[tensor].data() +
           plan->plane() * (static_cast<size_t>(frame % plan->versions) * plan->blocks() + block);
}

ResidualMap State::residual(int tensor, int block, int frame) {
    ResidualMap map;
    const Tensor& plan = network->tensors[tensor];
    if (is_rounded(tensor, frame) && !plan.in_place) {
        const int delta = plan.rounded;
        map.row = 2 * whole_row(delta);
        map.block = 2 * whole_block(delta);
        map.rounded = reinterpret_cast<const uint16_t*>(whole(delta, frame)) + block * map.block;
        return map;
    }
    map.floats = plane(tensor, block, frame);
    map.row = static_cast<ptrdiff_t>(plan.width) * kBlock;
    if (block + 1 < plan.blocks()) map.block = plane(tensor, block + 1, frame) - map.floats;
    if (is_rounded(tensor, frame)) {
        map.rounded = reinterpret_cast<const uint16_t*>(std::exchange(map.floats, nullptr));
        map.block *= 2;
    }
    return map;
}

float* State::row_scratch(size_t floats) { return room(row_scratch_, floats); }

float* State::batch_scratch(size_t floats) { return room(batch_scratch_, floats, true); }

float* State::strip_scratch(size_t floats) { return room(strip_scratch_, floats, true); }

float* State::winograd_scratch(size_t floats) { return room(winograd_scratch_, floats, true); }

ptrdiff_t State::whole_row(int delta) const {
    const Delta& plan = network->deltas[delta];
    const int pixel = plan.kind == DeltaKind::columns  ? plan.channels
                      : plan.kind == DeltaKind::select ? kBlock
                                                       : network->block_units();
    return static_cast<ptrdiff_t>(plan.width + 2 * plan.halo) * pixel;
}

ptrdiff_t State::whole_block(int delta) const {
    const Delta& plan = network->deltas[delta];
    if (deltas[delta].handed != nullptr) return deltas[delta].handed_block;
    return whole_row(delta) * (plan.height + 2 * plan.halo);
}

uint32_t* State::whole(int delta, int frame) {
    if (is_stored_as(delta, frame))
        return reinterpret_cast<uint32_t*>(plane(network->deltas[delta].tensor, 0, frame));
    return whole_version(delta, frame % network->deltas[delta].versions);
}

bool State::is_compared_with(int delta, int frame) const {
    // After the batch nobody knows yet.
    return frame + 1 == batch_frames_ || deltas[delta].measured[frame + 1] != 0;
}

bool State::is_stored_as(int delta, int frame) const {
    return network->deltas[delta].stored_alike && deltas[delta].dense[frame] != 0 &&
           deltas[delta].measured[frame] == 0 && !is_compared_with(delta, frame);
}

uint32_t* State::whole_version(int delta, int version) {
    const Delta& plan = network->deltas[delta];
    if (deltas[delta].handed != nullptr) return deltas[delta].handed;
    const int blocks = plan.kind == DeltaKind::columns ? 1 : plan.blocks();
    // A line more, so that frames do not fall on the same cache sets.
    const size_t size = static_cast<size_t>(whole_block(delta)) * blocks + (plan.joint ? kBlock : 0);
    Buffer<uint32_t>& buffer = deltas[delta].whole[plan.joint ? 0 : version];
    if (buffer.empty()) buffer = Buffer<uint32_t>(size * (plan.joint ? plan.versions : 1), true);
    const ptrdiff_t row = whole_row(delta), pixel = row / (plan.width + 2 * plan.halo);
    return buffer.data() + (plan.joint ? size * version : 0) + plan.halo * (row + pixel);
}

float* State::selected(int delta, int frame) {
    const Delta& plan = network->deltas[delta];
    const DeltaState& state = deltas[delta];
    if (state.handed != nullptr) return reinterpret_cast<float*>(state.handed);
    const int version = (state.ring + frame + 1) % rings(plan);
    const ptrdiff_t row = whole_row(delta), pixel = row / (plan.width + 2 * plan.halo);
    return state.snapshot.data() +
           static_cast<size_t>(whole_block(delta)) * plan.blocks() * version +
           plan.halo * (row + pixel);
}

uint64_t* State::bits(int delta, int frame) {
    const Delta& plan = network->deltas[delta];
    const int version = (deltas[delta].ring + frame + 1) % rings(plan);
    return deltas[delta].bits.data() +
           static_cast<size_t>(plan.height) * plan.width * plan.words() * version;
}

const uint8_t* State::changed(int tensor, int frame) const {
    return const_cast<State*>(this)->changes_of(tensor, frame);
}

uint8_t* State::changes_of(int tensor, int frame) {
    if (changed_[tensor].empty()) return nullptr;
    const Tensor& plan = network->tensors[tensor];
    return changed_[tensor].data() +
           static_cast<size_t>(frame % plan.versions) * plan.height * plan.width;
}

bool State::needs_all(int tensor, int frame) const {
    const Tensor& plan = network->tensors[tensor];
    if (plan.stored) {
        if (plan.versions > 1) return true;
        // Else the rest is there from the frame before, if both are stored, as the same kind of number.
        if (plan.rounded < 0) return false;
        if (is_rounded(tensor, frame)) return true;
        return frame > 0 ? is_rounded(tensor, frame - 1) : deltas[plan.rounded].was_rounded;
    }
    for (const int index : plan.deltas) {
        const Delta& delta = network->deltas[index];
        if (delta.kind == DeltaKind::columns) return true;
        if (deltas[index].dense[frame] != 0) return true;
        if (delta.kind == DeltaKind::select && rings(delta) > 1) return true;
    }
    return false;
}

bool* State::finite(int delta, int tensor, int frame, const Epilogue* kept) {
    const std::vector<int>& readers = network->tensors[tensor].deltas;
    bool watched = deltas[delta].measured[frame] != 0;
    // An infinite sum that nobody sees would stay, for no delta takes it back.
    if (kept != nullptr) watched = watched && !readers.empty() && kept->passes_infinities();
    for (const int index : readers) watched = watched && deltas[index].measured[frame] != 0;
    return watched ? nullptr : &deltas[delta].counts[frame].finite;
}

void State::reach(int delta, int frame, int64_t pixels, const std::vector<uint8_t>* mask) {
    if (deltas[delta].measured[frame] == 0 || changes_everywhere(delta, frame) || (frame == 0 && stirs_))
        return;
    deltas[delta].outputs += pixels;
    deltas[delta].reached +=
        mask == nullptr ? pixels : pixels - std::count(mask->begin(), mask->end(), uint8_t{0});
}

float* State::place(int tensor, int frame, int block, int row, ptrdiff_t* next_row,
                    ptrdiff_t* next_block) {
    if (network->tensors[tensor].stored) return nullptr;
    for (const int index : network->tensors[tensor].deltas) {
        if (deltas[index].measured[frame] != 0) continue;
        const DeltaKind kind = network->deltas[index].kind;
        const bool select = kind == DeltaKind::select;
        if (kind == DeltaKind::columns || (!select && network->arithmetic != Arithmetic::fp32))
            continue;
        *next_row = whole_row(index);
        *next_block = whole_block(index);
        const ptrdiff_t at = block * whole_block(index) + row * whole_row(index);
        return select ? selected(index, frame) + at
                      : reinterpret_cast<float*>(whole(index, frame) + at);
    }
    return nullptr;
}

uint16_t* State::rounded_place(int tensor, int frame, int block, int row, ptrdiff_t* next_row,
                               ptrdiff_t* next_block) {
    const Tensor& plan = network->tensors[tensor];
    if (plan.in_place && is_rounded(tensor, frame)) {
        *next_row = static_cast<ptrdiff_t>(plan.width) * kBlock;
        *next_block = 2 * static_cast<ptrdiff_t>(plan.plane());
        return reinterpret_cast<uint16_t*>(plane(tensor, block, frame)) + row * *next_row;
    }
    if (network->arithmetic != Arithmetic::bf16 || plan.deltas.size() != 1 ||
        (plan.stored && !is_rounded(tensor, frame)))
        return nullptr;
    const int index = plan.deltas.front();
    if (network->deltas[index].kind != DeltaKind::list || deltas[index].dense[frame] == 0 ||
        deltas[index].measured[frame] != 0)
        return nullptr;
    *next_row = 2 * whole_row(index);
    *next_block = 2 * whole_block(index);
    return reinterpret_cast<uint16_t*>(whole(index, frame) + block * whole_block(index) +
                                       row * whole_row(index));
}

bool State::changes_everywhere(int delta, int frame) const {
    const DeltaState& state = deltas[delta];
    if (network->deltas[delta].kind == DeltaKind::bits)
        return frame == 0 && !state.valid;  // nothing is ever truncated
    const bool before = frame > 0 ? state.dense[frame - 1] != 0 : state.valid && state.was_dense;
    return state.dense[frame] != 0 && !before;
}

const uint8_t* State::hits(int delta, int frame) const {
    const DeltaState& state = deltas[delta];
    return changes_everywhere(delta, frame)
               ? nullptr
               : state.hits[frame % state.hits.size()].data();
}

const uint8_t* State::some_hits(int delta, int frame) const {
    const uint8_t* const all = hits(delta, frame);
    const Delta& plan = network->deltas[delta];
    const size_t pixels = static_cast<size_t>(plan.height) * plan.width;
    return all == nullptr || std::memchr(all, 0, pixels) == nullptr ? nullptr : all;
}

void State::mark(int delta, int frame, int row, const std::vector<Run>& runs) {
    const int width = network->deltas[delta].width;
    std::vector<Buffer<uint8_t>>& all = deltas[delta].hits;
    uint8_t* const hits = all[frame % all.size()].data() + static_cast<size_t>(row) * width;
    std::memset(hits, 0, width);
    for (const Run& run : runs) std::memset(hits + run.begin, 1, run.end - run.begin);
}

void State::emit(int tensor, int frame, int block, int blocks, int row, const float* x,
                 ptrdiff_t x_block, const SentRuns& sent) {
    const std::vector<Run>& runs = sent.looked_at;
    const Timed timed(*this, Share::lists);
    const Kernels& kernels = network->kernels;
    for (const int index : network->tensors[tensor].deltas) {
        const Delta& plan = network->deltas[index];
        DeltaState& state = deltas[index];
        const size_t plane = static_cast<size_t>(plan.height) * plan.width * kBlock;
        const size_t offset = static_cast<size_t>(row) * plan.width * kBlock;
        if (plan.kind == DeltaKind::columns) {
            pixels_.resize(static_cast<size_t>(plan.width) * plan.channels);
            for (int column = 0; column < plan.width; column++)
                for (int channel = 0; channel < plan.channels; channel++)
                    pixels_[static_cast<size_t>(column) * plan.channels + channel] =
                        x[column * kBlock + channel];
            emit_input(index, frame, row, pixels_.data());
            continue;
        }
        Counts* const counts = state.measured[frame] != 0 ? &state.counts[frame] : nullptr;
        uint8_t* const hits =
            state.hits[frame % plan.versions].data() + static_cast<size_t>(row) * plan.width;
        if (plan.kind == DeltaKind::bits) {
            const bool first = frame == 0 && !state.valid;
            const size_t words = static_cast<size_t>(plan.width) * plan.words();
            uint64_t* const to = bits(index, frame) + words * row;
            const uint64_t* const before = bits(index, frame - 1) + words * row;
            if (block == 0) std::memset(hits, 0, plan.width);
            // The frame before may not have come to the blocks behind these yet.
            const int some = std::min(blocks, plan.blocks() - block);
            if (some == plan.blocks())
                std::memcpy(to, before, sizeof(uint64_t) * words);
            else
                for (int column = 0; column < plan.width; column++)
                    std::memcpy(reinterpret_cast<uint16_t*>(to + column * plan.words()) + block,
                                reinterpret_cast<const uint16_t*>(before + column * plan.words()) +
                                    block,
                                sizeof(uint16_t) * static_cast<size_t>(some));
            kernels.sign_bits({x, x_block, runs.data(), static_cast<int>(runs.size()),
                               std::min(blocks * kBlock, plan.channels - block * kBlock),
                               reinterpret_cast<uint16_t*>(to) + block, 4 * plan.words(), first, hits,
                               counts});
            continue;
        }
        if (state.dense[frame] != 0 && block == 0) mark(index, frame, row, sent.changed);
        if (plan.kind == DeltaKind::select) {
            // The paper's policy also keeps the input before, as at a first frame.
            const bool first =
                (frame == 0 && !state.valid) || (plan.paper && state.dense[frame] != 0);
            const ptrdiff_t to = block * whole_block(index) + row * whole_row(index);
            float* const next = selected(index, frame) + to;
            if (counts == nullptr && x == next) continue;  // it was written here
            uint8_t* occupied =
                state.occupied.data() +
                (static_cast<size_t>(block / 8) * plan.height + row) * plan.width;
            const int channels = std::min(blocks * kBlock, plan.channels - block * kBlock);
            const float* const last = selected(index, frame - 1) + to;
            if (state.dense[frame] != 0 && !first) {
                kernels.keep({x, x_block, last, whole_block(index), nullptr, nullptr,
                              reinterpret_cast<uint32_t*>(next), whole_block(index),
                              whole_row(index), plan.width, channels, occupied, threshold(index),
                              counts},
                             Arithmetic::fp32);
                continue;
            }
            if (block == 0) std::memset(hits, 0, plan.width);
            const std::vector<Run> all = {{0, plan.width}};
            const std::vector<Run>& seen = rings(plan) > 1 || first ? all : runs;
            if (tracked_ && !first)
                kernels.truncated({x, x_block,
                                   plan.paper ? state.previous.data() + block * plane + offset : last,
                                   plan.paper ? static_cast<ptrdiff_t>(plane) : whole_block(index),
                                   seen.data(), static_cast<int>(seen.size()), channels,
                                   threshold(index), energy(index, row, block / 8),
                                   &state.counts[frame].truncated});
            for (const Run& run : seen) {
                const ptrdiff_t at = static_cast<ptrdiff_t>(run.begin) * kBlock;
                kernels.select({x + at, x_block, first ? nullptr : last + at, whole_block(index),
                                next + at, whole_block(index), whole_row(index),
                                run.end - run.begin, channels, occupied + run.begin,
                                hits + run.begin, threshold(index), plan.paper, counts,
                                plan.paper ? state.previous.data() + block * plane + offset + at
                                           : nullptr,
                                static_cast<ptrdiff_t>(plane)});
            }
            continue;
        }
        const List& list = state.list(frame);
        for (int at = 0; at < blocks; at += plan.group_blocks) {
            const int group = (block + at) / plan.group_blocks;
            const int channels =
                std::min(plan.group_blocks * kBlock, plan.channels - (block + at) * kBlock);
            float* snapshot = state.snapshot.data() + (block + at) * plane + offset;
            uint8_t* occupied = state.occupied.data() +
                                (static_cast<size_t>(group) * plan.height + row) * plan.width;
            const float* from = x + at * x_block;
            if (state.dense[frame] != 0) {
                const ptrdiff_t dense_block = whole_block(index);
                const ptrdiff_t at_whole = (block + at) * dense_block + row * whole_row(index);
                if (counts == nullptr &&
                    from == reinterpret_cast<float*>(whole(index, frame) + at_whole))
                    continue;  // it was written here
                const int before = whole_before(index, frame);
                kernels.keep({from, x_block, before < 0 ? snapshot : nullptr,
                              static_cast<ptrdiff_t>(plane),
                              before < 0 ? nullptr : whole_version(index, before) + at_whole,
                              all_dense(index) ? nullptr : snapshot, whole(index, frame) + at_whole,
                              dense_block, whole_row(index), plan.width, channels, occupied,
                              threshold(index), counts},
                             network->arithmetic);
            } else {
                if (tracked_)
                    kernels.truncated({from, x_block, snapshot, static_cast<ptrdiff_t>(plane),
                                       runs.data(), static_cast<int>(runs.size()), channels,
                                       threshold(index), energy(index, row, group),
                                       &state.counts[frame].truncated});
                const size_t span = list.span(row, group);
                kernels.compress(
                    {from, x_block, snapshot, static_cast<ptrdiff_t>(plane), runs.data(),
                     static_cast<int>(runs.size()), plan.width, channels, occupied,
                     hits, group == 0, threshold(index), plan.paper, list.values + span * list.capacity,
                     list.units + span * list.capacity, list.starts + span * (plan.width + 1),
                     counts},
                    network->arithmetic);
            }
        }
    }
}

float* State::input_place(int index, int frame, int row) {
    const DeltaState& state = deltas[index];
    if (state.dense[frame] == 0 || state.measured[frame] != 0) return nullptr;
    return reinterpret_cast<float*>(whole(index, frame) + row * whole_row(index));
}

void State::emit_input(int index, int frame, int row, const float* x) {
    const Timed timed(*this, Share::lists);
    const Delta& plan = network->deltas[index];
    DeltaState& state = deltas[index];
    const size_t count = static_cast<size_t>(plan.width) * plan.channels;
    float* snapshot = state.snapshot.data() + row * count;
    Counts* counts = &state.counts[frame];
    if (state.dense[frame] == 0) {
        ColumnList& list = state.column_list(frame);
        if (row == 0) std::memset(list.starts, 0, sizeof(uint16_t) * list.width);
        if (tracked_) {
            // The row as pixels of 16 numbers; what is left over is filled up with zeros.
            const size_t whole = count / kBlock * kBlock;
            const Run pixels = {0, static_cast<int>(whole / kBlock)}, last = {0, 1};
            float* const kept = energy(index, row, 0);
            network->kernels.truncated({x, 0, snapshot, 0, &pixels, 1, kBlock, threshold(index), kept,
                                        &counts->truncated});
            float rest[2][kBlock] = {};
            std::copy(x + whole, x + count, rest[0]);
            std::copy(snapshot + whole, snapshot + count, rest[1]);
            if (whole < count)
                network->kernels.truncated({rest[0], 0, rest[1], 0, &last, 1, kBlock, threshold(index),
                                            kept == nullptr ? nullptr : kept + pixels.end,
                                            &counts->truncated});
        }
        network->kernels.compress_columns(
            {x, snapshot, row, threshold(index), plan.paper, &list,
             state.hits[frame % plan.versions].data() + static_cast<size_t>(row) * plan.width,
             counts});
        return;
    }
    const auto whole_line = [&](int version) {
        return reinterpret_cast<float*>(whole_version(index, version) + row * whole_row(index));
    };
    const int version = frame % plan.versions;
    if (state.measured[frame] == 0) {
        Trace(&counts->finite).watch(x, count);
        if (x != whole_line(version)) std::copy(x, x + count, whole_line(version));
        mark(index, frame, row, {{0, plan.width}});
        return;
    }
    const int before = whole_before(index, frame);
    network->kernels.keep_columns(
        {x, before < 0 ? snapshot : whole_line(before), all_dense(index) ? nullptr : snapshot,
         whole_line(version), plan.width, plan.channels,
         state.hits[version].data() + static_cast<size_t>(row) * plan.width,
         threshold(index), counts});
}

void State::output(int number, int frame, float* to) const {
    const int tensor = network->outputs[number];
    const Tensor& plan = network->tensors[tensor];
    const size_t pixels = static_cast<size_t>(plan.height) * plan.width;
    for (int channel = 0; channel < plan.channels; channel++) {
        const float* from = plane(tensor, channel / kBlock, frame) + channel % kBlock;
        for (size_t pixel = 0; pixel < pixels; pixel++) *to++ = from[pixel * kBlock];
    }
}

size_t State::bytes() const {
    size_t sum = 4 * (row_scratch_.size() + batch_scratch_.size() + winograd_scratch_.size() +
                      strip_scratch_.size() + chain_rows_.size() + list_values_.size() +
                      list_starts_.size()) +
                 list_units_.size();
    sum += 4 * (coded.x.size() + coded.columns.size() + coded.sums.size() + coded.response.size());
    for (const auto& value : values_) sum += 4 * value.size();
    for (const auto& changed : changed_) sum += changed.size();
    for (const auto& operation : operations)
        sum += 4 * operation.accumulators.size() + 2 * operation.sums.size();
    for (const auto& delta : deltas) {
        sum += 4 * (delta.snapshot.size() + delta.previous.size() + delta.energy.size()) +
               8 * delta.bits.size() + delta.occupied.size();
        for (const auto& hits : delta.hits) sum += hits.size();
        for (const auto& buffer : delta.column_values) sum += 4 * buffer.size();
        for (const auto& buffer : delta.column_rows) sum += 2 * buffer.size();
        for (const auto& buffer : delta.column_starts) sum += 2 * buffer.size();
        for (const auto& buffer : delta.whole) sum += 4 * buffer.size();
    }
    return sum;
}

}  // namespace rrm

// A network as native operations: the plan, which lanes share, and the state of one lane.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "buffer.hpp"
#include "kernels.hpp"

namespace rrm {

class RowOperation;
class State;

// A value between operations: [blocks][rows][columns][16] for each frame of a time batch.
struct Tensor {
    int channels = 0, height = 0, width = 0;
    bool stored = false;              // kept whole for readers other than linear layers
    int versions = 1;                 // frames that are kept at a time
    std::vector<int> deltas;          // linear layers' inputs that are made from it
    // Residual sums read bfloat16 while all of this delta changes: its dense form, or, where nobody
    // else reads the tensor and it is made from the delta, what stands in place of the floats. -1:
    // never.
    int rounded = -1;
    bool in_place = false;
    // A concatenation is a view: block b lies in block `block` of tensor `tensor`.
    struct Plane {
        int tensor, block;
    };
    std::vector<Plane> planes;

    int blocks() const { return (channels + kBlock - 1) / kBlock; }
    size_t plane() const { return static_cast<size_t>(height) * width * kBlock; }
};

enum class DeltaKind { list, columns, select, bits };

// The input of linear layers that have the same source and the same threshold.
struct Delta {
    int tensor = 0;                   // -1: straight from an input of the network
    DeltaKind kind = DeltaKind::list;
    int channels = 0, height = 0, width = 0;
    int halo = 0;                     // zeros around the dense form, in pixels
    int group_blocks = 1;
    float threshold = 0;
    bool paper = false;
    float break_even = 1;             // density above which the layers run dense; below 0 always
    int versions = 1;                 // frames that are kept at a time
    bool joint = false;               // all frames' dense forms lie one after the other
    bool stored_alike = false;        // the tensor is stored in the order of the dense form
    bool skipped = false;             // dense frames of its layers skip what has not changed
    // Numbers in the arrays of lists: of one version, respectively before the first.
    struct ListRoom {
        size_t values = 0, units = 0, starts = 0;
    };
    ListRoom list_room, list_place;

    int blocks() const { return (channels + kBlock - 1) / kBlock; }
    int groups() const { return (blocks() + group_blocks - 1) / group_blocks; }
    int words() const { return (channels + 63) / 64; }  // of a pixel's bits
};

struct Epilogue {
    int residual = -1;                // tensor that is added before the activation
    Activation activation = Activation::none;
    float low = 0, high = 0;

    // Whether kernels can take the activation with them as limits of what they write.
    bool limits() const {
        return activation == Activation::none || activation == Activation::relu ||
               activation == Activation::clamp;
    }
    // Whether an infinite sum is seen in what becomes of it; the others limit both sides, or one.
    bool passes_infinities() const {
        return activation == Activation::none || activation == Activation::leaky_relu ||
               activation == Activation::silu || activation == Activation::hardswish;
    }
    float lowest() const {
        if (activation == Activation::clamp) return low;
        return activation == Activation::relu ? 0 : -std::numeric_limits<float>::infinity();
    }
    float highest() const {
        return activation == Activation::clamp ? high : std::numeric_limits<float>::infinity();
    }
};

// What is not finite among numbers that kernels write, see LayerEnd.
class Trace {
public:
    // Of results that tell of themselves in `*finite`; null: nobody asks.
    explicit Trace(bool* finite) : finite_(finite) {}
    ~Trace() {
        if (finite_ == nullptr) return;
        float sum = 0;
        for (const float number : numbers_) sum += number;
        *finite_ = *finite_ && sum == 0.0f;
    }
    Trace(const Trace&) = delete;
    Trace& operator=(const Trace&) = delete;
    float* numbers() { return finite_ == nullptr ? nullptr : numbers_; }
    void watch(const float* x, size_t count) {
        float sums[kBlock] = {};           // stay in registers
        size_t at = 0;
        for (; at + kBlock <= count; at += kBlock)
            for (size_t lane = 0; lane < kBlock; lane++) sums[lane] += x[at + lane] * 0.0f;
        for (; at < count; at++) sums[0] += x[at] * 0.0f;
        for (size_t lane = 0; lane < kBlock; lane++) numbers_[lane] += sums[lane];
    }

private:
    bool* const finite_;
    float numbers_[kBlock] = {};
};

// One step of the plan.
class Operation {
public:
    explicit Operation(std::string name) : name(std::move(name)) {}
    virtual ~Operation() = default;
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;
    // Memory of this operation in a new lane.
    virtual void prepare(State&) const {}
    // Takes frames `begin` to `end` of the batch one step further.
    virtual void run(State&, int begin, int end) const = 0;
    // The tensors and inputs of linear layers that it reads, and the tensor that it makes.
    virtual std::vector<int> sources() const { return {}; }
    virtual int source_delta() const { return -1; }
    virtual int target() const = 0;
    // Whether dense frames are much cheaper where not all of their pixels have changed.
    virtual bool skips_unchanged() const { return false; }
    // Itself, if it can make some rows at a time; else null.
    virtual const RowOperation* by_rows() const { return nullptr; }
    // Whether it can read its sources in bfloat16, and write what it makes.
    virtual bool reads_rounded() const { return false; }
    virtual bool writes_rounded() const { return false; }

    const std::string name;
    int index = 0;
    int frames = 1;                   // that pass it together
};

class Network {
public:
    Network(const Kernels& kernels, Arithmetic arithmetic, int batch)
        : kernels(kernels), arithmetic(arithmetic), batch(batch) {}

    const Kernels& kernels;
    const Arithmetic arithmetic;
    const int batch;                  // most frames that pass one operation together
    struct Input {
        int channels, height, width;
    };
    std::vector<Input> inputs;
    std::vector<Tensor> tensors;
    std::vector<Delta> deltas;
    std::vector<std::unique_ptr<Operation>> operations;
    std::vector<int> outputs;         // tensors

    int block_units() const { return arithmetic == Arithmetic::fp32 ? kBlock : kBlock / 2; }
    void add(std::unique_ptr<Operation> operation) {
        operation->index = static_cast<int>(operations.size());
        operations.push_back(std::move(operation));
    }
    // Decides how many frames pass each operation together; to be called once, at the end.
    void schedule();

    // Operations each of which alone reads what the one before makes, see chain.cpp.
    struct Chain {
        size_t begin, end;
        int rows;                     // of the first one's result that are made at a time
    };
    std::vector<Chain> chains;
    const Chain* chain_at(size_t index) const;  // that begins there, or null

    // Neighbouring operations that the same number of frames pass together.
    struct Segment {
        size_t begin, end;
        int frames;
    };
    std::vector<Segment> segments;

    Delta::ListRoom list_memory;      // of a lane, see list_memory.cpp
    List list_shape(const Delta&) const;  // without its arrays

private:
    const Segment& segment_of(size_t index) const;  // of an operation
    void find_chains();
    void find_rounded();
    void place_lists();
};

// What one input of linear layers keeps in one lane.
struct DeltaState {
    bool valid = false;               // the snapshot belongs to this clip
    bool was_dense = false;           // in the last frame before this batch
    bool dense_mode = false;          // too much changes: the layers run dense
    // So many pixels change that dense layers compute all of them, and keep no accumulators.
    bool everywhere = false;
    bool kept = false;                // the accumulators are those of the last frame before
    int age = 0;                      // frames since the accumulators were made
    int unseen = 0;                   // frames since one was compared, that one included
    int pause = 0;                    // frames after which one is compared, where everything changes
    // One frame of which little has changed, where everything did: others are asked before it counts.
    bool doubted = false;
    Counts seen;                      // of the last frame that was compared
    // Of the frames of this batch, and of a doubted one before, that tell: outputs that may have
    // changed, and all; inputs that have changed, and frames that were compared.
    int64_t reached = 0, outputs = 0, changed = 0;
    int compared = 0;
    bool was_rounded = false;         // residual sums read the dense form of the last frame before
    int last_whole = -1;              // version of the dense form that is the snapshot; -1: none
    Buffer<float> snapshot;           // of a select: versions + 1 of them with halo, in a ring
    int ring = 0;                     // version of the last frame before this batch
    Buffer<uint64_t> bits;            // of signs: versions + 1 of them, in such a ring
    Buffer<float> previous;           // of a select under the paper's policy: the input before
    std::vector<uint8_t> dense;       // form of each frame of the batch
    std::vector<uint8_t> measured;    // whether its values are compared with those before
    std::vector<Counts> counts;       // of each frame of the batch
    std::vector<List> lists;          // one for each version, as the rest
    std::vector<ColumnList> columns;
    std::vector<Buffer<uint32_t>> column_values;
    std::vector<Buffer<uint16_t>> column_rows, column_starts;
    // Dense form with halo, made when first needed: for each version, or all in the first.
    std::vector<Buffer<uint32_t>> whole;
    // Some rows of the dense form, while a chain hands them on: where pixel (0, 0) would be, or null;
    // and the distance of their blocks.
    uint32_t* handed = nullptr;
    ptrdiff_t handed_block = 0;
    Buffer<uint8_t> occupied;         // [groups][rows][columns] non-zero channels of a pixel
    int64_t nonzero = 0;              // their sum
    Buffer<float> energy;             // of what each pixel holds back, made when first tracked
    double truncated = 0;             // their sum
    std::vector<Buffer<uint8_t>> hits;    // [rows][columns] where a delta is

    const List& list(int frame) const { return lists[frame % lists.size()]; }
    ColumnList& column_list(int frame) { return columns[frame % columns.size()]; }
};

// What layers of codes work with while some frames pass; nothing is kept.
struct CodedScratch {
    Buffer<float> x;                  // [columns][frames]
    Buffer<uint32_t> columns;
    Buffer<float> sums;               // [outputs][frames]
    Buffer<float> response;           // [outputs] of one frame
};

// What an operation spends its time on: its own work (sums, pooling, ...), what is fused to its end
// (residual sum, activation), and finding and listing what has changed, for itself and for others.
enum class Share { own, finish, lists };
constexpr int kShares = 3;

struct OperationState {
    Buffer<float> accumulators;
    Buffer<int16_t> sums;             // of a binary layer
    double seconds = 0;
    std::array<double, kShares> split{};  // seconds by share, while they are told apart
};

// A tensor that is added to others, as floats or as bfloat16, whichever is not null: [block][row]
// [column][16] from some block on.
struct ResidualMap {
    const float* floats = nullptr;
    const uint16_t* rounded = nullptr;
    ptrdiff_t row = 0, block = 0;     // in numbers
};

// Pixels of a row that may be other than in the frame before, and those that readers look at.
struct SentRuns {
    const std::vector<Run>& changed;
    const std::vector<Run>& looked_at;
};

// (frames, C, H, W) floats with their distances in floats.
struct Array {
    const float* data;
    ptrdiff_t frame, channel, row, column;
};

// Seconds that this thread has computed; not those in which it waited for a processor.
double thread_seconds();

// One lane: everything that changes while frames go through.
class State {
public:
    explicit State(std::shared_ptr<const Network> network);

    void reset();
    // The next frame is computed from nothing; which layers run dense is not forgotten.
    void key_frame();
    // Whether the energy of what is truncated is counted; from the next key frame on.
    void track(bool on);
    // All thresholds times a factor, from the next frame on.
    void scale_thresholds(float factor) {
        thresholds_fell_ = thresholds_fell_ || factor < threshold_scale_;
        threshold_scale_ = factor;
    }
    // Whether times are told apart by share, which takes some time itself.
    void split_times(bool on) { splits_ = on; }
    // Counts the time from here on for another share; returns the one so far.
    Share turn_to(Share share) { return splits_ ? count_for(share) : share; }
    // Runs `frames` (at most the batch) consecutive frames; each input is (frames, C, H, W) floats,
    // in any order in memory.
    // Returns false when something was infinite or not a number: the lane then starts over, as it
    // does where memory for it is not to be had (std::bad_alloc).
    bool run(std::vector<Array> inputs, int frames);
    // Copies output number `output` of frame `frame` as (C, H, W).
    void output(int output, int frame, float* to) const;
    size_t bytes() const;

    float* plane(int tensor, int block, int frame) const;
    // Whether bfloat16 stands for a tensor that would else be stored as floats: all of it changes,
    // and it would pass through memory twice, or be twice as large.
    bool is_rounded(int tensor, int frame) const {
        const int delta = network->tensors[tensor].rounded;
        return delta >= 0 && deltas[delta].everywhere && deltas[delta].dense[frame] != 0;
    }
    ResidualMap residual(int tensor, int block, int frame);
    float* row_scratch(size_t floats);
    float* batch_scratch(size_t floats);
    float* winograd_scratch(size_t floats);
    float* strip_scratch(size_t floats);

    // Hands a finished row of blocks to the layers that read the tensor; what is not looked at
    // passes no threshold.
    void emit(int tensor, int frame, int block, int blocks, int row, const float* x,
              ptrdiff_t x_block, const SentRuns&);
    // Whether what layers hold back may pass now, in pixels that are those of the frame before.
    bool looks_at_all(int frame) const { return frame == 0 && thresholds_fell_; }
    // Whether a frame says nothing of what the picture does: a key frame, and the first dense one
    // after lists, which takes all that these have truncated.
    bool changes_everywhere(int delta, int frame) const;
    // [rows][columns] where a tensor, respectively a delta, may be other than in the frame before.
    // Null: everywhere.
    const uint8_t* changed(int tensor, int frame) const;
    const uint8_t* hits(int delta, int frame) const;
    // The same where it makes no difference whether all is known to have changed or nothing known.
    const uint8_t* some_hits(int delta, int frame) const;
    // Where a layer between an input and a tensor notes what is not finite; null where others look.
    // `kept`: what becomes of sums that the next frame's deltas are added to; null: it keeps none.
    bool* finite(int delta, int tensor, int frame, const Epilogue* kept = nullptr);
    // Notes how many of a layer's `pixels` outputs may have changed; a null mask stands for all.
    void reach(int delta, int frame, int64_t pixels, const std::vector<uint8_t>* mask);
    // A place that takes rows of blocks of a tensor as they are, and floats to its next row and
    // block; null where there is none.
    float* place(int tensor, int frame, int block, int row, ptrdiff_t* next_row,
                 ptrdiff_t* next_block);
    // The same for numbers of bfloat16.
    uint16_t* rounded_place(int tensor, int frame, int block, int row, ptrdiff_t* next_row,
                            ptrdiff_t* next_block);
    // Whether layers must compute all their outputs, whatever has changed.
    bool computes_all(int delta, int frame) const {
        return deltas[delta].everywhere || (frame == 0 && !deltas[delta].kept);
    }
    // The same of the tensor that an operation makes; null when nobody would read it.
    uint8_t* changes_of(int tensor, int frame);
    // Whether the operation that makes a tensor has to write pixels that have not changed.
    bool needs_all(int tensor, int frame) const;
    void emit_input(int delta, int frame, int row, const float* x);
    // Where a row of the network's input may be written at once; null where it is looked at first.
    float* input_place(int delta, int frame, int row);
    // The version of the dense form that held the frame before; -1: it is in the snapshot.
    int whole_before(int delta, int frame) const;
    uint32_t* whole(int delta, int frame);  // pixel (0, 0) of the dense form
    uint32_t* whole_version(int delta, int version);
    float* selected(int delta, int frame);  // pixel (0, 0); frame -1 is the last of the batch before
    uint64_t* bits(int delta, int frame);   // of pixel (0, 0); frame -1 as above
    ptrdiff_t whole_row(int delta) const;
    ptrdiff_t whole_block(int delta) const;

    const std::shared_ptr<const Network> network;
    std::vector<Array> inputs;
    std::vector<DeltaState> deltas;
    std::vector<OperationState> operations;
    CodedScratch coded;
    int64_t frames_by_rows = 0;       // that passed a chain of layers in rows, over all chains

private:
    bool all_dense(int delta) const;
    // Whether a later frame is, or may be, compared with this one.
    bool is_compared_with(int delta, int frame) const;
    // Whether what is stored of the tensor also serves as its dense form: nothing is compared with it.
    bool is_stored_as(int delta, int frame) const;
    void settle(int delta);
    void begin(int frames);
    void end(int frames);
    Share count_for(Share share);
    bool compute(std::vector<Array> inputs, int frames);
    // Whether the layers of a chain compute all of a frame, and hand it on without a comparison.
    bool passes_rows(const Network::Chain&, int frame) const;
    // Whether a later frame is, or may be, compared with what they hand on in this one.
    bool is_compared_with(const Network::Chain&, int frame) const;
    void run_chain(const Network::Chain&, int frame);
    // Notes where a delta may be other than zero in one row of a dense frame.
    void mark(int delta, int frame, int row, const std::vector<Run>& runs);
    // Does some work of an operation, with its shares of the time told apart.
    template <class Work>
    void step(size_t index, Work work) {
        split_ = &operations[index].split;
        turn_to(Share::own);
        work();
        turn_to(Share::own);
        split_ = nullptr;
    }
    float threshold(int delta) const { return network->deltas[delta].threshold * threshold_scale_; }
    float* energy(int delta, int row, int group);

    float threshold_scale_ = 1;
    bool thresholds_fell_ = false;    // since the last frame
    bool stirs_ = false;              // the first frame of the batch, see begin()
    int batch_frames_ = 0;            // that pass together at the moment
    bool tracked_ = false;
    bool splits_ = false;
    Share share_ = Share::own;
    std::array<double, kShares>* split_ = nullptr;  // of the operation that runs
    std::chrono::steady_clock::time_point since_;
    std::vector<Buffer<float>> values_;
    // Of all lists of kind `list`, which hold no more than one batch needs at a time.
    Buffer<uint32_t> list_values_, list_starts_;
    Buffer<uint8_t> list_units_;
    Buffer<float> row_scratch_, batch_scratch_, winograd_scratch_, strip_scratch_;
    Buffer<uint32_t> chain_rows_;
    std::vector<Buffer<uint8_t>> changed_;
    std::vector<float> pixels_;
};

// Counts the time of a block of code for a share.
class Timed {
public:
    Timed(State& state, Share share) : state_(state), before_(state.turn_to(share)) {}
    ~Timed() { state_.turn_to(before_); }
    Timed(const Timed&) = delete;
    Timed& operator=(const Timed&) = delete;

private:
    State& state_;
    const Share before_;
};

}  // namespace rrm

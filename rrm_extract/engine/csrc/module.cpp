// The Python module: builds networks operation by operation and runs lanes of them.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <tuple>

#include "cpu.hpp"
#include "operations.hpp"
#include "pack.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace rrm {

namespace {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using AnyFloats = nb::ndarray<const float, nb::ndim<4>, nb::device::cpu>;
using Elements = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using SetTuple = std::tuple<int, int, int, int, size_t>;
using EpilogueTuple = std::tuple<int, std::string, float, float>;

Arithmetic arithmetic_of(const std::string& name) {
    if (name == "fp32") return Arithmetic::fp32;
    if (name == "bf16") return Arithmetic::bf16;
    throw std::invalid_argument("precision '" + name + "'; expected fp32 or bf16");
}

Activation activation_of(const std::string& name) {
    static const std::vector<std::string> names = {
        "none", "relu", "clamp", "leaky_relu", "sigmoid",
        "silu", "hardsigmoid", "hardswish", "tanh", "sign"};
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) throw std::invalid_argument("unknown activation '" + name + "'");
    return static_cast<Activation>(found - names.begin());
}

Geometry geometry_of(const std::vector<int>& g) {
    if (g.size() != 10) throw std::invalid_argument("a geometry has 10 numbers");
    return {g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9]};
}

Epilogue epilogue_of(const EpilogueTuple& e) {
    return {std::get<0>(e), activation_of(std::get<1>(e)), std::get<2>(e), std::get<3>(e)};
}

Weights weights_of(const Floats& w, int groups) {
    if (w.ndim() != 4) throw std::invalid_argument("weights have four dimensions");
    return {w.data(), static_cast<int>(w.shape(0)), static_cast<int>(w.shape(1)) * groups, groups,
            static_cast<int>(w.shape(2)), static_cast<int>(w.shape(3))};
}

int code_bits_of(const Floats& codebook) {
    for (int bits = 1; bits <= 8; bits++)
        if (codebook.size() == size_t{1} << bits) return bits;
    throw std::invalid_argument("a codebook has 2, 4, 8, ... 256 numbers");
}

// Begins at a cache line: a vector of weights that straddles two costs twice the loads.
template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> to_array(const std::vector<T>& values) {
    auto* owned = new Buffer<T>(values.size());
    std::copy(values.begin(), values.end(), owned->data());
    nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<Buffer<T>*>(p); });
    return nb::ndarray<nb::numpy, T, nb::ndim<1>>(owned->data(), {owned->size()}, owner);
}

nb::tuple packed_tuple(Packed&& packed) {
    std::vector<SetTuple> sets;
    for (const WeightSet& set : packed.sets)
        sets.emplace_back(set.first_block, set.blocks, set.unit_begin, set.unit_end, set.offset);
    return nb::make_tuple(to_array(packed.elements), nb::cast(sets));
}

// A plan under construction; the arrays that it points into stay alive with it.
struct Builder {
    Builder(const std::string& isa, const std::string& precision, int batch)
        : network(std::make_shared<Network>(kernels_of(isa), arithmetic_of(precision), batch)) {}

    int tensor(int channels, int height, int width) {
        Tensor t;
        t.channels = channels;
        t.height = height;
        t.width = width;
        network->tensors.push_back(t);
        return static_cast<int>(network->tensors.size()) - 1;
    }
    int view(int channels, int height, int width, const std::vector<std::pair<int, int>>& planes) {
        const int id = tensor(channels, height, width);
        for (const auto& [source, block] : planes) {
            network->tensors[id].planes.push_back({source, block});
            network->tensors[source].stored = true;
        }
        network->tensors[id].stored = true;
        return id;
    }
    void store(int id) { network->tensors.at(id).stored = true; }
    void output(int id) {
        store(id);
        network->outputs.push_back(id);
    }
    int delta(int tensor, int input, const std::string& kind, int halo, int group_blocks, float threshold,
              bool paper, float break_even) {
        Delta d;
        d.tensor = tensor;
        d.kind = kind == "columns" ? DeltaKind::columns
                 : kind == "select" ? DeltaKind::select
                 : kind == "bits"   ? DeltaKind::bits
                                    : DeltaKind::list;
        if (tensor >= 0) {
            const Tensor& t = network->tensors.at(tensor);
            d.channels = t.channels;
            d.height = t.height;
            d.width = t.width;
        } else {
            const Network::Input& from = network->inputs.at(input);
            d.channels = from.channels;
            d.height = from.height;
            d.width = from.width;
        }
        d.halo = halo;
        d.group_blocks = group_blocks;
        d.threshold = threshold;
        d.paper = paper;
        d.break_even = break_even;
        network->deltas.push_back(d);
        const int id = static_cast<int>(network->deltas.size()) - 1;
        if (tensor >= 0) network->tensors[tensor].deltas.push_back(id);
        return id;
    }
    template <class Array>
    auto keep(Array&& array) {
        const auto* data = array.data();
        kept.push_back(nb::cast(array));
        return data;
    }

    int input(int channels, int height, int width) {
        network->inputs.push_back({channels, height, width});
        return static_cast<int>(network->inputs.size()) - 1;
    }
    void read(std::string name, int input, int tensor, std::vector<int> deltas) {
        network->add(std::make_unique<Input>(std::move(name), input, tensor, std::move(deltas)));
    }
    void convolution(std::string name, int delta, int tensor, const std::vector<int>& geometry,
                     const std::string& form, Elements weights, const std::vector<SetTuple>& sets,
                     Floats bias, const EpilogueTuple& epilogue, bool in_place, int tile_outputs) {
        std::vector<WeightSet> list;
        for (const auto& s : sets)
            list.push_back({std::get<0>(s), std::get<1>(s), std::get<2>(s), std::get<3>(s),
                            std::get<4>(s)});
        network->add(std::make_unique<Convolution>(
            std::move(name), delta, tensor, geometry_of(geometry),
            form == "window" ? Convolution::Form::window : Convolution::Form::taps, keep(weights),
            std::move(list), keep(bias), epilogue_of(epilogue), in_place, tile_outputs));
    }
    void columns(std::string name, int delta, int tensor, const std::vector<int>& geometry,
                 Elements weights, Elements dense_weights, Floats bias,
                 const EpilogueTuple& epilogue, const std::vector<int>& pool, int tile_outputs) {
        network->add(std::make_unique<ColumnConvolution>(
            std::move(name), delta, tensor, geometry_of(geometry), keep(weights),
            keep(dense_weights), keep(bias), epilogue_of(epilogue),
            pool.empty() ? std::optional<Geometry>() : geometry_of(pool), tile_outputs));
    }
    void depthwise(std::string name, int delta, int tensor, const std::vector<int>& geometry,
                   Floats weights, Floats bias, const EpilogueTuple& epilogue) {
        network->add(std::make_unique<DepthwiseConvolution>(
            std::move(name), delta, tensor, geometry_of(geometry), keep(weights), keep(bias),
            epilogue_of(epilogue)));
    }
    void binary(std::string name, int delta, int tensor, const std::vector<int>& geometry,
                Elements weights, Elements rows, Floats scale, Floats shift,
                const EpilogueTuple& epilogue) {
        network->add(std::make_unique<BinaryConvolution>(
            std::move(name), delta, tensor, geometry_of(geometry),
            reinterpret_cast<const uint64_t*>(keep(weights)),
            reinterpret_cast<const int8_t*>(keep(rows)), keep(scale), keep(shift),
            epilogue_of(epilogue)));
    }
    void coded(std::string name, int delta, int tensor, Elements entries, Elements starts,
               Floats codebook, Floats bias, const EpilogueTuple& epilogue) {
        const int code_bits = code_bits_of(codebook);
        network->add(std::make_unique<CodedLayer>(
            std::move(name), delta, tensor, reinterpret_cast<const uint16_t*>(keep(entries)),
            keep(starts), keep(codebook), code_bits, keep(bias), epilogue_of(epilogue)));
    }
    void pool(std::string name, int source, int tensor, const std::vector<int>& geometry,
              bool maximum, bool count_padding) {
        store(source);
        network->add(std::make_unique<Pool>(std::move(name), source, tensor, geometry_of(geometry),
                                            maximum, count_padding));
    }
    void global_average(std::string name, int source, int tensor) {
        store(source);
        network->add(std::make_unique<GlobalAverage>(std::move(name), source, tensor));
    }
    void pointwise(std::string name, std::vector<int> sources, int tensor, bool multiply,
                   std::vector<float> scale, std::vector<float> shift,
                   const std::string& activation, float low, float high) {
        for (const int source : sources) store(source);
        network->add(std::make_unique<Pointwise>(std::move(name), std::move(sources), tensor,
                                                 multiply, std::move(scale), std::move(shift),
                                                 activation_of(activation), low, high));
    }
    void gather(std::string name, int tensor, const std::vector<std::pair<int, int>>& channels) {
        std::vector<Gather::Channel> list;
        for (const auto& [source, channel] : channels) {
            store(source);
            list.push_back({source, channel});
        }
        network->add(std::make_unique<Gather>(std::move(name), tensor, std::move(list)));
    }

    std::shared_ptr<const Network> finished() {
        if (network->segments.empty()) network->schedule();
        return network;
    }

    std::shared_ptr<Network> network;
    std::vector<nb::object> kept;
};

// A lane as Python sees it.
struct Lane {
    explicit Lane(nb::object builder)
        : builder(builder), state(nb::cast<Builder&>(builder).finished()) {}

    bool run(const std::vector<AnyFloats>& frames) {
        const Network& network = *state.network;
        if (frames.size() != network.inputs.size())
            throw std::invalid_argument("this network takes another number of inputs");
        std::vector<Array> inputs;
        size_t count = 0;
        for (size_t i = 0; i < frames.size(); i++) {
            const Network::Input& wanted = network.inputs[i];
            const AnyFloats& given = frames[i];
            if (i == 0 && given.ndim() == 4) count = given.shape(0);
            if (given.ndim() != 4 || given.shape(0) != count || count < 1 ||
                count > static_cast<size_t>(network.batch) ||
                given.shape(1) != static_cast<size_t>(wanted.channels) ||
                given.shape(2) != static_cast<size_t>(wanted.height) ||
                given.shape(3) != static_cast<size_t>(wanted.width))
                throw std::invalid_argument("frames do not have the shape that this network takes");
            inputs.push_back({given.data(), given.stride(0), given.stride(1), given.stride(2),
                              given.stride(3)});
        }
        ran = static_cast<int>(count);
        const nb::gil_scoped_release release;
        return state.run(std::move(inputs), ran);
    }
    nb::object output(int number) {
        const Network& network = *state.network;
        const Tensor& tensor = network.tensors.at(network.outputs.at(number));
        const size_t size = static_cast<size_t>(tensor.channels) * tensor.height * tensor.width;
        std::vector<float> values(size * ran);
        for (int frame = 0; frame < ran; frame++)
            state.output(number, frame, values.data() + frame * size);
        auto* owned = new std::vector<float>(std::move(values));
        nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
        return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<4>>(
            owned->data(),
            {static_cast<size_t>(ran), static_cast<size_t>(tensor.channels),
             static_cast<size_t>(tensor.height), static_cast<size_t>(tensor.width)},
            owner));
    }
    // For each delta and frame of the last run: (non-zero inputs, deltas, 1 if dense).
    nb::object counts() {
        std::vector<int64_t> values;
        for (const DeltaState& delta : state.deltas)
            for (int frame = 0; frame < ran; frame++) {
                values.push_back(delta.counts[frame].nonzero);
                values.push_back(delta.counts[frame].deltas);
                values.push_back(delta.dense[frame]);
            }
        return nb::cast(to_array(values));
    }
    // For each delta and frame of the last run: the sum of squares of what is truncated.
    nb::object truncated() {
        std::vector<double> values;
        for (const DeltaState& delta : state.deltas)
            for (int frame = 0; frame < ran; frame++) values.push_back(delta.counts[frame].truncated);
        return nb::cast(to_array(values));
    }
    // For each operation its name and the seconds of each share, while they are told apart.
    nb::list profile_split() const {
        nb::list list;
        for (const auto& operation : state.network->operations) {
            const auto& split = state.operations[operation->index].split;
            list.append(nb::make_tuple(operation->name, split[0], split[1], split[2]));
        }
        return list;
    }
    std::vector<std::pair<std::string, double>> profile() const {
        std::vector<std::pair<std::string, double>> list;
        for (const auto& operation : state.network->operations)
            list.emplace_back(operation->name, state.operations[operation->index].seconds);
        return list;
    }

    nb::object builder;
    State state;
    int ran = 0;
};

}  // namespace

void bind_engine(nb::module_& m) {
    m.def("available_isas", &available_isas, "Instruction sets that can be used here, best last.");
    m.def("block", [] { return kBlock; });
    m.def("pack_window", [](Floats w, int groups, const std::string& precision, int group_blocks) {
        return packed_tuple(pack_window(weights_of(w, groups), arithmetic_of(precision), group_blocks));
    });
    m.def("pack_taps", [](Floats w, int groups, const std::string& precision, int group_blocks) {
        return packed_tuple(pack_taps(weights_of(w, groups), arithmetic_of(precision), group_blocks));
    });
    m.def("pack_columns", [](Floats w, int stride) {
        return to_array(pack_columns(weights_of(w, 1), stride));
    });
    m.def("pack_columns_dense", [](Floats w, int pixel) {
        return to_array(pack_columns_dense(weights_of(w, 1), pixel));
    });
    m.def("pack_signs", [](Floats w) { return to_array(pack_signs(weights_of(w, 1))); });
    m.def("pack_codes", [](Floats w, Floats codebook) {
        const PackedCodes packed = pack_codes(weights_of(w, 1), codebook.data(), code_bits_of(codebook));
        return nb::make_tuple(to_array(packed.entries), to_array(packed.starts));
    });
    m.def("pack_sign_rows", [](Floats w) { return to_array(pack_sign_rows(weights_of(w, 1))); });

    nb::class_<Builder>(m, "Network")
        .def(nb::init<const std::string&, const std::string&, int>(), "isa"_a, "precision"_a,
             "batch"_a)
        .def("tensor", &Builder::tensor)
        .def("view", &Builder::view)
        .def("store", &Builder::store)
        .def("output", &Builder::output)
        .def("delta", &Builder::delta)
        .def("input", &Builder::input)
        .def("read", &Builder::read)
        .def("convolution", &Builder::convolution)
        .def("columns", &Builder::columns)
        .def("depthwise", &Builder::depthwise)
        .def("binary", &Builder::binary)
        .def("coded", &Builder::coded)
        .def("pool", &Builder::pool)
        .def("global_average", &Builder::global_average)
        .def("pointwise", &Builder::pointwise)
        .def("gather", &Builder::gather);

    nb::class_<Lane>(m, "Lane")
        .def(nb::init<nb::object>())
        .def_prop_ro("isa", [](const Lane& lane) { return lane.state.network->kernels.name; })
        .def("reset", [](Lane& lane) { lane.state.reset(); })
        .def("key_frame", [](Lane& lane) { lane.state.key_frame(); })
        .def("run", &Lane::run)
        .def("output", &Lane::output)
        .def("counts", &Lane::counts)
        .def("truncated", &Lane::truncated)
        .def("track", [](Lane& lane, bool on) { lane.state.track(on); })
        .def("scale_thresholds", [](Lane& lane, float factor) { lane.state.scale_thresholds(factor); })
        .def("profile", &Lane::profile)
        .def("split_times", [](Lane& lane, bool on) { lane.state.split_times(on); })
        .def("profile_split", &Lane::profile_split)
        .def("bytes", [](const Lane& lane) { return lane.state.bytes(); })
        .def("frames_by_rows", [](const Lane& lane) { return lane.state.frames_by_rows; });
}

}  // namespace rrm

void bind_preprocess(nanobind::module_& m);

NB_MODULE(_native, m) {
    m.doc() = "The native engine's kernels and networks.";
    rrm::bind_engine(m);
    bind_preprocess(m);
}

// What every check needs: reproducible random numbers, guarded arrays, and comparisons.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../../../rrm_extract/engine/csrc/kernels.hpp"

namespace rrm::test {

// splitmix64.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed) {}

    uint64_t next() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    int between(int least, int most) {  // both included
        return least + static_cast<int>(next() % static_cast<uint64_t>(most - least + 1));
    }
    bool chance(double probability) { return static_cast<double>(next() >> 11) * 0x1p-53 < probability; }
    template <class T>
    T one_of(std::initializer_list<T> choices) {
        return choices.begin()[between(0, static_cast<int>(choices.size()) - 1)];
    }
    // An eighth of a small whole number: products and sums of a few thousand of them are exact in
    // any order, fused or not, in fp32 and from bf16. So results can be compared bit by bit.
    float exact() { return static_cast<float>(between(-32, 32)) / 8; }
    // Where rounding is what is checked. Differences of two are zero or far from denormal.
    float real() { return static_cast<float>(between(-(1 << 22), 1 << 22)) * 0x1p-20f; }
    // None, few, half or all elements: kernels take other paths at each.
    double density() { return one_of({0.0, 0.02, 0.1, 0.5, 1.0}); }

private:
    uint64_t state_;
};

inline float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline uint32_t as_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

// Elements with a margin on either side that nobody may write. Under the address sanitizer there
// is none, for then reading it is an error, too.
template <class T>
class Array {
public:
#if defined(__SANITIZE_ADDRESS__)
    static constexpr size_t kMargin = 0;
#else
    static constexpr size_t kMargin = 64;
#endif
    explicit Array(size_t count, T fill = T{}) : elements_(count + 2 * kMargin, fill) {}

    T* data() { return elements_.data() + kMargin; }
    const T* data() const { return elements_.data() + kMargin; }
    size_t size() const { return elements_.size() - 2 * kMargin; }
    T& operator[](size_t i) { return elements_[i + kMargin]; }
    const std::vector<T>& all() const { return elements_; }

private:
    std::vector<T> elements_;
};

// As bfloat16, cut off: numbers that a few digits make are exact.
inline Array<uint16_t> halves(const Array<float>& numbers) {
    Array<uint16_t> array(numbers.size());
    for (size_t i = 0; i < numbers.size(); i++)
        array[i] = static_cast<uint16_t>(as_bits(numbers.data()[i]) >> 16);
    return array;
}

// One input for one kernel, and what came out wrong.
struct Case {
    const Kernels& kernels;
    Arithmetic arithmetic;
    Random random;
    std::string problem;

    bool bf16() const { return arithmetic == Arithmetic::bf16; }

    // One element of a list, of weights or of a dense input.
    uint32_t element(double density) {
        const auto value = [&] { return random.chance(density) ? random.exact() : 0.0f; };
        if (!bf16()) return as_bits(value());
        const uint32_t low = as_bits(value()), high = as_bits(value());
        return (low >> 16) | (high & 0xffff0000u);
    }
    Array<uint32_t> elements(size_t count, double density) {
        Array<uint32_t> array(count);
        for (size_t i = 0; i < count; i++) array[i] = element(density);
        return array;
    }
    Array<float> exacts(size_t count) {
        Array<float> array(count);
        for (size_t i = 0; i < count; i++) array[i] = random.exact();
        return array;
    }

    void expect(bool ok, const std::string& what) {
        if (!ok && problem.empty()) problem = what;
    }
    void compare(const char* what, size_t i, double actual, double expected, bool ok) {
        if (ok || !problem.empty()) return;
        problem = std::string(what) + "[" + std::to_string(i) + "] is " + std::to_string(actual) +
                  ", expected " + std::to_string(expected);
    }
    // Equal, margins included; NaN equals NaN.
    void equal(const char* what, const Array<float>& actual, const Array<float>& expected) {
        for (size_t i = 0; i < expected.all().size(); i++) {
            const float a = actual.all()[i], b = expected.all()[i];
            compare(what, i, a, b, a == b || (std::isnan(a) && std::isnan(b)));
        }
    }
    template <class T>
    void equal(const char* what, const Array<T>& actual, const Array<T>& expected) {
        for (size_t i = 0; i < expected.all().size(); i++)
            compare(what, i, actual.all()[i], expected.all()[i],
                    actual.all()[i] == expected.all()[i]);
    }
    // Units: one fp32 number, or two bf16 numbers.
    void equal_unit(const char* what, size_t i, uint32_t actual, uint32_t expected) {
        const auto same = [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); };
        const bool ok =
            bf16() ? same(as_float(actual << 16), as_float(expected << 16)) &&
                         same(as_float(actual & 0xffff0000u), as_float(expected & 0xffff0000u))
                   : same(as_float(actual), as_float(expected));
        compare(what, i, actual, expected, ok);
    }
};

using Check = void (*)(Case&);

// The kernels of sparse.cpp, dense.cpp, int16.cpp, changes.cpp, binary.cpp, coded.cpp and elementwise.cpp.
void check_window(Case&);
void check_tap(Case&);
void check_column(Case&);
void check_dense(Case&);
void check_winograd_weights(Case&);
void check_winograd_input(Case&);
void check_winograd_output(Case&);
void check_winograd(Case&);
void check_int16_weights(Case&);
void check_int16_input(Case&);
void check_int16_products(Case&);
void check_int16(Case&);
void check_depthwise(Case&);
void check_compress(Case&);
void check_keep(Case&);
void check_keep_columns(Case&);
void check_select(Case&);
void check_compress_columns(Case&);
void check_truncated(Case&);
void check_sign_bits(Case&);
void check_xnor(Case&);
void check_flips(Case&);
void check_scale_sums(Case&);
void check_coded(Case&);
void check_finish(Case&);
void check_map(Case&);
void check_pool(Case&);
// The transform of frames; the instruction set is that of the case's kernels.
void check_preprocess(Case&);

}  // namespace rrm::test

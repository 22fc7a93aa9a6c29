// Memory that starts out zero and is only backed by pages once touched.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rrm {

template <class T>
class Buffer {
public:
    Buffer() = default;
    // `dense`: all of it will be touched, so that large pages save address translation.
    explicit Buffer(size_t count, bool dense = false) : count_(count) {
        constexpr size_t align = 64, large = size_t{2} << 20;
        const size_t bytes = count * sizeof(T) + align;
        void* raw = std::calloc(1, bytes + align);
        if (raw == nullptr) throw std::bad_alloc();
#if defined(__linux__)
        if (dense && bytes >= 2 * large) {
            const auto begin = (reinterpret_cast<size_t>(raw) + large - 1) / large * large;
            const auto end = (reinterpret_cast<size_t>(raw) + bytes) / large * large;
            // Advice only: without it everything works, a little slower.
            if (end > begin) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
        }
#else
        (void)dense;
        (void)large;
#endif
        raw_.reset(raw);
        const auto address = (reinterpret_cast<size_t>(raw) + align - 1) / align * align;
        data_ = reinterpret_cast<T*>(address);
    }

    T* data() const { return data_; }
    size_t size() const { return count_; }
    bool empty() const { return count_ == 0; }

private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::unique_ptr<void, Free> raw_;
    T* data_ = nullptr;
    size_t count_ = 0;
};

}  // namespace rrm

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
        constexpr size_t align = 64;
        const size_t bytes = count * sizeof(T) + 2 * align;
#if defined(__linux__)
        // What an allocator is given back it keeps, in pieces; the system gets a mapping back whole.
        constexpr size_t mapped = size_t{256} << 10, large = size_t{2} << 20;
        if (bytes >= mapped) {
            void* const raw =
                mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (raw == MAP_FAILED) throw std::bad_alloc();
            raw_ = std::unique_ptr<void, Free>(raw, Free{bytes});
            const auto begin = (reinterpret_cast<size_t>(raw) + large - 1) / large * large;
            const auto end = (reinterpret_cast<size_t>(raw) + bytes) / large * large;
            // Advice only: without it everything works, a little slower.
            if (dense && bytes >= 2 * large && end > begin)
                (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
        }
#else
        (void)dense;
#endif
        if (raw_ == nullptr) raw_ = std::unique_ptr<void, Free>(std::calloc(1, bytes), Free{});
        if (raw_ == nullptr) throw std::bad_alloc();
        data_ = reinterpret_cast<T*>((reinterpret_cast<size_t>(raw_.get()) + align - 1) / align *
                                     align);
    }

    T* data() const { return data_; }
    size_t size() const { return count_; }
    bool empty() const { return count_ == 0; }

private:
    struct Free {
        size_t mapped = 0;             // bytes; 0: the allocator's
        void operator()(void* p) const {
#if defined(__linux__)
            if (mapped > 0) {
                (void)munmap(p, mapped);
                return;
            }
#endif
            std::free(p);
        }
    };
    std::unique_ptr<void, Free> raw_;
    T* data_ = nullptr;
    size_t count_ = 0;
};

// At least so much memory, whatever was in it before.
template <class T>
T* room(Buffer<T>& buffer, size_t count, bool dense = false) {
    if (buffer.size() < count) {
        buffer = Buffer<T>();          // first, so that never both are there
        buffer = Buffer<T>(count, dense);
    }
    return buffer.data();
}

}  // namespace rrm

// Aligned memory that only ever grows; where it is large, in huge pages if the system has them.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

// Readable behind what was asked for: kernels load whole vectors, and throw away what they did not need.
constexpr int64_t kSlackBytes = 128;

// Zeroed memory. Weights are read once per call, from one end to the other: in pages of 4 KB every one of them costs a
// walk through the page table, and the processor stops fetching ahead at its border.
class Memory {
   public:
    Memory() = default;
    explicit Memory(size_t bytes) {
        bytes_ = (bytes + 63) / 64 * 64;
        if (bytes_ < kHugePage) {
            data_ = std::aligned_alloc(64, bytes_);
            if (data_ == nullptr) throw std::bad_alloc();
            std::memset(data_, 0, bytes_);
            return;
        }
        // Begins at a border of huge pages; what was mapped around it is given back.
        bytes_ = (bytes_ + kPage - 1) / kPage * kPage;
        const size_t mapped = bytes_ + kHugePage;
        void* start = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED) throw std::bad_alloc();
        const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
        data_ = static_cast<char*>(start) + before;
        if (before > 0) munmap(start, before);
        if (before < kHugePage) munmap(static_cast<char*>(data_) + bytes_, kHugePage - before);
#ifdef MADV_HUGEPAGE
        madvise(data_, bytes_, MADV_HUGEPAGE);  // a wish: where it is not granted, pages are small
#endif
    }
    ~Memory() {
        if (bytes_ < kHugePage) {
            std::free(data_);
        } else {
            munmap(data_, bytes_);
        }
    }
    Memory(Memory&& other) noexcept { *this = std::move(other); }
    Memory& operator=(Memory&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    void* get() const { return data_; }

   private:
    static constexpr size_t kPage = 4096, kHugePage = size_t{2} << 20;

    void* data_ = nullptr;
    size_t bytes_ = 0;
};

template <class Element>
class Buffer {
   public:
    Buffer() = default;
    explicit Buffer(int64_t count) { reserve(count); }
    Buffer(Buffer&& other) noexcept { *this = std::move(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(memory_, other.memory_);
        std::swap(count_, other.count_);
        return *this;
    }

    // Room for `count` elements; what was there is lost if it has to grow. New memory is zeroed.
    Element* reserve(int64_t count) {
        if (count <= count_) return get();
        if (count > kMostCount) throw std::bad_alloc();
        count_ = 0;
        memory_ = Memory();
        memory_ = Memory(static_cast<size_t>(count) * sizeof(Element) + kSlackBytes);
        count_ = count;
        return get();
    }

    Element* get() const { return static_cast<Element*>(memory_.get()); }
    Element& operator[](int64_t place) const { return get()[place]; }
    int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(Element)); }
    bool empty() const { return count_ == 0; }

   private:
    static constexpr int64_t kMostCount = int64_t{1} << 48;  // elements; far more than there is memory for

    Memory memory_;
    int64_t count_ = 0;
};

// Aligned memory that grows and never shrinks; large buffers use huge pages if the system has them.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

// Readable bytes after the end of a buffer: kernels load whole vectors.
constexpr int64_t kReadPaddingBytes = 128;

// Zeroed memory. Weights are streamed once per call: with 4 KB pages, each page costs a TLB miss, and the hardware
// prefetcher stops at its end.
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
        // Aligned to huge pages: maps more than needed and unmaps both ends.
        bytes_ = (bytes_ + kPage - 1) / kPage * kPage;
        const size_t mapped = bytes_ + kHugePage;
        void* start = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED) throw std::bad_alloc();
        const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
        data_ = static_cast<char*>(start) + before;
        if (before > 0) munmap(start, before);
        if (before < kHugePage) munmap(static_cast<char*>(data_) + bytes_, kHugePage - before);
#ifdef MADV_HUGEPAGE
        madvise(data_, bytes_, MADV_HUGEPAGE);  // optional: on failure, pages stay small
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

    // Ensures a capacity of `count` elements. Growing discards the contents; new memory is zeroed.
    Element* reserve(int64_t count) {
        if (count <= count_) return get();
        if (count > kMaxCount) throw std::bad_alloc();
        count_ = 0;
        memory_ = Memory();
        memory_ = Memory(static_cast<size_t>(count) * sizeof(Element) + kReadPaddingBytes);
        count_ = count;
        return get();
    }

    Element* get() const { return static_cast<Element*>(memory_.get()); }
    Element& operator[](int64_t index) const { return get()[index]; }
    int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(Element)); }
    bool empty() const { return count_ == 0; }

   private:
    static constexpr int64_t kMaxCount = int64_t{1} << 48;  // keeps the size in bytes from overflowing

    Memory memory_;
    int64_t count_ = 0;
};

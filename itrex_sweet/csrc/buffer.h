// Aligned memory that only ever grows.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

// Readable behind what was asked for: kernels load whole vectors, and throw away what they did not need.
constexpr int64_t kSlackBytes = 128;

template <class Element>
class Buffer {
   public:
    Buffer() = default;
    explicit Buffer(int64_t count) { reserve(count); }
    ~Buffer() { std::free(data_); }
    Buffer(Buffer&& other) noexcept { *this = std::move(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(count_, other.count_);
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    // Room for `count` elements; what was there is lost if it has to grow. New memory is zeroed.
    Element* reserve(int64_t count) {
        if (count <= count_) return data_;
        std::free(data_);
        data_ = nullptr;
        count_ = 0;
        const size_t bytes = (static_cast<size_t>(count) * sizeof(Element) + kSlackBytes + 63) / 64 * 64;
        data_ = static_cast<Element*>(std::aligned_alloc(64, bytes));
        if (data_ == nullptr) throw std::bad_alloc();
        std::memset(static_cast<void*>(data_), 0, bytes);
        count_ = count;
        return data_;
    }

    Element* get() const { return data_; }
    Element& operator[](int64_t place) const { return data_[place]; }
    int64_t bytes() const { return count_ * static_cast<int64_t>(sizeof(Element)); }
    bool empty() const { return count_ == 0; }

   private:
    Element* data_ = nullptr;
    int64_t count_ = 0;
};

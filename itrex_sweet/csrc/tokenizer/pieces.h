// Hash table from the pieces of a vocabulary to their ids.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

// Bytes behind a string that `Pieces::find` may read.
constexpr int kStringPadding = 8;
constexpr int64_t kMaxPieceBytes = 255;
constexpr int32_t kMaxTokenId = (1 << 24) - 1;

class Pieces {
   public:
    explicit Pieces(int64_t count) {
        size_t size = 16;
        while (size < static_cast<size_t>(2 * count)) size *= 2;
        slots_.resize(size);
        mask_ = size - 1;
    }

    // Adds a piece of at least one byte; the piece must be followed by `kStringPadding` bytes.
    void add(const char* bytes, int64_t size, int32_t id) {
        if (size < 1 || size > kMaxPieceBytes || id < 0 || id > kMaxTokenId) throw std::invalid_argument("piece");
        const uint64_t head = tail(bytes, size < 8 ? size : 8);
        size_t place = hash(bytes, size) & mask_;
        while (slots_[place].size != 0) place = (place + 1) & mask_;
        slots_[place] = {head, static_cast<uint32_t>(pool_.size()), static_cast<uint32_t>(id), static_cast<uint32_t>(size)};
        if (size > 8) pool_.append(bytes + 8, static_cast<size_t>(size - 8));
        longest_ = size > longest_ ? size : longest_;
    }

    // Returns the id of a piece, or -1.
    int32_t find(const char* bytes, int64_t size) const {
        if (size > longest_) return -1;
        const uint64_t head = tail(bytes, size < 8 ? size : 8);
        for (size_t place = hash(bytes, size) & mask_;; place = (place + 1) & mask_) {
            const Slot& slot = slots_[place];
            if (slot.size == 0) return -1;
            if (slot.head == head && slot.size == size &&
                (size <= 8 || std::memcmp(pool_.data() + slot.offset, bytes + 8, static_cast<size_t>(size - 8)) == 0))
                return static_cast<int32_t>(slot.id);
        }
    }

    int64_t longest() const { return longest_; }

   private:
    struct Slot {
        uint64_t head = 0;    // the first 8 bytes
        uint32_t offset = 0;  // of the others in `pool_`
        uint32_t id : 24, size : 8;
        Slot() : id(0), size(0) {}
        Slot(uint64_t head, uint32_t offset, uint32_t id, uint32_t size) : head(head), offset(offset), id(id), size(size) {}
    };

    // The first `size` <= 8 bytes, the others zero; reads 8.
    static uint64_t tail(const char* bytes, int64_t size) {
        uint64_t value;
        std::memcpy(&value, bytes, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        value = __builtin_bswap64(value);
#endif
        return size == 8 ? value : value & ((uint64_t{1} << 8 * size) - 1);
    }

    static uint64_t hash(const char* bytes, int64_t size) {
        constexpr uint64_t kFactor = 0x9E3779B97F4A7C15;
        uint64_t value = static_cast<uint64_t>(size);
        for (; size > 8; size -= 8, bytes += 8) value = mixed((value ^ tail(bytes, 8)) * kFactor);
        return mixed((value ^ tail(bytes, size)) * kFactor);
    }
    static uint64_t mixed(uint64_t value) { return value ^ value >> 32; }

    std::vector<Slot> slots_;
    std::string pool_;
    size_t mask_ = 0;
    int64_t longest_ = 0;
};

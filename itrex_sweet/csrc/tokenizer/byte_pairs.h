// Merges of byte-pair encoding: bytes of a word to token ids.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "pieces.h"

class BytePairs {
   public:
    // `bytes`: the id of each byte.
    BytePairs(const std::array<int32_t, 256>& bytes, int64_t merges) : bytes_(bytes) {
        size_t size = 16;
        while (size < static_cast<size_t>(2 * merges)) size *= 2;
        slots_.resize(size);
        mask_ = size - 1;
    }

    // Adds the merge that follows those which were added before; of equal ones the last counts.
    void add(int32_t first, int32_t second, int32_t merged) {
        const uint64_t pair = key(first, second);
        size_t place = hash(pair) & mask_;
        while (slots_[place].pair != kNone && slots_[place].pair != pair) place = (place + 1) & mask_;
        slots_[place] = {pair, count_++, merged};
    }

    // Appends the ids of a word to `ids`: of all pairs of neighbours with the lowest rank the leftmost is merged, until none
    // is left.
    void encode(std::string_view word, std::vector<int32_t>& ids) const {
        if (word.size() <= kShort) {
            encode_short(word, ids);
        } else {
            encode_long(word, ids);
        }
    }

   private:
    static constexpr size_t kShort = 48;
    static constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();
    static constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();

    struct Slot {
        uint64_t pair = kNone;
        uint32_t rank = kNoRank;
        int32_t merged = -1;
    };

    static uint64_t key(int32_t first, int32_t second) {
        return static_cast<uint64_t>(first) << 32 | static_cast<uint32_t>(second);
    }
    static uint64_t hash(uint64_t pair) {
        const uint64_t product = (pair ^ pair >> 20) * 0x9E3779B97F4A7C15;
        return product ^ product >> 32;
    }

    // Returns the merge of two tokens; its rank is `kNoRank` if there is none.
    const Slot& find(int32_t first, int32_t second) const {
        const uint64_t pair = key(first, second);
        for (size_t place = hash(pair) & mask_;; place = (place + 1) & mask_)
            if (slots_[place].pair == pair || slots_[place].pair == kNone) return slots_[place];
    }

    int32_t id_of(char byte) const { return bytes_[static_cast<unsigned char>(byte)]; }

    void encode_short(std::string_view word, std::vector<int32_t>& ids) const {
        struct Symbol {
            int32_t id, merged;  // with the next one
            uint32_t rank;
        };
        std::array<Symbol, kShort + 1> symbols;
        const auto look_up = [&](size_t place) {
            const Slot& slot = find(symbols[place].id, symbols[place + 1].id);
            symbols[place].rank = slot.rank;
            symbols[place].merged = slot.merged;
        };
        size_t count = word.size();
        for (size_t i = 0; i < count; ++i) symbols[i].id = id_of(word[i]);
        for (size_t i = 0; i + 1 < count; ++i) look_up(i);
        while (count > 1) {
            size_t best = 0;
            for (size_t i = 1; i + 1 < count; ++i)
                if (symbols[i].rank < symbols[best].rank) best = i;
            if (symbols[best].rank == kNoRank) break;
            symbols[best].id = symbols[best].merged;
            --count;
            for (size_t i = best + 1; i < count; ++i) symbols[i] = symbols[i + 1];
            if (best + 1 < count) look_up(best);
            if (best > 0) look_up(best - 1);
        }
        for (size_t i = 0; i < count; ++i) ids.push_back(symbols[i].id);
    }

    // With a heap of the pairs, so that the time grows little faster than the length.
    void encode_long(std::string_view word, std::vector<int32_t>& ids) const {
        if (word.size() >= kNoRank) throw std::length_error("word");
        const auto size = static_cast<uint32_t>(word.size());
        struct Symbol {
            int32_t id;  // -1: merged into one before it
            uint32_t before, next;
        };
        std::vector<Symbol> symbols(size);
        for (uint32_t i = 0; i < size; ++i) symbols[i] = {id_of(word[i]), i - 1, i + 1};
        std::vector<uint64_t> heap;  // rank and place
        const auto is_later = [](uint64_t a, uint64_t b) { return a > b; };
        const auto rank_at = [&](uint32_t place) { return find(symbols[place].id, symbols[symbols[place].next].id).rank; };
        for (uint32_t i = 0; i + 1 < size; ++i)
            if (const uint32_t rank = rank_at(i); rank != kNoRank) heap.push_back(uint64_t{rank} << 32 | i);
        std::make_heap(heap.begin(), heap.end(), is_later);
        const auto push = [&](uint32_t place) {
            const uint32_t rank = rank_at(place);
            if (rank == kNoRank) return;
            heap.push_back(uint64_t{rank} << 32 | place);
            std::push_heap(heap.begin(), heap.end(), is_later);
        };
        while (!heap.empty()) {
            std::pop_heap(heap.begin(), heap.end(), is_later);
            const auto rank = static_cast<uint32_t>(heap.back() >> 32), place = static_cast<uint32_t>(heap.back());
            heap.pop_back();
            Symbol& symbol = symbols[place];
            if (symbol.id < 0 || symbol.next >= size) continue;
            Symbol& right = symbols[symbol.next];
            const Slot& merge = find(symbol.id, right.id);
            if (merge.rank != rank) continue;  // a pair that was there before
            symbol.id = merge.merged;
            symbol.next = right.next;
            right.id = -1;
            if (symbol.next < size) {
                symbols[symbol.next].before = place;
                push(place);
            }
            if (place > 0) push(symbol.before);
        }
        for (uint32_t i = 0; i < size; i = symbols[i].next) ids.push_back(symbols[i].id);
    }

    std::array<int32_t, 256> bytes_;
    std::vector<Slot> slots_;
    size_t mask_ = 0;
    uint32_t count_ = 0;
};

// Sets of code points that the generated tables hold.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <vector>

// Returns whether one of the ranges, which are sorted, holds a code point.
template <size_t size>
bool contains(const uint32_t (&ranges)[size], uint32_t code) {
    const auto place = std::upper_bound(std::begin(ranges), std::end(ranges), code) - std::begin(ranges);
    return place % 2 == 1 || (place > 0 && ranges[place - 1] == code);
}

// Appends the first and the last code point of each range, and their neighbours.
template <size_t size>
void append_borders(const uint32_t (&ranges)[size], std::vector<uint32_t>& found) {
    for (size_t i = 0; i < size; i += 2)
        for (const uint32_t code : {ranges[i] - 1, ranges[i], ranges[i + 1], ranges[i + 1] + 1}) found.push_back(code);
}

// Sorts code points, and removes those that are doubled or no characters.
inline void sort_characters(std::vector<uint32_t>& codes) {
    const auto is_none = [](uint32_t code) { return code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF); };
    codes.erase(std::remove_if(codes.begin(), codes.end(), is_none), codes.end());
    std::sort(codes.begin(), codes.end());
    codes.erase(std::unique(codes.begin(), codes.end()), codes.end());
}

// A small number for each code point.
class CodePointTable {
   public:
    CodePointTable() : own_(1) { pages_.fill(0); }

    uint8_t at(uint32_t code) const { return own_[pages_[code >> 8]][code & 255]; }

    template <size_t size>
    void set(const uint32_t (&ranges)[size], uint8_t value) {
        for (size_t i = 0; i < size; i += 2)
            for (uint32_t code = ranges[i]; code <= ranges[i + 1]; ++code) set(code, value);
    }

    void set(uint32_t code, uint8_t value) {
        uint16_t& page = pages_[code >> 8];
        if (page == 0) {
            page = static_cast<uint16_t>(own_.size());
            own_.emplace_back();
        }
        own_[page][code & 255] = value;
    }

   private:
    std::array<uint16_t, 0x110000 / 256> pages_;  // index into `own_`; the first is of code points that were not set
    std::vector<std::array<uint8_t, 256>> own_;
};

// The pre-tokenizer `ByteLevel`: words of a text by GPT-2's regular expression, and the alphabet of bytes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "class_tables.h"
#include "code_points.h"
#include "utf8.h"

// Writes the bytes that a piece of a vocabulary stands for; returns false for a piece that no text has.
inline bool piece_bytes(std::string_view piece, std::string& bytes) {
    // Bytes that are no printable characters of Latin-1 have the code points from 256 on, in order.
    static constexpr auto is_printable = [](uint32_t code) {
        return (code >= 0x21 && code <= 0x7E) || (code >= 0xA1 && code <= 0xFF && code != 0xAD);
    };
    static constexpr uint32_t kOthers = 68;
    bytes.clear();
    const char *at = piece.data(), *const end = at + piece.size();
    while (at < end) {
        const uint32_t code = decode(at, end);
        uint32_t byte = code;
        if (code >= 256) {
            if (code >= 256 + kOthers) return false;
            uint32_t left = code - 256;
            for (byte = 0; is_printable(byte) || left-- > 0; ++byte) continue;
        } else if (!is_printable(code)) {
            return false;
        }
        bytes.push_back(static_cast<char>(byte));
    }
    return true;
}

// Splits texts by `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
class ByteLevelWords {
   public:
    ByteLevelWords() {
        table_.set(class_tables::kLetters, kLetter);
        table_.set(class_tables::kNumbers, kNumber);
        table_.set(class_tables::kSpaces, kSpace);
        for (uint32_t code = 0; code < 128; ++code) ascii_[code] = table_.at(code);
    }

    // Calls `use` with the start and the end of each word.
    template <class Use>
    void each(std::string_view text, Use use) const {
        const char *at = text.data(), *const end = at + text.size();
        while (at < end) {
            const char* const stop = end_of_word(at, end);
            use(at, stop);
            at = stop;
        }
    }

    static std::vector<uint32_t> borders() {
        std::vector<uint32_t> found;
        append_borders(class_tables::kLetters, found);
        append_borders(class_tables::kNumbers, found);
        append_borders(class_tables::kSpaces, found);
        sort_characters(found);
        return found;
    }

   private:
    enum Class : uint8_t { kOther, kLetter, kNumber, kSpace };

    uint8_t next_class(const char*& at, const char* end) const {
        const auto byte = static_cast<unsigned char>(*at);
        if (byte >= 0x80) return table_.at(decode(at, end));
        ++at;
        return ascii_[byte];
    }

    const char* end_of_word(const char* const start, const char* const end) const {
        if (*start == '\'')
            if (const int size = contraction(start + 1, end); size > 0) return start + 1 + size;
        const char* at = start;
        uint8_t kind = next_class(at, end);
        if (*start == ' ' && at < end) {
            const char* next = at;
            if (const uint8_t own = next_class(next, end); own != kSpace) kind = own, at = next;
        }
        const char* before = start;  // of the last character
        while (at < end) {
            const char* next = at;
            if (next_class(next, end) != kind) break;
            before = at;
            at = next;
        }
        // The last of several spaces before a word belongs to it or stands alone.
        return kind == kSpace && at < end && before > start ? before : at;
    }

    // Returns the length of a contraction without its apostrophe, or 0.
    static int contraction(const char* at, const char* end) {
        if (at == end) return 0;
        switch (*at) {
            case 's':
            case 't':
            case 'm':
            case 'd': return 1;
            case 'r':
            case 'v': return end - at > 1 && at[1] == 'e' ? 2 : 0;
            case 'l': return end - at > 1 && at[1] == 'l' ? 2 : 0;
            default: return 0;
        }
    }

    CodePointTable table_;
    std::array<uint8_t, 128> ascii_{};
};

// Decoding and encoding of UTF-8.
#pragma once

#include <cstdint>
#include <stdexcept>

struct InvalidText : std::invalid_argument {
    InvalidText() : std::invalid_argument("the text is not UTF-8") {}
};

inline bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// Returns the code point at `text` and advances it; never reads at or beyond `end`.
inline uint32_t decode(const char*& text, const char* end) {
    const auto first = static_cast<unsigned char>(*text);
    if (first < 0x80) {
        ++text;
        return first;
    }
    const int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    if (first < 0xC2 || first > 0xF4 || end - text <= more) throw InvalidText();
    uint32_t code = first & (0x3F >> more);
    for (int i = 1; i <= more; ++i) {
        if (!is_continuation(text[i])) throw InvalidText();
        code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3F);
    }
    if (code > 0x10FFFF) throw InvalidText();
    text += more + 1;
    return code;
}

// Writes a code point to `to`, which has room for 4 bytes; returns the number of bytes.
inline int encode(uint32_t code, char* to) {
    const auto byte = [](uint32_t value) { return static_cast<char>(value); };
    if (code < 0x80) {
        to[0] = byte(code);
        return 1;
    }
    if (code < 0x800) {
        to[0] = byte(0xC0 | code >> 6);
        to[1] = byte(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        to[0] = byte(0xE0 | code >> 12);
        to[1] = byte(0x80 | (code >> 6 & 0x3F));
        to[2] = byte(0x80 | (code & 0x3F));
        return 3;
    }
    to[0] = byte(0xF0 | code >> 18);
    to[1] = byte(0x80 | (code >> 12 & 0x3F));
    to[2] = byte(0x80 | (code >> 6 & 0x3F));
    to[3] = byte(0x80 | (code & 0x3F));
    return 4;
}

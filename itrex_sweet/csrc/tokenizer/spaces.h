// White space at the ends of a text and between words.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "class_tables.h"
#include "code_points.h"
#include "utf8.h"

class Spaces {
   public:
    Spaces() {
        for (uint32_t code = 0; code < 128; ++code) ascii_[code] = contains(class_tables::kSpaces, code);
    }

    // Moves `at` behind the character there if that is a space; returns whether it is.
    bool take(const char*& at, const char* end) const {
        const char* next = at;
        if (!is_space(next, end)) return false;
        at = next;
        return true;
    }

    // Moves `at` to the next space that is not there.
    void skip(const char*& at, const char* end) const {
        while (at < end) {
            const char* next = at;
            if (is_space(next, end)) return;
            at = next;
        }
    }

    std::string_view without_leading(std::string_view text) const {
        const char *at = text.data(), *const end = at + text.size();
        while (at < end && take(at, end)) continue;
        return {at, static_cast<size_t>(end - at)};
    }

    std::string_view without_trailing(std::string_view text) const {
        while (!text.empty()) {
            size_t last = text.size() - 1;
            while (last > 0 && is_continuation(text[last])) --last;
            const char* at = text.data() + last;
            if (!is_space(at, text.data() + text.size())) break;
            text = text.substr(0, last);
        }
        return text;
    }

   private:
    bool is_space(const char*& at, const char* end) const {
        const auto byte = static_cast<unsigned char>(*at);
        if (byte >= 0x80) return contains(class_tables::kSpaces, decode(at, end));
        ++at;
        return ascii_[byte];
    }

    std::array<bool, 128> ascii_{};
};

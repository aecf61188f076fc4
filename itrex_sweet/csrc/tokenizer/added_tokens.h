// Added tokens, which are found in a text before it is split into words.
#pragma once

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "api.h"
#include "class_tables.h"
#include "code_points.h"
#include "utf8.h"

struct AddedToken {
    std::string content;
    int32_t id;
    int32_t flags;  // sum of `sweet_added_token`

    bool has(sweet_added_token flag) const { return (flags & flag) != 0; }
};

class AddedTokens {
   public:
    void add(AddedToken token) { tokens_.push_back(std::move(token)); }

    // Prepares the search, after the last `add`.
    void finish() {
        std::stable_sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) {
            const auto first_a = static_cast<unsigned char>(a.content[0]), first_b = static_cast<unsigned char>(b.content[0]);
            return first_a != first_b ? first_a < first_b : a.content.size() > b.content.size();
        });
        int firsts = 0;
        for (size_t i = 0; i < tokens_.size(); ++i) {
            const std::string& content = tokens_[i].content;
            const auto byte = static_cast<unsigned char>(content[0]);
            First& first = firsts_[byte];
            if (first.begin == first.end) {
                first.begin = i;
                only_first_ = ++firsts == 1 ? byte : -1;
            }
            first.end = i + 1;
            if (content.size() == 1) {
                first.seconds.set();
            } else {
                first.seconds.set(static_cast<unsigned char>(content[1]));
            }
        }
    }

    bool empty() const { return tokens_.empty(); }

    bool has(sweet_added_token flag) const {
        return std::any_of(tokens_.begin(), tokens_.end(), [flag](const AddedToken& token) { return token.has(flag); });
    }

    // Calls `use` with the parts of a text between tokens, and `use_token` with each token, in order. The leftmost token is
    // found, and there the longest.
    template <class Use, class UseToken>
    void split(std::string_view text, Use use, UseToken use_token) const {
        size_t start = 0, from = 0, at = 0;
        while (const AddedToken* token = find(text, from, at)) {
            from = at + token->content.size();
            if (token->has(SWEET_IS_TEXT) || (token->has(SWEET_SINGLE_WORD) && !is_single_word(text, at, from))) continue;
            // A token that takes the spaces behind it leaves those that are tokens themselves to be found.
            const size_t begin = token->has(SWEET_TAKES_LEFT) ? std::max(start, before_spaces(text, at)) : at;
            if (start < begin) use(text.substr(start, begin - start));
            use_token(*token);
            start = token->has(SWEET_TAKES_RIGHT) ? behind_spaces(text, from) : from;
        }
        if (start < text.size()) use(text.substr(start));
    }

   private:
    // The tokens that begin with one byte.
    struct First {
        size_t begin = 0, end = 0;
        std::bitset<256> seconds;  // second bytes; all for a token of one byte
    };

    // Returns the first token at or after `from` and sets `at` to its start; null if there is none.
    const AddedToken* find(std::string_view text, size_t from, size_t& at) const {
        if (tokens_.empty()) return nullptr;
        const char *const start = text.data(), *const end = start + text.size();
        for (const char* place = start + from; place < end; ++place) {
            if (only_first_ >= 0) {
                place = static_cast<const char*>(std::memchr(place, only_first_, static_cast<size_t>(end - place)));
                if (place == nullptr) return nullptr;
            }
            const First& first = firsts_[static_cast<unsigned char>(*place)];
            if (first.begin == first.end) continue;
            if (end - place > 1 && !first.seconds.test(static_cast<unsigned char>(place[1]))) continue;
            for (size_t i = first.begin; i < first.end; ++i) {
                const std::string& content = tokens_[i].content;
                const size_t size = content.size();
                if (size > static_cast<size_t>(end - place) || std::memcmp(content.data(), place, size) != 0) continue;
                at = static_cast<size_t>(place - start);
                return &tokens_[i];
            }
        }
        return nullptr;
    }

    // Returns the code point that ends before `at`, which is not 0, and moves `at` to its start.
    static uint32_t decode_before(std::string_view text, size_t& at) {
        for (--at; at > 0 && is_continuation(text[at]);) --at;
        const char* place = text.data() + at;
        return decode(place, text.data() + text.size());
    }

    static uint32_t decode_at(std::string_view text, size_t& at) {
        const char* place = text.data() + at;
        const uint32_t code = decode(place, text.data() + text.size());
        at = static_cast<size_t>(place - text.data());
        return code;
    }

    static bool is_single_word(std::string_view text, size_t start, size_t stop) {
        return (start == 0 || !contains(class_tables::kWords, decode_before(text, start))) &&
               (stop == text.size() || !contains(class_tables::kWords, decode_at(text, stop)));
    }

    static size_t before_spaces(std::string_view text, size_t at) {
        for (size_t next = at; at > 0; at = next)
            if (!contains(class_tables::kSpaces, decode_before(text, next))) break;
        return at;
    }

    static size_t behind_spaces(std::string_view text, size_t at) {
        for (size_t next = at; at < text.size(); at = next)
            if (!contains(class_tables::kSpaces, decode_at(text, next))) break;
        return at;
    }

    std::vector<AddedToken> tokens_;  // by their first byte, the longest first
    std::array<First, 256> firsts_{};
    int only_first_ = -1;
};

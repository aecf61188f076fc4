// The normalizer `Precompiled`: SentencePiece's map from characters to others.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "clusters.h"
#include "code_points.h"
#include "text_model.h"
#include "utf8.h"

class CharacterMap {
   public:
    // `blob`: the size of a double-array trie in bytes, the trie, and the replacements, each of which ends with a zero byte.
    explicit CharacterMap(std::string_view blob) {
        if (blob.size() < 4) throw std::invalid_argument("character map");
        const uint32_t size = integer(blob.data()) / 4;
        if (size == 0 || blob.size() / 4 - 1 < size) throw std::invalid_argument("character map");
        for (uint32_t i = 1; i <= size; ++i) units_.push_back(integer(blob.data() + 4 * size_t{i}));
        replacements_ = blob.substr(4 + 4 * size_t{size});
        for (const char *at = replacements_.data(), *end = at + replacements_.size(); at < end;) decode(at, end);
        for (int code = 0; code < 128; ++code) {
            const char byte = static_cast<char>(code);
            ascii_[static_cast<size_t>(code)] = find({&byte, 1});
        }
    }

    std::string_view apply(std::string_view text, std::string& form) const {
        const char *at = text.data(), *const end = at + text.size(), *copied = at;
        form.clear();
        const auto replace = [&](const char* from, const char* to, std::string_view by) {
            form.append(copied, static_cast<size_t>(from - copied));
            form.append(by);
            copied = to;
        };
        while (at < end) {
            const char* const start = at;
            const auto first = static_cast<unsigned char>(*at);
            if (first < 0x80 && (end - at == 1 || (static_cast<unsigned char>(at[1]) < 0x80 && first != '\r'))) {
                ++at;
                if (const Replacement& found = ascii_[first]; found.exists) replace(start, at, found.text);
                continue;
            }
            const uint32_t code = decode(at, end);
            const bool is_alone = clusters_.is_alone(code, at, end);
            if (!is_alone) at = clusters_.end_of_cluster(start, end);
            if (is_alone || at - start < kShortCluster) {
                // Of the keys that a cluster begins with, the shortest counts, and replaces all of it.
                const Replacement found = find({start, static_cast<size_t>(at - start)});
                if (found.exists) replace(start, at, found.text);
                if (found.exists || is_alone) continue;
            }
            for (const char* each = start; each < at;) {
                const char* const from = each;
                decode(each, at);
                const Replacement found = find({from, static_cast<size_t>(each - from)});
                if (found.exists) replace(from, each, found.text);
            }
        }
        if (copied == text.data()) return text;
        form.append(copied, static_cast<size_t>(end - copied));
        return form;
    }

    // Returns whether texts with a character are not left to another tokenizer.
    bool reads(uint32_t code) const { return clusters_.reads(code); }

    std::vector<uint32_t> borders() const {
        std::vector<uint32_t> found = Clusters::borders();
        std::vector<uint32_t> keys;
        for (uint32_t code = 1; code < 0x20000; ++code) {
            char bytes[4];
            if (code >= 0xD800 && code <= 0xDFFF) continue;
            if (find({bytes, static_cast<size_t>(::encode(code, bytes))}).exists) keys.push_back(code);
        }
        for (size_t i = 0; i < keys.size(); i += keys.size() / kComparedKeys + 1) found.push_back(keys[i]);
        sort_characters(found);
        return found;
    }

   private:
    static constexpr size_t kComparedKeys = 1000;

    struct Replacement {
        std::string_view text;
        bool exists = false;
    };

    static uint32_t integer(const char* bytes) {
        uint32_t value;
        std::memcpy(&value, bytes, 4);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        value = __builtin_bswap32(value);
#endif
        return value;
    }

    static uint32_t offset(uint32_t unit) { return unit >> 10 << ((unit & 1 << 9) >> 6); }

    // The library fails at a place outside the map.
    uint32_t at(uint32_t place) const {
        if (place >= units_.size()) throw UnsupportedText();
        return units_[place];
    }

    // Returns what the shortest key at the start of `text` stands for.
    Replacement find(std::string_view text) const {
        uint32_t place = offset(units_[0]);
        for (const char each : text) {
            const auto byte = static_cast<unsigned char>(each);
            if (byte == 0) break;
            place ^= byte;
            const uint32_t unit = at(place);
            if ((unit & (uint32_t{1} << 31 | 0xFF)) != byte) break;
            place ^= offset(unit);
            if ((unit >> 8 & 1) != 0) return replacement(at(place) & 0x7FFFFFFF);
        }
        return {};
    }

    Replacement replacement(size_t start) const {
        if (start > replacements_.size()) throw UnsupportedText();
        const size_t end = replacements_.find('\0', start);
        const std::string_view text =
            std::string_view(replacements_).substr(start, end == std::string::npos ? end : end - start);
        if (!text.empty() && is_continuation(text[0])) throw UnsupportedText();
        return {text, true};
    }

    Clusters clusters_;
    std::vector<uint32_t> units_;
    std::string replacements_;
    std::array<Replacement, 128> ascii_;
};

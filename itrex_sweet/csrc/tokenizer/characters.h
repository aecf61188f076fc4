// Normalization of `BertNormalizer` and word boundaries of `BertPreTokenizer`, character by character.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <string>
#include <unordered_map>
#include <vector>

#include "code_points.h"
#include "unicode_tables.h"
#include "utf8.h"

enum class Kind : uint32_t {
    kLetter,       // part of a word
    kSpace,        // between words; normalized to a space
    kAlone,        // a word of its own
    kRemoved,      // nothing
    kMapped,       // other characters
    kHangul,       // decomposed to two or three letters
    kUnsupported,  // outcome depends on neighbours or on the release of `tokenizers`
};

// A character of a normalized text: its kind (letter, space or alone) and UTF-8.
struct Character {
    Kind kind;
    int size;
    char bytes[4];
};

struct NormalizerOptions {
    bool clean_text, spaced_ideographs, strip_accents, lowercase;
};

// Kind and normal form of every code point.
class Characters {
   public:
    explicit Characters(const NormalizerOptions& options) : options_(options) {
        pages_.fill(kLetterPage);
        set(unicode_tables::kWhitespace, Kind::kSpace);
        set(unicode_tables::kPunctuation, Kind::kAlone);
        if (options.spaced_ideographs) set(unicode_tables::kIdeographs, Kind::kAlone);
        const auto decomposed = mappings(unicode_tables::kDecomposed), lowered = mappings(unicode_tables::kLowered);
        if (options.strip_accents) {
            set(unicode_tables::kMarks, Kind::kRemoved);
            set_range(kHangulFirst, kHangulLast, Kind::kHangul);
            for (const auto& [code, outputs] : decomposed) map(code, outputs, lowered);
        }
        if (options.lowercase)
            for (const auto& [code, outputs] : lowered)
                if (!options.strip_accents || decomposed.count(code) == 0) map(code, {code}, lowered);
        if (options.strip_accents) set(unicode_tables::kReordered, Kind::kUnsupported);
        if (options.clean_text) {
            set(unicode_tables::kRemoved, Kind::kRemoved);
            set(unicode_tables::kSpaces, Kind::kSpace);
        }
        set(unicode_tables::kVersionDependent, Kind::kUnsupported);
        for (uint32_t code = 0; code < 128; ++code) {
            const uint32_t entry = at(code);
            ascii_kind[code] = kind_of(entry);
            ascii[code] = static_cast<char>(code);
            if (kind_of(entry) != Kind::kMapped) continue;
            const std::vector<Character>& to = mapped_[value_of(entry)];  // an upper-case letter: one letter
            if (to.size() != 1 || to[0].size != 1) continue;
            ascii_kind[code] = to[0].kind;
            ascii[code] = to[0].bytes[0];
        }
    }

    // Calls `use` with each character of the normal form of `code`. Returns false for an unsupported character.
    template <class Use>
    bool normalize(uint32_t code, Use use) const {
        const uint32_t entry = at(code);
        switch (const Kind kind = kind_of(entry)) {
            case Kind::kRemoved: return true;
            case Kind::kUnsupported: return false;
            case Kind::kMapped:
                for (const Character& each : mapped_[value_of(entry)]) use(each);
                return true;
            case Kind::kHangul: {
                const uint32_t index = code - kHangulFirst;
                use(character(0x1100 + index / 588, Kind::kLetter));
                use(character(0x1161 + index % 588 / 28, Kind::kLetter));
                if (index % 28 != 0) use(character(0x11A7 + index % 28, Kind::kLetter));
                return true;
            }
            case Kind::kSpace:
                // Without `clean_text`, whitespace stays as it is.
                use(options_.clean_text ? character(' ', kind) : character(code, kind));
                return true;
            default: use(character(code, kind)); return true;
        }
    }

    // Returns whether a character gets spaces around it, which added tokens may contain.
    bool is_spaced(uint32_t code) const {
        return options_.spaced_ideographs && contains(unicode_tables::kIdeographs, code);
    }

    // Returns supported code points at which the tables can be compared with another implementation: the first and last of
    // each range and its neighbours, and every fourth of those that are mapped.
    std::vector<uint32_t> borders() const {
        std::vector<uint32_t> found;
        const auto append_mapped = [&](const uint32_t* mapping, const uint32_t* end) {
            for (int place = 0; mapping != end; mapping += 2 + mapping[1], ++place)
                if (place % 4 == 0) found.push_back(mapping[0]);
        };
        using namespace unicode_tables;
        append_borders(kRemoved, found);
        append_borders(kSpaces, found);
        append_borders(kIdeographs, found);
        append_borders(kMarks, found);
        append_borders(kWhitespace, found);
        append_borders(kPunctuation, found);
        append_mapped(std::begin(kDecomposed), std::end(kDecomposed));
        append_mapped(std::begin(kLowered), std::end(kLowered));
        for (uint32_t code = kHangulFirst; code <= kHangulLast; code += 97) found.push_back(code);
        sort_characters(found);
        const auto is_left = [&](uint32_t code) { return kind_of(at(code)) == Kind::kUnsupported; };
        found.erase(std::remove_if(found.begin(), found.end(), is_left), found.end());
        return found;
    }

    // Kinds and normal forms of ASCII, none of which is kMapped.
    std::array<Kind, 128> ascii_kind;
    std::array<char, 128> ascii;

   private:
    using Page = std::array<uint32_t, 256>;  // kind in the lowest 3 bits, index into `mapped_` above
    using Mappings = std::unordered_map<uint32_t, std::vector<uint32_t>>;
    static constexpr uint32_t kCodes = 0x110000, kHangulFirst = 0xAC00, kHangulLast = 0xD7A3, kKinds = 7;
    // Page numbers below 0 are of uniform pages: -1 - kind.
    static constexpr int32_t kLetterPage = -1;

    static Kind kind_of(uint32_t entry) { return static_cast<Kind>(entry & 7); }
    static uint32_t value_of(uint32_t entry) { return entry >> 3; }

    static Character character(uint32_t code, Kind kind) {
        Character made{kind, 0, {}};
        made.size = encode(code, made.bytes);
        return made;
    }

    uint32_t at(uint32_t code) const {
        const int32_t page = pages_[code >> 8];
        return page < 0 ? static_cast<uint32_t>(-1 - page) : own_[page][code & 255];
    }

    void set_entry(uint32_t code, uint32_t entry) {
        int32_t& page = pages_[code >> 8];
        if (page < 0) {
            own_.emplace_back();
            own_.back().fill(static_cast<uint32_t>(-1 - page));
            page = static_cast<int32_t>(own_.size()) - 1;
        }
        own_[page][code & 255] = entry;
    }

    void set_range(uint32_t first, uint32_t last, Kind kind) {
        for (uint32_t code = first; code <= last; ++code) {
            if ((code & 255) == 0 && last - code >= 255) {
                pages_[code >> 8] = -1 - static_cast<int32_t>(kind);
                code += 255;
            } else {
                set_entry(code, static_cast<uint32_t>(kind));
            }
        }
    }

    template <size_t size>
    void set(const uint32_t (&ranges)[size], Kind kind) {
        for (size_t i = 0; i < size; i += 2) set_range(ranges[i], ranges[i + 1], kind);
    }

    template <size_t size>
    static Mappings mappings(const uint32_t (&table)[size]) {
        Mappings found;
        for (size_t i = 0; i < size; i += 2 + table[i + 1])
            found.emplace(table[i], std::vector<uint32_t>(table + i + 2, table + i + 2 + table[i + 1]));
        return found;
    }

    // Maps a code point to `outputs`, and these to lower case.
    void map(uint32_t code, const std::vector<uint32_t>& outputs, const Mappings& lowered) {
        const bool is_alone = options_.spaced_ideographs && contains(unicode_tables::kIdeographs, code);
        std::vector<Character> to;
        for (const uint32_t output : outputs) {
            const auto found = options_.lowercase ? lowered.find(output) : lowered.end();
            for (const uint32_t last : found == lowered.end() ? std::vector<uint32_t>{output} : found->second) {
                const bool is_space = contains(unicode_tables::kWhitespace, last);
                const bool is_punctuation = contains(unicode_tables::kPunctuation, last);
                to.push_back(character(last, is_space                     ? Kind::kSpace
                                             : is_punctuation || is_alone ? Kind::kAlone
                                                                          : Kind::kLetter));
            }
        }
        mapped_.push_back(std::move(to));
        set_entry(code, static_cast<uint32_t>(Kind::kMapped) | static_cast<uint32_t>(mapped_.size() - 1) << 3);
    }

    NormalizerOptions options_;
    std::array<int32_t, kCodes / 256> pages_;
    std::vector<Page> own_;
    std::vector<std::vector<Character>> mapped_;
};

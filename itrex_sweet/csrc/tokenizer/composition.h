// The normalizers `NFC`, `NFD`, `NFKC` and `NFKD`: decomposition, canonical order and composition.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "code_points.h"
#include "compatibility_tables.h"
#include "composition_tables.h"
#include "text_model.h"
#include "utf8.h"

class Composition {
   public:
    // `is_compatible`: NFKC or NFKD; `composes`: NFC or NFKC.
    explicit Composition(bool is_compatible = false, bool composes = true)
        : is_compatible_(is_compatible), composes_(composes) {
        using namespace composition_tables;
        active_.set(kActive, 1);
        using compatibility_tables::kCompatible;
        if (is_compatible) index(std::begin(kCompatible), std::end(kCompatible), compatible_);
        index(std::begin(kDecompositions), std::end(kDecompositions), decompositions_);
        index(std::begin(kClasses), std::end(kClasses), classes_);
        for (const uint32_t* row = std::begin(kCompositions); row != std::end(kCompositions); row += 2 + row[1])
            compositions_.push_back({uint64_t{row[2]} << 32 | row[3], row[0]});
        std::sort(compositions_.begin(), compositions_.end());
    }

    // Returns the text itself if it has the form, or `form` with another text.
    std::string_view apply(std::string_view text, std::string& form) const {
        const char *at = text.data(), *const end = at + text.size(), *copied = at, *before = at;
        form.clear();
        while (at < end) {
            if (static_cast<unsigned char>(*at) < 0x80) {
                before = at++;
                continue;
            }
            const char* start = at;
            if (!is_active(decode(at, end))) {
                before = start;
                continue;
            }
            // No character changes but those up to the next inactive one, and an inactive one before them.
            const char* stop = at;
            while (stop < end) {
                const char* next = stop;
                if (!is_active(decode(next, end))) break;
                stop = next;
            }
            form.append(copied, static_cast<size_t>(before - copied));
            append_composed(before, stop, form);
            copied = before = at = stop;
        }
        if (copied == text.data()) return text;
        form.append(copied, static_cast<size_t>(end - copied));
        return form;
    }

    std::vector<uint32_t> borders() const {
        std::vector<uint32_t> found;
        append_borders(composition_tables::kActive, found);
        for (const Index* rows : {&decompositions_, &compatible_})
            for (size_t i = 0; i < rows->size(); i += 4) found.push_back((*rows)[i].first);
        for (uint32_t code = kHangul; code < kHangul + kSyllables; code += 97) found.push_back(code);
        sort_characters(found);
        return found;
    }

   private:
    struct Letter {
        uint32_t code, order;  // combining class
    };
    using Index = std::vector<std::pair<uint32_t, const uint32_t*>>;  // code point and its row in a table
    static constexpr uint32_t kHangul = 0xAC00, kLead = 0x1100, kVowel = 0x1161, kTail = 0x11A7;
    static constexpr uint32_t kVowels = 21, kTails = 28, kSyllables = 19 * kVowels * kTails;

    // Returns whether a character may change, or change a neighbour. What does so is listed for NFC only.
    bool is_active(uint32_t code) const { return is_compatible_ || !composes_ ? code >= 0x80 : active_.at(code) != 0; }

    static void index(const uint32_t* row, const uint32_t* end, Index& found) {
        for (; row != end; row += 2 + row[1]) found.push_back({row[0], row});
        std::sort(found.begin(), found.end());
    }

    static const uint32_t* find(const Index& rows, uint32_t code) {
        const auto at = std::lower_bound(rows.begin(), rows.end(), std::pair<uint32_t, const uint32_t*>{code, nullptr});
        return at != rows.end() && at->first == code ? at->second : nullptr;
    }

    void append_composed(const char* text, const char* end, std::string& form) const {
        std::vector<Letter> letters;
        while (text < end) decompose(decode(text, end), letters);
        for (auto at = letters.begin(); at != letters.end();) {
            const auto stop = std::find_if(at, letters.end(), [](const Letter& each) { return each.order == 0; });
            std::stable_sort(at, stop, [](const Letter& a, const Letter& b) { return a.order < b.order; });
            at = stop == letters.end() ? stop : stop + 1;
        }
        if (composes_) compose(letters);
        char bytes[4];
        for (const Letter& each : letters) form.append(bytes, static_cast<size_t>(::encode(each.code, bytes)));
    }

    void decompose(uint32_t code, std::vector<Letter>& letters) const {
        const auto append = [&](uint32_t part) {
            const uint32_t* row = find(classes_, part);
            letters.push_back({part, row == nullptr ? 0 : row[2]});
        };
        if (code - kHangul < kSyllables) {
            const uint32_t syllable = code - kHangul;
            append(kLead + syllable / (kVowels * kTails));
            append(kVowel + syllable % (kVowels * kTails) / kTails);
            if (syllable % kTails != 0) append(kTail + syllable % kTails);
            return;
        }
        const uint32_t* row = find(compatible_, code);
        if (row == nullptr) row = find(decompositions_, code);
        if (row != nullptr) {
            for (uint32_t i = 0; i < row[1]; ++i) append(row[2 + i]);
        } else {
            append(code);
        }
    }

    // Joins letters with the last one of class 0 before them, unless a letter between has as great a class.
    void compose(std::vector<Letter>& letters) const {
        size_t kept = 0, base = letters.size();
        for (size_t i = 0; i < letters.size(); ++i) {
            const Letter letter = letters[i];
            if (base < kept) {
                const bool is_next = kept == base + 1;
                const uint32_t joined =
                    is_next || letters[kept - 1].order < letter.order ? composed(letters[base].code, letter.code) : 0;
                if (joined != 0) {
                    letters[base].code = joined;
                    continue;
                }
            }
            if (letter.order == 0) base = kept;
            letters[kept++] = letter;
        }
        letters.resize(kept);
    }

    // Returns the code point that two are composed to, or 0.
    uint32_t composed(uint32_t first, uint32_t second) const {
        if (first - kLead < kSyllables / (kVowels * kTails) && second - kVowel < kVowels)
            return kHangul + ((first - kLead) * kVowels + second - kVowel) * kTails;
        if (first - kHangul < kSyllables && (first - kHangul) % kTails == 0 && second - kTail - 1 < kTails - 1)
            return first + second - kTail;
        const uint64_t both = uint64_t{first} << 32 | second;
        const auto at = std::lower_bound(compositions_.begin(), compositions_.end(), std::pair<uint64_t, uint32_t>{both, 0});
        return at != compositions_.end() && at->first == both ? at->second : 0;
    }

    bool is_compatible_, composes_;
    CodePointTable active_;
    Index compatible_, decompositions_, classes_;
    std::vector<std::pair<uint64_t, uint32_t>> compositions_;
};

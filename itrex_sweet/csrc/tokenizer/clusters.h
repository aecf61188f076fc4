// Extended grapheme clusters, as far as a cluster of less than `kShortCluster` bytes depends on them.
#pragma once

#include <cstdint>
#include <vector>

#include "code_points.h"
#include "grapheme_tables.h"
#include "text_model.h"
#include "utf8.h"

// `Precompiled` replaces a cluster of fewer bytes as a whole, and the characters of a longer one by themselves.
constexpr int64_t kShortCluster = 6;

class Clusters {
   public:
    Clusters() {
        using namespace grapheme_tables;
        table_.set(kControls, kControl);
        table_.set(kPrepended, kBefore);
        table_.set(kLeads, kLead);
        table_.set(kVowels, kVowel);
        table_.set(kTails, kTail);
        table_.set(kPictographs, kPictograph);
        table_.set(kVersionDependent, kUncertain);
        for (uint32_t code = kHangul; code < kHangul + kSyllables; ++code)
            table_.set(code, (code - kHangul) % kTailsOfVowel == 0 ? kSyllable : kClosedSyllable);
        each(kConsonants, [&](uint32_t code) { table_.set(code, is_uncertain(code) ? kMaybeConsonant : kConsonant); });
        each(kJoining, [&](uint32_t code) {
            const bool is_linker = contains(kLinkers, code);
            if (is_uncertain(code) && !is_linker) return;
            table_.set(code, static_cast<uint8_t>(kJoined + (contains(kBetweenPictographs, code) ? kBetweenPictograph : 0) +
                                                  (contains(kBetweenConsonants, code) ? kBetweenConsonant : 0) +
                                                  (is_linker ? is_uncertain(code) ? kMaybeLinker : kLinker : 0)));
        });
    }

    // Returns whether the first two characters of `text` are not joined, whatever is before them; `code`: the first one,
    // `next`: where the second begins.
    bool is_alone(uint32_t code, const char* next, const char* end) const {
        if (table_.at(code) > kLastAlone) return false;
        if (next == end) return true;
        const uint32_t second = decode(next, end);
        return table_.at(second) <= kLastAlone && (code != '\r' || second != '\n');
    }

    // Returns the end of the cluster that begins at `at`. Throws `UnsupportedText` where releases of the library differ.
    const char* end_of_cluster(const char* at, const char* end) const {
        uint32_t code = decode(at, end);
        uint8_t kind = table_.at(code);
        if (kind == kUncertain) throw UnsupportedText();
        Pictographs pictographs = kind == kPictograph ? Pictographs::kSeen : Pictographs::kNone;
        Consonants consonants(kind);
        while (at < end) {
            const char* behind = at;
            const uint32_t next = decode(behind, end);
            const uint8_t own = table_.at(next);
            if (own == kUncertain) throw UnsupportedText();
            bool is_joined = code == '\r' && next == '\n';
            if (own == kConsonant || own == kMaybeConsonant) {
                is_joined = kind == kBefore || joins_consonant(consonants, own, behind, end);
            } else {
                is_joined |= joins(kind, own) || (own == kPictograph && pictographs == Pictographs::kJoined);
            }
            if (!is_joined) break;
            if (own == kPictograph) {
                pictographs = Pictographs::kSeen;
            } else if (next == kJoiner && pictographs == Pictographs::kSeen) {
                pictographs = Pictographs::kJoined;
            } else if (own < kJoined || (own & kBetweenPictograph) == 0 || pictographs != Pictographs::kSeen) {
                pictographs = Pictographs::kNone;
            }
            consonants.append(own);
            code = next;
            kind = own;
            at = behind;
        }
        return at;
    }

    // Returns whether texts with a character are not left to another tokenizer.
    bool reads(uint32_t code) const { return table_.at(code) != kUncertain; }

    static std::vector<uint32_t> borders() {
        using namespace grapheme_tables;
        std::vector<uint32_t> found;
        append_borders(kControls, found);
        append_borders(kPrepended, found);
        append_borders(kLeads, found);
        append_borders(kVowels, found);
        append_borders(kTails, found);
        append_borders(kPictographs, found);
        append_borders(kConsonants, found);
        append_borders(kJoining, found);
        append_borders(kLinkers, found);
        append_borders(kBetweenPictographs, found);
        sort_characters(found);
        return found;
    }

   private:
    // Kinds up to `kLastAlone` are joined to none of each other without a joiner between; from `kJoined` on to all before.
    enum Kind : uint8_t {
        kOther,
        kConsonant,
        kMaybeConsonant,  // or another, by the release of the library
        kPictograph,
        kControl,
        kSyllable,        // Hangul, with a vowel at its end
        kClosedSyllable,  // with a consonant
        kLastAlone = kClosedSyllable,
        kLead,
        kVowel,
        kTail,
        kBefore,  // joined to what follows
        kUncertain,
        kJoined,
    };
    // Added to `kJoined`.
    enum Joining : uint8_t { kBetweenPictograph = 16, kBetweenConsonant = 32, kLinker = 64, kMaybeLinker = 128 };
    enum class Pictographs { kNone, kSeen, kJoined };
    static constexpr uint32_t kHangul = 0xAC00, kTailsOfVowel = 28, kSyllables = 19 * 21 * kTailsOfVowel, kJoiner = 0x200D;

    // A consonant and the linkers behind it.
    struct Consonants {
        bool is_consonant, may_be_consonant, is_linked = false, may_be_linked = false;

        explicit Consonants(uint8_t kind)
            : is_consonant(kind == kConsonant), may_be_consonant(is_consonant || kind == kMaybeConsonant) {}

        void append(uint8_t kind) {
            if (kind < kJoined || (kind & kBetweenConsonant) == 0) {
                *this = Consonants(kind);
                return;
            }
            is_linked |= (kind & kLinker) != 0;
            may_be_linked |= (kind & (kLinker | kMaybeLinker)) != 0;
        }
    };

    template <size_t size, class Use>
    static void each(const uint32_t (&ranges)[size], Use use) {
        for (size_t i = 0; i < size; i += 2)
            for (uint32_t code = ranges[i]; code <= ranges[i + 1]; ++code) use(code);
    }

    static bool is_uncertain(uint32_t code) { return contains(grapheme_tables::kVersionDependent, code); }

    // Returns whether a consonant, which ends before `behind`, is joined to others.
    bool joins_consonant(const Consonants& others, uint8_t kind, const char* behind, const char* end) const {
        const bool is_joined = others.is_consonant && others.is_linked && kind == kConsonant;
        if (is_joined || !others.may_be_consonant || !others.may_be_linked) return is_joined;
        // Releases differ, which makes no difference unless the consonant begins a short cluster: what is before is long.
        if (behind < end && end - behind >= 2) {
            const char* next = behind;
            if (table_.at(decode(next, end)) >= kJoined && next - behind < 3) throw UnsupportedText();
        }
        return false;
    }

    static bool joins(uint8_t kind, uint8_t next) {
        if (kind == kControl || next == kControl) return false;
        if (next >= kJoined) return true;
        switch (next) {
            case kLead: return kind == kLead || kind == kBefore;
            case kVowel: return kind == kLead || kind == kVowel || kind == kSyllable || kind == kBefore;
            case kTail:
                return kind == kVowel || kind == kSyllable || kind == kTail || kind == kClosedSyllable || kind == kBefore;
            case kSyllable:
            case kClosedSyllable: return kind == kLead || kind == kBefore;
            default: return kind == kBefore;
        }
    }

    CodePointTable table_;
};

// Byte-level BPE as GPT-2, RoBERTa and ModernBERT have it: `NFC` or no normalizer, `ByteLevel` and BPE.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "api.h"
#include "byte_level.h"
#include "byte_pairs.h"
#include "composition.h"
#include "pieces.h"
#include "strings.h"
#include "text_model.h"
#include "utf8.h"

class ByteLevelBpe : public TextModel {
   public:
    ByteLevelBpe(const sweet_byte_level_bpe& model, const sweet_strings& vocabulary, const int32_t* ids)
        : composition_(model.composes != 0 ? std::make_unique<Composition>() : nullptr),
          words_(model.splits != 0 ? std::make_unique<ByteLevelWords>() : nullptr),
          adds_space_(model.adds_space != 0),
          whole_(vocabulary.count),
          pairs_(read(model, vocabulary, ids)) {}

    void encode(std::string_view text, bool is_start, std::vector<int32_t>& ids) const override {
        std::string buffer;
        encode_normalized(normalize(text, buffer), is_start, ids);
    }

    void encode_normalized(std::string_view text, bool, std::vector<int32_t>& ids) const override {
        std::string spaced;
        if (adds_space_ && text.front() != ' ') {
            spaced.reserve(text.size() + 1);
            spaced.append(1, ' ').append(text);
            text = spaced;
        }
        const char* const end = text.data() + text.size();
        each_word(text, [&](const char* from, const char* to) {
            const int32_t whole = find(from, to, end);
            if (whole >= 0) {
                ids.push_back(whole);
            } else {
                pairs_.encode(std::string_view(from, static_cast<size_t>(to - from)), ids);
            }
        });
    }

    std::string_view normalize(std::string_view text, std::string& buffer) const override {
        return composition_ == nullptr ? text : composition_->apply(text, buffer);
    }

    void words(std::string_view text, std::vector<int64_t>& ends) const override {
        each_word(text, [&](const char*, const char* to) { ends.push_back(to - text.data()); });
    }

    std::vector<uint32_t> borders() const override {
        std::vector<uint32_t> found = ByteLevelWords::borders();
        if (composition_ != nullptr) {
            const std::vector<uint32_t> more = composition_->borders();
            found.insert(found.end(), more.begin(), more.end());
            sort_characters(found);
        }
        return found;
    }

   private:
    template <class Use>
    void each_word(std::string_view text, Use use) const {
        if (words_ != nullptr) return words_->each(text, use);
        const char *at = text.data(), *const end = at + text.size();
        while (at < end) decode(at, end);  // checks that it is UTF-8, which not all bytes are
        if (!text.empty()) use(text.data(), end);
    }

    // Returns the id of a word that is one token, or -1; `end`: of the memory that can be read.
    int32_t find(const char* from, const char* to, const char* end) const {
        const int64_t size = to - from;
        if (end - to >= kStringPadding) return whole_.find(from, size);
        if (size > whole_.longest()) return -1;
        char padded[kMaxPieceBytes + kStringPadding];
        std::copy(from, to, padded);
        std::fill(padded + size, padded + size + kStringPadding, '\0');
        return whole_.find(padded, size);
    }

    // Ids of the pieces of a vocabulary by their bytes.
    class Vocabulary {
       public:
        explicit Vocabulary(int64_t count) : pieces_(count) {}

        // `piece`: followed by `kStringPadding` bytes, as that of `find`.
        void add(const std::string& piece, int64_t size, int32_t id) {
            if (size <= kMaxPieceBytes) {
                pieces_.add(piece.data(), size, id);
            } else {
                long_[piece] = id;
            }
        }

        int32_t find(const std::string& piece, int64_t size) const {
            if (size <= kMaxPieceBytes) return pieces_.find(piece.data(), size);
            const auto found = long_.find(piece);
            return found == long_.end() ? -1 : found->second;
        }

       private:
        Pieces pieces_;
        std::unordered_map<std::string, int32_t> long_;
    };

    // Sets `piece` to the bytes of a piece of the vocabulary, and `kStringPadding` more; returns their number without these,
    // 0 for one that no text has.
    static int64_t read_piece(const char* text, int64_t size, std::string& piece) {
        if (!piece_bytes({text, static_cast<size_t>(size)}, piece)) piece.clear();
        const auto count = static_cast<int64_t>(piece.size());
        piece.append(kStringPadding, '\0');
        return count;
    }

    // Returns the merges, and adds to `whole_` the words that are one token.
    BytePairs read(const sweet_byte_level_bpe& model, const sweet_strings& vocabulary, const int32_t* ids) {
        Vocabulary all(vocabulary.count);
        std::array<int32_t, 256> bytes;
        bytes.fill(-1);
        std::string piece;
        each_string(vocabulary.bytes, vocabulary, [&](int64_t place, const char* text, int64_t size) {
            const int64_t count = read_piece(text, size, piece);
            if (count > 0) all.add(piece, count, ids[place]);
            if (count == 1) bytes[static_cast<unsigned char>(piece[0])] = ids[place];
        });
        for (size_t byte = 0; byte < bytes.size(); ++byte)
            if (bytes[byte] < 0 && byte != 0xC0 && byte != 0xC1 && byte < 0xF5) throw std::invalid_argument("bytes");
        BytePairs pairs(bytes, model.merges.count / 2);
        std::string first;
        int64_t first_size = 0;
        each_string(model.merges.bytes, model.merges, [&](int64_t place, const char* text, int64_t size) {
            if (place % 2 == 0) {
                first_size = read_piece(text, size, first);
                return;
            }
            const int64_t second_size = read_piece(text, size, piece);
            if (first_size == 0 || second_size == 0) return;
            const int32_t left = all.find(first, first_size), right = all.find(piece, second_size);
            first.replace(static_cast<size_t>(first_size), kStringPadding, piece);
            const int32_t merged = all.find(first, first_size + second_size);
            if (left < 0 || right < 0 || merged < 0) throw std::invalid_argument("merge");
            pairs.add(left, right, merged);
        });
        std::vector<int32_t> found;
        each_string(vocabulary.bytes, vocabulary, [&](int64_t place, const char* text, int64_t size) {
            const int64_t count = read_piece(text, size, piece);
            if (count == 0 || (model.ignores_merges == 0 && count > kMaxPieceBytes)) return;
            if (model.ignores_merges == 0) {
                found.clear();
                pairs.encode({piece.data(), static_cast<size_t>(count)}, found);
                if (found.size() != 1 || found[0] != ids[place]) return;
            }
            whole_.add(piece.data(), count, ids[place]);
        });
        return pairs;
    }

    std::unique_ptr<const Composition> composition_;
    std::unique_ptr<const ByteLevelWords> words_;
    bool adds_space_;
    Pieces whole_;
    BytePairs pairs_;
};

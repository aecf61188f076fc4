// WordPiece behind `BertNormalizer` and `BertPreTokenizer`.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "api.h"
#include "characters.h"
#include "pieces.h"
#include "strings.h"
#include "text_model.h"

constexpr int32_t kMaxWordCharacters = 1000;

class WordPieces : public TextModel {
   public:
    // `has_normalized_parts`: `encode_normalized` will be called.
    WordPieces(const sweet_wordpiece& model, const sweet_strings& vocabulary, const int32_t* ids, bool has_normalized_parts)
        : characters_({true, model.spaced_ideographs != 0, model.strip_accents != 0, model.lowercase != 0}),
          pieces_(vocabulary.count),
          continuations_(vocabulary.count),
          unknown_(model.unknown_id),
          max_characters_(model.max_word_characters) {
        if (max_characters_ < 1 || max_characters_ > kMaxWordCharacters) throw std::invalid_argument("word length");
        const std::string prefix = strings(model.prefix).at(0);
        // A copy, since looking up a string reads up to `kStringPadding` bytes behind it.
        const std::string pieces = std::string(vocabulary.bytes, size_of(vocabulary)) + std::string(kStringPadding, '\0');
        each_string(pieces.data(), vocabulary,
                    [&](int64_t place, const char* piece, int64_t size) { add_piece(piece, size, prefix, ids[place]); });
        if (has_normalized_parts) as_is_ = std::make_unique<Characters>(NormalizerOptions{});
    }

    void encode(std::string_view text, bool, std::vector<int32_t>& ids) const override { scan(characters_, text, ids); }

    void encode_normalized(std::string_view text, bool, std::vector<int32_t>& ids) const override {
        scan(*as_is_, text, ids);
    }

    std::string_view normalize(std::string_view text, std::string& form) const override {
        form.clear();
        const char *at = text.data(), *const end = at + text.size();
        while (at < end) {
            const uint32_t code = decode(at, end);
            const bool is_spaced = characters_.is_spaced(code);
            if (is_spaced) form.push_back(' ');
            const auto append = [&](const Character& each) { form.append(each.bytes, static_cast<size_t>(each.size)); };
            if (!characters_.normalize(code, append)) throw UnsupportedText();
            if (is_spaced) form.push_back(' ');
        }
        return form;
    }

    std::vector<uint32_t> borders() const override { return characters_.borders(); }

   private:
    void add_piece(const char* piece, int64_t size, const std::string& prefix, int32_t id) {
        const auto shared = static_cast<int64_t>(prefix.size());
        if (size > 0) pieces_.add(piece, size, id);
        if (size > shared && std::memcmp(piece, prefix.data(), prefix.size()) == 0)
            continuations_.add(piece + shared, size - shared, id);
    }

    // The word that is being read.
    struct Word {
        char bytes[4 * kMaxWordCharacters + kStringPadding];
        int64_t size = 0;
        int32_t characters = 0;
    };

    // Appends the ids of the words of a text.
    void scan(const Characters& characters, std::string_view given, std::vector<int32_t>& ids) const {
        const char *text = given.data(), *const end = text + given.size();
        Word word;
        const auto use = [&](const Character& each) {
            switch (each.kind) {
                case Kind::kSpace: finish(word, ids); return;
                case Kind::kAlone:
                    finish(word, ids);
                    append(word, each.bytes, each.size);
                    finish(word, ids);
                    return;
                default: append(word, each.bytes, each.size);
            }
        };
        while (text < end) {
            const auto byte = static_cast<unsigned char>(*text);
            if (byte >= 0x80) {
                if (!characters.normalize(decode(text, end), use)) throw UnsupportedText();
                continue;
            }
            ++text;
            const Kind kind = characters.ascii_kind[byte];
            if (kind == Kind::kLetter) {
                append(word, &characters.ascii[byte], 1);
            } else if (kind != Kind::kRemoved) {
                use({kind, 1, {characters.ascii[byte]}});
            }
        }
        finish(word, ids);
    }

    void append(Word& word, const char* bytes, int size) const {
        if (++word.characters > max_characters_) {
            word.characters = max_characters_ + 1;
            return;
        }
        for (int i = 0; i < size; ++i) word.bytes[word.size + i] = bytes[i];
        word.size += size;
    }

    // Appends the ids of a word, and makes it empty.
    void finish(Word& word, std::vector<int32_t>& ids) const {
        if (word.characters == 0) return;
        if (word.characters > max_characters_) {
            ids.push_back(unknown_);
        } else if (const int32_t whole = pieces_.find(word.bytes, word.size); whole >= 0) {
            ids.push_back(whole);
        } else {
            split_word(word, ids);
        }
        word.characters = 0;
        word.size = 0;
    }

    // Longest match first; a word with a part outside the vocabulary is unknown as a whole.
    void split_word(const Word& word, std::vector<int32_t>& ids) const {
        const size_t before = ids.size();
        for (int64_t start = 0; start < word.size;) {
            const Pieces& pieces = start == 0 ? pieces_ : continuations_;
            int64_t stop = start == 0 ? word.size - 1 : word.size;
            if (stop - start > pieces.longest()) stop = start + pieces.longest();
            int32_t id = -1;
            for (; stop > start; --stop) {
                if (stop < word.size && is_continuation(word.bytes[stop])) continue;
                id = pieces.find(word.bytes + start, stop - start);
                if (id >= 0) break;
            }
            if (id < 0) {
                ids.resize(before);
                ids.push_back(unknown_);
                return;
            }
            ids.push_back(id);
            start = stop;
        }
    }

    Characters characters_;
    std::unique_ptr<Characters> as_is_;  // of texts that are normalized already
    Pieces pieces_, continuations_;
    int32_t unknown_, max_characters_;
};

// WordPiece: texts to token ids.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "added_tokens.h"
#include "api.h"
#include "characters.h"
#include "pieces.h"

constexpr int32_t kMaxWordCharacters = 1000;

// A text that this tokenizer leaves to another one.
struct UnsupportedText {};

class WordPieces {
   public:
    explicit WordPieces(const sweet_wordpiece& description)
        : characters_({true, description.spaced_ideographs != 0, description.strip_accents != 0, description.lowercase != 0}),
          pieces_(description.pieces.count),
          continuations_(description.pieces.count),
          unknown_(description.unknown_id),
          max_characters_(description.max_word_characters) {
        if (max_characters_ < 1 || max_characters_ > kMaxWordCharacters) throw std::invalid_argument("word length");
        const std::string prefix = strings(description.prefix).at(0);
        // A copy, since looking up a string reads up to `kStringPadding` bytes behind it.
        const std::string pieces = std::string(description.pieces.bytes, size_of(description.pieces)) + std::string(kStringPadding, '\0');
        each_string(pieces.data(), description.pieces, [&](int64_t place, const char* piece, int64_t size) {
            add_piece(piece, size, prefix, description.ids[place]);
        });
        const std::vector<std::string> added = strings(description.added);
        for (size_t i = 0; i < added.size(); ++i) add_token(added[i], description.added_ids[i], description.added_flags[i]);
        raw_.finish();
        normalized_.finish();
        if (!normalized_.empty()) as_is_ = std::make_unique<Characters>(NormalizerOptions{});
    }

    // Appends the ids of a text to `ids`.
    void encode(const char* text, const char* end, std::vector<int32_t>& ids) const {
        split(raw_, text, end, ids, [&](const char* from, const char* to) {
            if (normalized_.empty()) return scan(characters_, from, to, ids);
            std::string form;
            normalize(from, to, form);
            split(normalized_, form.data(), form.data() + form.size(), ids,
                  [&](const char* first, const char* last) { scan(*as_is_, first, last, ids); });
        });
    }

    // Appends the normal form of a text to `form`.
    void normalize(const char* text, const char* end, std::string& form) const {
        while (text < end) {
            const uint32_t code = decode(text, end);
            const bool is_spaced = characters_.is_spaced(code);
            if (is_spaced) form.push_back(' ');
            const auto append = [&](const Character& each) { form.append(each.bytes, static_cast<size_t>(each.size)); };
            if (!characters_.normalize(code, append)) throw UnsupportedText();
            if (is_spaced) form.push_back(' ');
        }
    }

    const Characters& characters() const { return characters_; }

   private:
    static size_t size_of(const sweet_strings& given) {
        if (given.size < 0 || given.count < 0 || (given.size > 0 && given.bytes[given.size - 1] != '\0'))
            throw std::invalid_argument("strings");
        return static_cast<size_t>(given.size);
    }

    // Calls `use` with the index, the start and the size of each string.
    template <class Use>
    static void each_string(const char* bytes, const sweet_strings& given, Use use) {
        const char* const end = bytes + size_of(given);
        int64_t place = 0;
        for (; bytes < end; ++place) {
            const auto* stop = static_cast<const char*>(std::memchr(bytes, 0, static_cast<size_t>(end - bytes)));
            if (place == given.count) throw std::invalid_argument("strings");
            use(place, bytes, stop - bytes);
            bytes = stop + 1;
        }
        if (place != given.count) throw std::invalid_argument("strings");
    }

    static std::vector<std::string> strings(const sweet_strings& given) {
        std::vector<std::string> found;
        each_string(given.bytes, given, [&](int64_t, const char* bytes, int64_t size) {
            found.emplace_back(bytes, static_cast<size_t>(size));
        });
        return found;
    }

    void add_piece(const char* piece, int64_t size, const std::string& prefix, int32_t id) {
        const auto shared = static_cast<int64_t>(prefix.size());
        if (size > 0) pieces_.add(piece, size, id);
        if (size > shared && std::memcmp(piece, prefix.data(), prefix.size()) == 0)
            continuations_.add(piece + shared, size - shared, id);
    }

    void add_token(std::string content, int32_t id, int32_t flags) {
        const bool is_normalized = (flags & SWEET_NORMALIZED) != 0;
        if (is_normalized) {
            std::string form;
            normalize(content.data(), content.data() + content.size(), form);
            content = std::move(form);
        }
        if (content.empty()) throw std::invalid_argument("added token");
        (is_normalized ? normalized_ : raw_)
            .add({std::move(content), id, (flags & SWEET_IS_TEXT) != 0, (flags & SWEET_UNSUPPORTED) != 0});
    }

    // Calls `use` with the parts of a text between added tokens, and appends the ids of these.
    template <class Use>
    static void split(const AddedTokens& tokens, const char* text, const char* end, std::vector<int32_t>& ids, Use use) {
        const char *start = text, *from = text, *at = nullptr;
        while (const AddedToken* token = tokens.find(from, end, at)) {
            if (token->is_unsupported) throw UnsupportedText();
            from = at + token->content.size();
            if (token->is_text) continue;
            if (start < at) use(start, at);
            ids.push_back(token->id);
            start = from;
        }
        if (start < end) use(start, end);
    }

    // The word that is being read.
    struct Word {
        char bytes[4 * kMaxWordCharacters + kStringPadding];
        int64_t size = 0;
        int32_t characters = 0;
    };

    // Appends the ids of the words of a text.
    void scan(const Characters& characters, const char* text, const char* end, std::vector<int32_t>& ids) const {
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
    AddedTokens raw_, normalized_;
    int32_t unknown_, max_characters_;
};

// A tokenizer: added tokens, a model for the text between them, and the templates of rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "added_tokens.h"
#include "api.h"
#include "byte_level_bpe.h"
#include "class_tables.h"
#include "code_points.h"
#include "rows.h"
#include "strings.h"
#include "text_model.h"
#include "unigram.h"
#include "utf8.h"
#include "word_pieces.h"

class TextTokenizer {
   public:
    explicit TextTokenizer(const sweet_tokenizer& description)
        : model_(model_of(description)),
          single_(description.single, description.single_items, false),
          pair_(description.pair, description.pair_items, true) {
        const std::vector<std::string> added = strings(description.added);
        for (size_t i = 0; i < added.size(); ++i) add_token(added[i], description.added_ids[i], description.added_flags[i]);
        raw_.finish();
        normalized_.finish();
    }

    const TextModel& model() const { return *model_; }
    const Template& row(bool is_pair) const { return is_pair ? pair_ : single_; }

    // Appends the ids of a text to `ids`.
    void encode(std::string_view text, std::vector<int32_t>& ids) const {
        const auto append = [&](const AddedToken& token) { ids.push_back(token.id); };
        const auto encode_part = [&](std::string_view part) {
            const bool is_start = part.data() == text.data();
            if (normalized_.empty()) return model_->encode(part, is_start, ids);
            std::string buffer;
            const std::string_view form = model_->normalize(part, buffer);
            const auto encode_form = [&](std::string_view each) {
                model_->encode_normalized(each, is_start && each.data() == form.data(), ids);
            };
            normalized_.split(form, encode_form, append);
        };
        raw_.split(text, encode_part, append);
    }

    // Returns the code points at which the tables can be compared with another implementation.
    std::vector<uint32_t> borders() const {
        std::vector<uint32_t> found = model_->borders();
        if (raw_.has(SWEET_SINGLE_WORD) || normalized_.has(SWEET_SINGLE_WORD)) {
            append_borders(class_tables::kWords, found);
            sort_characters(found);
            found.erase(std::remove_if(found.begin(), found.end(), [&](uint32_t code) { return !reads(code); }), found.end());
        }
        return found;
    }

   private:
    static std::unique_ptr<TextModel> model_of(const sweet_tokenizer& given) {
        if (given.model == nullptr) throw std::invalid_argument("model");
        bool has_normalized_tokens = false;
        for (int64_t i = 0; i < given.added.count; ++i)
            has_normalized_tokens |= (given.added_flags[i] & SWEET_NORMALIZED) != 0;
        switch (given.model_kind) {
            case SWEET_WORDPIECE:
                return std::make_unique<WordPieces>(*static_cast<const sweet_wordpiece*>(given.model), given.pieces, given.ids,
                                                    has_normalized_tokens);
            case SWEET_BYTE_LEVEL_BPE:
                return std::make_unique<ByteLevelBpe>(*static_cast<const sweet_byte_level_bpe*>(given.model), given.pieces,
                                                      given.ids);
            case SWEET_UNIGRAM:
                return std::make_unique<Unigram>(*static_cast<const sweet_unigram*>(given.model), given.pieces, given.ids);
            default: throw std::invalid_argument("model kind");
        }
    }

    // Returns whether texts with a character are not left to another tokenizer.
    bool reads(uint32_t code) const {
        char bytes[4];
        std::string buffer;
        try {
            model_->normalize({bytes, static_cast<size_t>(::encode(code, bytes))}, buffer);
        } catch (const UnsupportedText&) {
            return false;
        }
        return true;
    }

    void add_token(const std::string& content, int32_t id, int32_t flags) {
        const bool is_normalized = (flags & SWEET_NORMALIZED) != 0;
        std::string buffer;
        const std::string_view form = is_normalized ? model_->normalize(content, buffer) : std::string_view(content);
        if (form.empty()) throw std::invalid_argument("added token");
        (is_normalized ? normalized_ : raw_).add({std::string(form), id, flags});
    }

    std::unique_ptr<const TextModel> model_;
    AddedTokens raw_, normalized_;
    Template single_, pair_;
};

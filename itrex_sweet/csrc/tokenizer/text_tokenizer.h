// A tokenizer: added tokens, a model for the text between them, and the templates of rows.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "added_tokens.h"
#include "api.h"
#include "rows.h"
#include "strings.h"
#include "text_model.h"
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
        split(raw_, text, ids, [&](std::string_view part) {
            if (normalized_.empty()) return model_->encode(part, ids);
            std::string buffer;
            split(normalized_, model_->normalize(part, buffer), ids,
                  [&](std::string_view each) { model_->encode_normalized(each, ids); });
        });
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
            default: throw std::invalid_argument("model kind");
        }
    }

    void add_token(const std::string& content, int32_t id, int32_t flags) {
        const bool is_normalized = (flags & SWEET_NORMALIZED) != 0;
        std::string buffer;
        const std::string_view form = is_normalized ? model_->normalize(content, buffer) : std::string_view(content);
        if (form.empty()) throw std::invalid_argument("added token");
        (is_normalized ? normalized_ : raw_)
            .add({std::string(form), id, (flags & SWEET_IS_TEXT) != 0, (flags & SWEET_UNSUPPORTED) != 0});
    }

    // Calls `use` with the parts of a text between added tokens, and appends the ids of these.
    template <class Use>
    static void split(const AddedTokens& tokens, std::string_view text, std::vector<int32_t>& ids, Use use) {
        size_t start = 0, from = 0, at = 0;
        while (const AddedToken* token = tokens.find(text, from, at)) {
            if (token->is_unsupported) throw UnsupportedText();
            from = at + token->content.size();
            if (token->is_text) continue;
            if (start < at) use(text.substr(start, at - start));
            ids.push_back(token->id);
            start = from;
        }
        if (start < text.size()) use(text.substr(start));
    }

    std::unique_ptr<const TextModel> model_;
    AddedTokens raw_, normalized_;
    Template single_, pair_;
};

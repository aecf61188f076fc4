// Rows of one or two texts: truncation, special tokens, and packing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "api.h"

struct TemplateItem {
    int32_t kind, id, type;
};

// Order of special tokens and texts in a row.
class Template {
   public:
    Template(const int32_t* items, int32_t count, bool is_pair) {
        int texts[3] = {};
        for (int32_t i = 0; i < count; ++i) {
            const TemplateItem item{items[3 * i], items[3 * i + 1], items[3 * i + 2]};
            if (item.kind < SWEET_SPECIAL_TOKEN || item.kind > SWEET_SECOND_TEXT) throw std::invalid_argument("template");
            ++texts[item.kind];
            items_.push_back(item);
        }
        if (texts[SWEET_FIRST_TEXT] != 1 || texts[SWEET_SECOND_TEXT] != (is_pair ? 1 : 0))
            throw std::invalid_argument("template");
        special_tokens_ = texts[SWEET_SPECIAL_TOKEN];
    }

    const std::vector<TemplateItem>& items() const { return items_; }
    int64_t special_tokens() const { return special_tokens_; }

   private:
    std::vector<TemplateItem> items_;
    int64_t special_tokens_ = 0;
};

// Returns the tokens that are left of two texts under `truncation="longest_first"`.
inline std::pair<int64_t, int64_t> longest_first(int64_t first, int64_t second, int64_t length) {
    if (first + second <= length) return {first, second};
    if (second == 0) return {length, 0};
    int64_t shorter = std::min(first, second);
    int64_t longer = std::max(shorter, length - shorter);
    if (shorter + longer > length) {
        shorter = length / 2;
        longer = shorter + length % 2;
    }
    return first <= second ? std::pair{shorter, longer} : std::pair{longer, shorter};
}

// Packed rows.
struct Rows {
    std::vector<int32_t> ids, types;
    std::vector<int64_t> starts{0}, lengths;
    int64_t cut = 0;

    // Appends a row of one text, or two; `limit` 0: none.
    void add(const Template& order, const std::vector<int32_t>& first, const std::vector<int32_t>& second, int64_t limit,
             bool from_left) {
        const auto sizes = std::pair{static_cast<int64_t>(first.size()), static_cast<int64_t>(second.size())};
        const int64_t length = sizes.first + sizes.second + order.special_tokens();
        auto kept = sizes;
        if (limit > 0 && length > limit) {
            kept = longest_first(sizes.first, sizes.second, std::max<int64_t>(0, limit - order.special_tokens()));
            ++cut;
        }
        for (const TemplateItem& item : order.items()) {
            if (item.kind == SWEET_SPECIAL_TOKEN) {
                ids.push_back(item.id);
            } else {
                const bool is_first = item.kind == SWEET_FIRST_TEXT;
                const std::vector<int32_t>& text = is_first ? first : second;
                const int64_t count = is_first ? kept.first : kept.second;
                const auto from = from_left ? text.end() - count : text.begin();
                ids.insert(ids.end(), from, from + count);
            }
            types.resize(ids.size(), item.type);
        }
        starts.push_back(static_cast<int64_t>(ids.size()));
        lengths.push_back(length);
    }

    // Writes the values that `sweet_tokenizer_encode` documents; returns their number. Writes none if that is above
    // `capacity`.
    int64_t write(int64_t padding_id, int64_t* output, int64_t capacity) const {
        const auto is_padding = [padding_id](int32_t id) { return id == padding_id; };
        const bool has_types = std::any_of(types.begin(), types.end(), [](int32_t type) { return type != 0; });
        const bool has_positions = std::any_of(ids.begin(), ids.end(), is_padding);
        const size_t arrays = 1 + static_cast<size_t>(has_types) + static_cast<size_t>(has_positions);
        const auto values = static_cast<int64_t>(arrays * ids.size() + starts.size() + lengths.size() + 1);
        if (values > capacity) return values;
        output = std::copy(ids.begin(), ids.end(), output);
        output = std::copy(starts.begin(), starts.end(), output);
        output = std::copy(lengths.begin(), lengths.end(), output);
        *output++ = 4 * cut + (has_types ? SWEET_HAS_TYPES : 0) + (has_positions ? SWEET_HAS_POSITIONS : 0);
        if (has_types) output = std::copy(types.begin(), types.end(), output);
        if (!has_positions) return values;
        for (size_t row = 0; row < lengths.size(); ++row) {
            int64_t position = 0;
            for (int64_t token = starts[row]; token < starts[row + 1]; ++token)
                *output++ = is_padding(ids[static_cast<size_t>(token)]) ? -1 : position++;
        }
        return values;
    }
};

// Added tokens, which are found in a text before it is split into words.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

struct AddedToken {
    std::string content;
    int32_t id;
    bool is_text, is_unsupported;
};

// Finds the leftmost and there the longest token.
class AddedTokens {
   public:
    void add(AddedToken token) { tokens_.push_back(std::move(token)); }

    // Prepares the search, after the last `add`.
    void finish() {
        std::stable_sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) {
            return a.content.size() > b.content.size();
        });
        is_first_.fill(false);
        for (const AddedToken& token : tokens_) is_first_[static_cast<unsigned char>(token.content[0])] = true;
        const auto firsts = std::count(is_first_.begin(), is_first_.end(), true);
        only_first_ = firsts == 1 ? static_cast<int>(std::find(is_first_.begin(), is_first_.end(), true) - is_first_.begin()) : -1;
    }

    bool empty() const { return tokens_.empty(); }

    // Returns the first token at or after `from` and sets `at` to its start; null if there is none.
    const AddedToken* find(std::string_view text, size_t from, size_t& at) const {
        if (tokens_.empty()) return nullptr;
        const char *const start = text.data(), *const end = start + text.size();
        for (const char* place = start + from; place < end; ++place) {
            if (only_first_ >= 0) {
                place = static_cast<const char*>(std::memchr(place, only_first_, static_cast<size_t>(end - place)));
                if (place == nullptr) return nullptr;
            } else if (!is_first_[static_cast<unsigned char>(*place)]) {
                continue;
            }
            for (const AddedToken& token : tokens_) {
                const size_t size = token.content.size();
                if (size > static_cast<size_t>(end - place) || std::memcmp(token.content.data(), place, size) != 0) continue;
                at = static_cast<size_t>(place - start);
                return &token;
            }
        }
        return nullptr;
    }

   private:
    std::vector<AddedToken> tokens_;
    std::array<bool, 256> is_first_{};
    int only_first_ = -1;
};

// The functions of `api.h`.
#include "api.h"

#include <algorithm>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "rows.h"
#include "text_tokenizer.h"
#include "utf8.h"

namespace {

constexpr int32_t kInterface = 3;
constexpr int64_t kMaxBytes = int64_t{1} << 31;

// Returns the end of the text of `characters` code points at `text`.
const char* end_of_text(const char* text, const char* end, int64_t characters, bool is_ascii) {
    if (characters < 0 || characters > end - text) throw InvalidText();
    if (is_ascii) return text + characters;
    for (; characters > 0; --characters) {
        if (text == end) throw InvalidText();
        ++text;
        while (text < end && is_continuation(*text)) ++text;
    }
    return text;
}

int64_t encode_rows(const TextTokenizer& tokenizer, const char* text, int64_t size, const int64_t* characters,
                    const uint8_t* is_pair, int64_t rows, int64_t limit, int32_t options, int64_t padding_id, int64_t* output,
                    int64_t capacity) {
    const char* const end = text + size;
    bool is_ascii = true;
    if (characters != nullptr) {
        int64_t parts = rows, sum = 0;
        if (is_pair != nullptr)
            for (int64_t row = 0; row < rows; ++row) parts += is_pair[row] != 0;
        for (int64_t part = 0; part < parts; ++part) {
            if (characters[part] < 0 || characters[part] > size - sum) throw InvalidText();
            sum += characters[part];
        }
        is_ascii = sum == size;
    }
    std::vector<int32_t> first, second;
    Rows packed;
    packed.ids.reserve(static_cast<size_t>(size / 4 + 4 * rows));
    packed.types.reserve(static_cast<size_t>(size / 4 + 4 * rows));
    const auto read = [&](std::vector<int32_t>& ids) {
        ids.clear();
        const char* stop = characters == nullptr ? end : end_of_text(text, end, *characters++, is_ascii);
        tokenizer.encode(std::string_view(text, static_cast<size_t>(stop - text)), ids);
        text = stop;
        return !ids.empty();
    };
    for (int64_t row = 0; row < rows; ++row) {
        const bool has_two = is_pair != nullptr && is_pair[row] != 0;
        bool has_tokens = read(first);
        second.clear();
        if (has_two && !read(second)) has_tokens = false;
        if (!has_tokens && (options & SWEET_ALLOW_EMPTY) == 0) return SWEET_EMPTY_TEXT;
        packed.add(tokenizer.row(has_two), first, second, limit, (options & SWEET_FROM_LEFT) != 0);
    }
    if (text != end) throw InvalidText();
    if (const int64_t values = packed.write(padding_id, output, capacity); values > capacity) {
        if (capacity < 1) return SWEET_INVALID;
        output[0] = values;
        return SWEET_SMALL_OUTPUT;
    }
    return static_cast<int64_t>(packed.ids.size());
}

}  // namespace

SWEET_API int32_t sweet_tokenizer_interface() { return kInterface; }

SWEET_API void* sweet_tokenizer_new(const sweet_tokenizer* description) {
    if (description == nullptr) return nullptr;
    try {
        return new TextTokenizer(*description);
    } catch (...) {
        return nullptr;
    }
}

SWEET_API void sweet_tokenizer_free(void* tokenizer) { delete static_cast<TextTokenizer*>(tokenizer); }

SWEET_API int64_t sweet_tokenizer_encode(const void* tokenizer, const char* text, int64_t size, const int64_t* characters,
                                         const uint8_t* is_pair, int64_t rows, int64_t limit, int32_t options,
                                         int64_t padding_id, int64_t* output, int64_t capacity) {
    const bool is_valid = tokenizer != nullptr && text != nullptr && output != nullptr && size >= 0 && size <= kMaxBytes &&
                          rows >= 0 && limit >= 0 && (characters != nullptr || (rows == 1 && is_pair == nullptr));
    if (!is_valid) return SWEET_INVALID;
    try {
        return encode_rows(*static_cast<const TextTokenizer*>(tokenizer), text, size, characters, is_pair, rows, limit,
                           options, padding_id, output, capacity);
    } catch (const UnsupportedText&) {
        return SWEET_OTHER_TOKENIZER;
    } catch (const std::bad_alloc&) {
        return SWEET_NO_MEMORY;
    } catch (...) {
        return SWEET_INVALID;
    }
}

SWEET_API int64_t sweet_tokenizer_borders(const void* tokenizer, uint32_t* codes, int64_t capacity) {
    if (tokenizer == nullptr || codes == nullptr) return SWEET_INVALID;
    try {
        const std::vector<uint32_t> found = static_cast<const TextTokenizer*>(tokenizer)->borders();
        const int64_t count = std::min(static_cast<int64_t>(found.size()), capacity);
        std::copy(found.begin(), found.begin() + count, codes);
        return count;
    } catch (...) {
        return SWEET_NO_MEMORY;
    }
}

SWEET_API int64_t sweet_tokenizer_normalize(const void* tokenizer, const char* text, int64_t size, char* form,
                                            int64_t capacity) {
    if (tokenizer == nullptr || text == nullptr || form == nullptr || size < 0 || size > kMaxBytes) return SWEET_INVALID;
    try {
        std::string buffer;
        const std::string_view given(text, static_cast<size_t>(size));
        const std::string_view found = static_cast<const TextTokenizer*>(tokenizer)->model().normalize(given, buffer);
        if (static_cast<int64_t>(found.size()) > capacity) return SWEET_INVALID;
        std::copy(found.begin(), found.end(), form);
        return static_cast<int64_t>(found.size());
    } catch (const UnsupportedText&) {
        return SWEET_OTHER_TOKENIZER;
    } catch (...) {
        return SWEET_INVALID;
    }
}

SWEET_API int64_t sweet_tokenizer_words(const void* tokenizer, const char* text, int64_t size, int64_t* ends,
                                        int64_t capacity) {
    if (tokenizer == nullptr || text == nullptr || ends == nullptr || size < 0 || size > kMaxBytes) return SWEET_INVALID;
    try {
        std::vector<int64_t> found;
        static_cast<const TextTokenizer*>(tokenizer)->model().words(std::string_view(text, static_cast<size_t>(size)), found);
        if (static_cast<int64_t>(found.size()) > capacity) return SWEET_INVALID;
        std::copy(found.begin(), found.end(), ends);
        return static_cast<int64_t>(found.size());
    } catch (const UnsupportedText&) {
        return SWEET_OTHER_TOKENIZER;
    } catch (...) {
        return SWEET_INVALID;
    }
}

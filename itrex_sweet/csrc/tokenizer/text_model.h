// The parts of a tokenizer that read a text between added tokens: normalizer, pre-tokenizer and model.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

// A text that this tokenizer leaves to another one.
struct UnsupportedText {};

// Immutable after its creation. A text is UTF-8; the functions throw `InvalidText` if it is not, and `UnsupportedText`.
class TextModel {
   public:
    TextModel() = default;
    TextModel(const TextModel&) = delete;
    TextModel& operator=(const TextModel&) = delete;
    virtual ~TextModel() = default;

    // Appends the ids of a text to `ids`; `is_start`: no added token is before it.
    virtual void encode(std::string_view text, bool is_start, std::vector<int32_t>& ids) const = 0;

    // Appends the ids of a part of a text that `normalize` returned.
    virtual void encode_normalized(std::string_view text, bool is_start, std::vector<int32_t>& ids) const = 0;

    // Returns the normal form of a text: the text or a part of it, or `buffer` with the form.
    virtual std::string_view normalize(std::string_view text, std::string& buffer) const = 0;

    // Appends the end of each word of a text that begins with a space and is normalized, in bytes.
    virtual void words(std::string_view, std::vector<int64_t>&) const { throw UnsupportedText(); }

    // Returns code points at which the tables can be compared with another implementation.
    virtual std::vector<uint32_t> borders() const = 0;
};

// The normalizers of SentencePiece tokenizers, one after another.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "api.h"
#include "character_map.h"
#include "class_tables.h"
#include "code_points.h"
#include "compatibility_tables.h"
#include "composition.h"
#include "spaces.h"
#include "unicode_tables.h"
#include "utf8.h"

class Normalizers {
   public:
    Normalizers(const sweet_normalizer* steps, int32_t count) {
        for (int32_t i = 0; i < count; ++i) steps_.push_back(made(steps[i]));
    }

    // Returns the normal form of a text: the text or a part of it, or `form` with it.
    std::string_view apply(std::string_view text, std::string& form) const {
        std::string other;
        for (const auto& step : steps_) {
            if (text.empty()) break;
            text = step->apply(text, other);
            if (text.data() != other.data()) continue;
            const size_t size = text.size();
            form.swap(other);
            text = std::string_view(form).substr(0, size);
        }
        return text;
    }

    std::vector<uint32_t> borders() const {
        std::vector<uint32_t> found;
        append_borders(class_tables::kSpaces, found);
        for (const auto& step : steps_) {
            const std::vector<uint32_t> more = step->borders();
            found.insert(found.end(), more.begin(), more.end());
        }
        sort_characters(found);
        const auto is_left = [&](uint32_t code) {
            return std::any_of(steps_.begin(), steps_.end(), [&](const auto& step) { return !step->reads(code); });
        };
        found.erase(std::remove_if(found.begin(), found.end(), is_left), found.end());
        return found;
    }

   private:
    class Step {
       public:
        virtual ~Step() = default;
        // Returns the text or a part of it, or `form` with another text.
        virtual std::string_view apply(std::string_view text, std::string& form) const = 0;
        virtual std::vector<uint32_t> borders() const { return {}; }
        // Returns whether texts with a character are not left to another tokenizer.
        virtual bool reads(uint32_t) const { return true; }
    };

    class Mapped : public Step {
       public:
        explicit Mapped(std::string_view blob) : map_(blob) {}
        std::string_view apply(std::string_view text, std::string& form) const override { return map_.apply(text, form); }
        std::vector<uint32_t> borders() const override { return map_.borders(); }
        bool reads(uint32_t code) const override { return map_.reads(code); }

       private:
        CharacterMap map_;
    };

    class Composed : public Step {
       public:
        explicit Composed(int32_t form) : composition_((form & SWEET_COMPATIBLE) != 0, (form & SWEET_COMPOSED) != 0) {}
        std::string_view apply(std::string_view text, std::string& form) const override {
            return composition_.apply(text, form);
        }
        std::vector<uint32_t> borders() const override { return composition_.borders(); }

       private:
        Composition composition_;
    };

    // `Replace` of a string.
    class Replaced : public Step {
       public:
        Replaced(std::string_view pattern, std::string_view content) : pattern_(pattern), content_(content) {
            if (pattern.empty()) throw std::invalid_argument("pattern");
        }
        std::string_view apply(std::string_view text, std::string& form) const override {
            size_t found = text.find(pattern_), copied = 0;
            if (found == std::string_view::npos) return text;
            form.clear();
            for (; found != std::string_view::npos; found = text.find(pattern_, copied)) {
                form.append(text, copied, found - copied).append(content_);
                copied = found + pattern_.size();
            }
            return form.append(text, copied, text.size() - copied);
        }

       private:
        std::string pattern_, content_;
    };

    // `Replace` of the regular expression ` {2,}`.
    class ReplacedSpaces : public Step {
       public:
        explicit ReplacedSpaces(std::string_view content) : content_(content) {}
        std::string_view apply(std::string_view text, std::string& form) const override {
            size_t found = text.find("  "), copied = 0;
            if (found == std::string_view::npos) return text;
            form.clear();
            for (; found != std::string_view::npos; found = text.find("  ", copied)) {
                form.append(text, copied, found - copied).append(content_);
                copied = std::min(text.find_first_not_of(' ', found), text.size());
            }
            return form.append(text, copied, text.size() - copied);
        }

       private:
        std::string content_;
    };

    // `Replace` of the regular expression `\s{2,}|[\n\r\t]`.
    class ReplacedWhitespace : public Step {
       public:
        explicit ReplacedWhitespace(std::string_view content) : content_(content) {}
        std::string_view apply(std::string_view text, std::string& form) const override {
            const char *at = text.data(), *const end = at + text.size(), *copied = at;
            form.clear();
            for (spaces_.skip(at, end); at < end; spaces_.skip(at, end)) {
                const char* const start = at;
                int64_t count = 0;
                while (at < end && spaces_.take(at, end)) ++count;
                if (count == 1 && *start != '\n' && *start != '\r' && *start != '\t') continue;
                form.append(copied, static_cast<size_t>(start - copied)).append(content_);
                copied = at;
            }
            if (copied == text.data()) return text;
            return form.append(copied, static_cast<size_t>(end - copied));
        }

       private:
        Spaces spaces_;
        std::string content_;
    };

    class Stripped : public Step {
       public:
        explicit Stripped(int32_t sides) : sides_(sides) {}
        std::string_view apply(std::string_view text, std::string&) const override {
            if ((sides_ & SWEET_LEFT) != 0) text = spaces_.without_leading(text);
            if ((sides_ & SWEET_RIGHT) != 0) text = spaces_.without_trailing(text);
            return text;
        }

       private:
        Spaces spaces_;
        int32_t sides_;
    };

    class WithoutAccents : public Step {
       public:
        WithoutAccents() { accents_.set(compatibility_tables::kAccents, 1); }
        std::string_view apply(std::string_view text, std::string& form) const override {
            return changed(
                text, form, [&](uint32_t code) { return code >= 0x80 && accents_.at(code) != 0; }, [](uint32_t) {});
        }
        std::vector<uint32_t> borders() const override {
            std::vector<uint32_t> found;
            append_borders(compatibility_tables::kAccents, found);
            return found;
        }

       private:
        CodePointTable accents_;
    };

    class Lowered : public Step {
       public:
        Lowered() {
            using unicode_tables::kLowered;
            for (const uint32_t* row = std::begin(kLowered); row != std::end(kLowered); row += 2 + row[1])
                rows_[row[0]] = row;
            uncertain_.set(unicode_tables::kVersionDependent, 1);
        }
        // Throws `UnsupportedText` where releases of the library differ.
        std::string_view apply(std::string_view text, std::string& form) const override {
            const auto is_upper = [&](uint32_t code) {
                if (code < 0x80) return code >= 'A' && code <= 'Z';
                if (uncertain_.at(code) != 0) throw UnsupportedText();
                return rows_.count(code) != 0;
            };
            return changed(text, form, is_upper, [&](uint32_t code) {
                const uint32_t* const row = rows_.at(code);
                char bytes[4];
                for (uint32_t i = 0; i < row[1]; ++i) form.append(bytes, static_cast<size_t>(encode(row[2 + i], bytes)));
            });
        }
        std::vector<uint32_t> borders() const override {
            std::vector<uint32_t> found;
            for (const auto& [code, row] : rows_)
                if (code % 4 == 0) found.push_back(code);
            return found;
        }
        bool reads(uint32_t code) const override { return uncertain_.at(code) == 0; }

       private:
        std::unordered_map<uint32_t, const uint32_t*> rows_;
        CodePointTable uncertain_;
    };

    class Prepended : public Step {
       public:
        explicit Prepended(std::string_view content) : content_(content) {}
        std::string_view apply(std::string_view text, std::string& form) const override {
            return form.assign(content_).append(text);
        }

       private:
        std::string content_;
    };

    // Returns the text, or `form` with what `append` writes there instead of each character that `is_changed`.
    template <class IsChanged, class Append>
    static std::string_view changed(std::string_view text, std::string& form, IsChanged is_changed, Append append) {
        const char *at = text.data(), *const end = at + text.size(), *copied = at;
        form.clear();
        while (at < end) {
            const char* const start = at;
            const uint32_t code = decode(at, end);
            if (!is_changed(code)) continue;
            form.append(copied, static_cast<size_t>(start - copied));
            append(code);
            copied = at;
        }
        if (copied == text.data()) return text;
        return form.append(copied, static_cast<size_t>(end - copied));
    }

    static std::unique_ptr<const Step> made(const sweet_normalizer& given) {
        if (given.first_size < 0 || given.second_size < 0) throw std::invalid_argument("normalizer");
        const std::string_view first(given.first, static_cast<size_t>(given.first_size));
        const std::string_view second(given.second, static_cast<size_t>(given.second_size));
        switch (given.kind) {
            case SWEET_CHARACTER_MAP: return std::make_unique<Mapped>(first);
            case SWEET_UNICODE_FORM: return std::make_unique<Composed>(given.flags);
            case SWEET_REPLACE: return std::make_unique<Replaced>(first, second);
            case SWEET_REPLACE_SPACES: return std::make_unique<ReplacedSpaces>(second);
            case SWEET_REPLACE_WHITESPACE: return std::make_unique<ReplacedWhitespace>(second);
            case SWEET_STRIP: return std::make_unique<Stripped>(given.flags);
            case SWEET_STRIP_ACCENTS: return std::make_unique<WithoutAccents>();
            case SWEET_LOWERCASE: return std::make_unique<Lowered>();
            case SWEET_PREPEND: return std::make_unique<Prepended>(second);
            default: throw std::invalid_argument("normalizer");
        }
    }

    std::vector<std::unique_ptr<const Step>> steps_;
};

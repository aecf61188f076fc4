// Unigram as SentencePiece has it: normalizers, `Metaspace`, and the pieces of the greatest score.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api.h"
#include "normalizers.h"
#include "piece_trie.h"
#include "spaces.h"
#include "strings.h"
#include "text_model.h"
#include "utf8.h"

class Unigram : public TextModel {
   public:
    Unigram(const sweet_unigram& model, const sweet_strings& vocabulary, const int32_t* ids)
        : normalizers_(model.normalizers, model.normalizer_count),
          pieces_(sorted(vocabulary, ids)),
          unknown_score_(model.unknown_score),
          unknown_id_(model.unknown_id),
          prepends_(model.prepends),
          splits_whitespace_(model.splits_whitespace != 0),
          splits_(model.splits != 0),
          space_(strings(model.replacement).at(0)) {
        // Of words, the library would have to tell which one is at the start of the original text.
        const bool is_unclear = splits_whitespace_ && prepends_ == SWEET_AT_START;
        if (space_.empty() || model.scores == nullptr || is_unclear) throw std::invalid_argument("unigram");
        for (int64_t i = 0; i < vocabulary.count; ++i) {
            if (ids[i] < 0) throw std::invalid_argument("id");
            const auto id = static_cast<size_t>(ids[i]);
            if (id >= scores_.size()) scores_.resize(id + 1);
            scores_[id] = model.scores[i];
        }
        bytes_.fill(-1);
        constexpr char kDigits[] = "0123456789ABCDEF";
        for (size_t byte = 0; model.byte_fallback != 0 && byte < bytes_.size(); ++byte)
            bytes_[byte] = pieces_.find(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">");
        if (splits_) find_whole(vocabulary, ids);
    }

    void encode(std::string_view text, bool is_start, std::vector<int32_t>& ids) const override {
        std::string form;
        encode_normalized(normalizers_.apply(text, form), is_start, ids);
    }

    void encode_normalized(std::string_view text, bool is_start, std::vector<int32_t>& ids) const override {
        Scratch scratch;
        if (!splits_whitespace_) return encode_part(text, is_start, scratch, ids);
        const char *at = text.data(), *const end = at + text.size();
        while (at < end) {
            const char* const start = at;
            spaces_.skip(at, end);
            if (start < at) encode_part({start, static_cast<size_t>(at - start)}, false, scratch, ids);
            if (at < end) spaces_.take(at, end);
        }
    }

    std::string_view normalize(std::string_view text, std::string& form) const override {
        return normalizers_.apply(text, form);
    }

    std::vector<uint32_t> borders() const override { return normalizers_.borders(); }

   private:
    // The best way to the end of a piece.
    struct Step {
        double score;
        int32_t size = 0;  // of the piece; 0: no way was found
        int32_t id;
    };

    // Memory that words share.
    struct Scratch {
        std::string spaced;
        std::vector<Step> steps;
    };

    // Finds the words that are one token.
    void find_whole(const sweet_strings& vocabulary, const int32_t* ids) {
        std::vector<bool> is_whole(scores_.size());
        Scratch scratch;
        std::vector<int32_t> found;
        each_string(vocabulary.bytes, vocabulary, [&](int64_t place, const char* text, int64_t size) {
            const std::string_view piece(text, static_cast<size_t>(size));
            if (piece.empty() || (prepends_ == SWEET_ALWAYS && piece.compare(0, space_.size(), space_) != 0)) return;
            found.clear();
            try {
                encode_word(text, text + size, scratch.steps, found);
            } catch (const UnsupportedText&) {
                return;
            }
            is_whole[static_cast<size_t>(ids[place])] = found.size() == 1 && found[0] == ids[place];
        });
        is_whole_ = std::move(is_whole);
    }

    static std::vector<Piece> sorted(const sweet_strings& vocabulary, const int32_t* ids) {
        std::vector<Piece> pieces;
        each_string(vocabulary.bytes, vocabulary, [&](int64_t place, const char* text, int64_t size) {
            if (size > 0) pieces.push_back({{text, static_cast<size_t>(size)}, ids[place]});
        });
        std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.bytes < b.bytes; });
        return pieces;
    }

    // `Metaspace`: spaces become another character, at which words begin.
    void encode_part(std::string_view text, bool is_start, Scratch& scratch, std::vector<int32_t>& ids) const {
        if (text.empty()) return;
        std::string& spaced = scratch.spaced;
        spaced.clear();
        const bool is_prepended = prepends_ == SWEET_ALWAYS || (prepends_ == SWEET_AT_START && is_start);
        if (is_prepended && text[0] != ' ' && text.compare(0, space_.size(), space_) != 0) spaced.append(space_);
        size_t copied = 0;
        for (size_t at = text.find(' '); at != std::string_view::npos; at = text.find(' ', copied)) {
            spaced.append(text, copied, at - copied).append(space_);
            copied = at + 1;
        }
        spaced.append(text, copied, text.size() - copied);
        for (size_t start = 0; start < spaced.size();) {
            size_t end = splits_ ? spaced.find(space_, start + 1) : std::string::npos;
            if (end == std::string::npos) end = spaced.size();
            encode_word(spaced.data() + start, spaced.data() + end, scratch.steps, ids);
            start = end;
        }
    }

    void encode_word(const char* const word, const char* const end, std::vector<Step>& steps,
                     std::vector<int32_t>& ids) const {
        const auto size = static_cast<size_t>(end - word);
        if (!is_whole_.empty()) {
            const int32_t whole = pieces_.find({word, size});
            if (whole >= 0 && is_whole_[static_cast<size_t>(whole)]) {
                ids.push_back(whole);
                return;
            }
        }
        steps.assign(size + 1, Step{});
        steps[0].score = 0;
        const auto offer = [&](size_t start, int64_t piece, double own, int32_t id) {
            const double score = own + steps[start].score;
            Step& step = steps[start + static_cast<size_t>(piece)];
            // Of equal ways, that whose last piece begins first is kept.
            if (step.size == 0 || score > step.score) step = {score, static_cast<int32_t>(piece), id};
        };
        for (const char* at = word; at < end;) {
            const char* next = at;
            decode(next, end);
            const auto start = static_cast<size_t>(at - word);
            bool is_known = false;
            pieces_.each_prefix(at, end, [&](int64_t piece, int32_t id) {
                is_known |= piece == next - at;
                offer(start, piece, scores_[static_cast<size_t>(id)], id);
            });
            if (!is_known) {
                if (unknown_id_ < 0) throw UnsupportedText();
                offer(start, next - at, unknown_score_, unknown_id_);
            }
            at = next;
        }
        const auto first = static_cast<std::ptrdiff_t>(ids.size());
        const char* unknown_end = nullptr;  // of unknown pieces, which make one
        for (const char* at = end; at > word;) {
            const Step& step = steps[static_cast<size_t>(at - word)];
            if (step.id == unknown_id_) {
                if (unknown_end == nullptr) unknown_end = at;
            } else {
                if (unknown_end != nullptr) append_unknown(at, unknown_end, ids);
                unknown_end = nullptr;
                ids.push_back(step.id);
            }
            at -= step.size;
        }
        if (unknown_end != nullptr) append_unknown(word, unknown_end, ids);
        std::reverse(ids.begin() + first, ids.end());
    }

    // Appends the ids of unknown pieces, the last first.
    void append_unknown(const char* start, const char* end, std::vector<int32_t>& ids) const {
        const std::string_view text(start, static_cast<size_t>(end - start));
        const int32_t whole = pieces_.find(text);
        const auto id_of = [&](char byte) { return bytes_[static_cast<unsigned char>(byte)]; };
        if (whole < 0 && std::all_of(text.begin(), text.end(), [&](char byte) { return id_of(byte) >= 0; })) {
            for (auto byte = text.rbegin(); byte != text.rend(); ++byte) ids.push_back(id_of(*byte));
        } else {
            ids.push_back(whole < 0 ? unknown_id_ : whole);
        }
    }

    Normalizers normalizers_;
    Spaces spaces_;
    PieceTrie pieces_;
    std::vector<double> scores_;  // by id
    std::vector<bool> is_whole_;  // by id: a word that is one token; empty while these are not known
    double unknown_score_;
    int32_t unknown_id_, prepends_;
    bool splits_whitespace_, splits_;
    std::string space_;
    std::array<int32_t, 256> bytes_;
};

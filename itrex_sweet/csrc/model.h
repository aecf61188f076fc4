// A packed model and its three calls: embed, probe, advance.
#pragma once

#include <stdexcept>
#include <string>

#include "layers.h"

struct Head {
    Packed dense, classifier;
    int32_t activation;

    explicit Head(const sweet_head& head) : dense(head.dense), classifier(head.classifier), activation(head.activation) {}
};

struct Embeddings {
    Buffer<float> words, positions, token_types;
    int64_t vocabulary, num_positions, num_token_types, width, position_offset;
    Norm norm;
    Packed before_norm, after_norm;

    explicit Embeddings(const sweet_embeddings& from)
        : vocabulary(from.vocabulary),
          num_positions(from.num_positions),
          num_token_types(from.num_token_types),
          width(from.width),
          position_offset(from.position_offset),
          norm(from.norm),
          before_norm(from.before_norm),
          after_norm(from.after_norm) {
        copy(from.words, vocabulary, words);
        copy(from.positions, num_positions, positions);
        copy(from.token_types, num_token_types, token_types);
    }

    int64_t bytes() const {
        return words.bytes() + positions.bytes() + token_types.bytes() + norm.bytes() + before_norm.bytes() +
               after_norm.bytes();
    }

   private:
    void copy(const float* from, int64_t rows, Buffer<float>& to) const {
        if (from != nullptr) std::copy_n(from, rows * width, to.reserve(rows * width));
    }
};

class sweet_model {
   public:
    sweet_model(const sweet_description& from, int32_t threads)
        : embeddings_(from.embeddings),
          exits_(from.exits, from.exits + from.num_exits),
          heads_count_(from.num_attention_heads),
          activation_(from.activation),
          scale_(1.0f / from.score_scale),
          hidden_(from.hidden),
          pool_(threads),
          together_(threads),
          work_(static_cast<size_t>(threads)) {
        for (int32_t index = 0; index < from.num_layers; ++index) {
            const bool is_probed = std::find(exits_.begin(), exits_.end(), index + 1) != exits_.end();
            layers_.emplace_back(from.layers[index], is_probed, index + 1 < from.num_layers);
        }
        for (int32_t exit = 0; exit < from.num_exits; ++exit) heads_.emplace_back(from.heads[exit]);
        for (Workspace& work : work_) work.attention.resize(static_cast<size_t>(threads));
    }

    int64_t bytes() const {
        int64_t total = embeddings_.bytes();
        for (const Layer& layer : layers_) total += layer.bytes();
        for (const Head& head : heads_) total += head.dense.bytes() + head.classifier.bytes();
        return total;
    }

    int64_t workspace_bytes() const {
        int64_t total = starts_.bytes();
        for (const Workspace& work : work_) total += work.memory();
        return total;
    }

    void embed(int32_t rows, const int64_t* lengths, const int64_t* ids, const int64_t* types, const int64_t* positions,
               float* states) {
        const auto guard = pool_.lock();
        const Texts texts = packed(rows, lengths);
        refuse_foreign(texts.tokens(), ids, types, positions);
        const int last = exits_[0] - 1;
        in_parts(texts, 1, [&](Workspace& work, const Texts& part) { reserve_layers(work, part, 0, last, true); },
                 [&](Workspace& work, const Texts& part, const Team& team) {
                     const int64_t first = part.starts[0];
                     look_up(part.tokens(), ids + first, types + first, positions + first, states + first * hidden_, work,
                             team);
                     run_layers(0, last, states + first * hidden_, part, work, team);
                 });
    }

    void advance(int32_t exit, int32_t rows, const float* const* rows_at, const int64_t* lengths, float* states) {
        const auto guard = pool_.lock();
        if (exit < 0 || exit + 1 >= static_cast<int32_t>(exits_.size())) throw std::invalid_argument("no such exit");
        const Texts texts = packed(rows, lengths);
        const int first_layer = exits_[exit] - 1, last_layer = exits_[exit + 1] - 1;
        in_parts(texts, 1,
                 [&](Workspace& work, const Texts& part) { reserve_layers(work, part, first_layer, last_layer, false); },
                 [&](Workspace& work, const Texts& part, const Team& team) {
                     const auto [first, last] = team.part(part.count);
                     const float* const* from = rows_at + (part.starts - texts.starts);
                     for (int64_t text = first; text < last; ++text) {
                         std::copy_n(from[text], part.lengths[text] * hidden_, states + part.starts[text] * hidden_);
                     }
                     team.meet();
                     run_layers(first_layer, last_layer, states + part.starts[0] * hidden_, part, work, team);
                 });
    }

    void probe(int32_t exit, int32_t rows, const float* const* rows_at, const int64_t* lengths, float* logits) {
        const auto guard = pool_.lock();
        if (exit < 0 || exit >= static_cast<int32_t>(exits_.size())) throw std::invalid_argument("no such exit");
        const Texts texts = packed(rows, lengths);
        const Layer& layer = layers_[static_cast<size_t>(exits_[exit] - 1)];
        const Head& head = heads_[static_cast<size_t>(exit)];
        in_parts(texts, 4, [&](Workspace& work, const Texts& part) { reserve_probe(work, part, layer, head); },
                 [&](Workspace& work, const Texts& part, const Team& team) {
                     const int64_t skipped = part.starts - texts.starts;
                     run_probe(layer, head, rows_at + skipped, part, logits + skipped * head.classifier.out, work, team);
                 });
    }

   private:
    // Where each text starts, if lengths are as they must be.
    Texts packed(int32_t rows, const int64_t* lengths) {
        if (rows < 0) throw std::invalid_argument("a negative number of rows");
        int64_t* starts = starts_.reserve(rows + 1);
        int64_t total = 0;
        for (int32_t row = 0; row < rows; ++row) {
            if (lengths[row] < 1) throw std::invalid_argument("a row without tokens");
            starts[row] = total;
            total += lengths[row];
        }
        return {rows, lengths, starts};
    }

    void refuse_foreign(int64_t tokens, const int64_t* ids, const int64_t* types, const int64_t* positions) const {
        const auto check = [&](const int64_t* values, int64_t offset, int64_t limit, const char* what) {
            for (int64_t token = 0; token < tokens; ++token) {
                const int64_t value = values[token] + offset;
                if (value >= 0 && value < limit) continue;
                throw std::invalid_argument(std::string(what) + " " + std::to_string(values[token]) +
                                            " is not in the table of " + std::to_string(limit));
            }
        };
        check(ids, 0, embeddings_.vocabulary, "token id");
        if (!embeddings_.token_types.empty()) check(types, 0, embeddings_.num_token_types, "token type");
        if (!embeddings_.positions.empty()) check(positions, embeddings_.position_offset, embeddings_.num_positions, "position");
    }

    // Texts cut among the threads, each with a workspace of its own, so that nobody waits for anybody; or, where they
    // are too few, all threads as one team on all of them. Memory is reserved before threads run, where failing is safe.
    template <class Reserve, class Job>
    void in_parts(const Texts& texts, int64_t least_texts, Reserve reserve, Job job) {
        const int threads = pool_.threads();
        if (texts.count == 0) return;
        if (threads == 1 || texts.count < least_texts * threads || texts.tokens() < 16 * threads) {
            reserve(work_[0], texts);
            pool_.run([&](int index) { job(work_[0], texts, Team{index, threads, &together_}); });
            return;
        }
        std::vector<Texts> parts(static_cast<size_t>(threads));
        int64_t text = 0;
        for (int64_t index = 0; index < threads; ++index) {
            const int64_t first = text, goal = texts.tokens() * (index + 1) / threads;
            const int64_t most = texts.count - (threads - 1 - index);  // one at least is left for each of the others
            do {
                ++text;
            } while (text < most && texts.starts[text] + texts.lengths[text] / 2 < goal);
            parts[static_cast<size_t>(index)] = {text - first, texts.lengths + first, texts.starts + first};
            reserve(work_[static_cast<size_t>(index)], parts[static_cast<size_t>(index)]);
        }
        pool_.run([&](int index) {
            Barrier alone(1);
            job(work_[static_cast<size_t>(index)], parts[static_cast<size_t>(index)], Team{0, 1, &alone});
        });
    }

    // ------------------------------------------------------------------------------------------------ embeddings

    void look_up(int64_t tokens, const int64_t* ids, const int64_t* types, const int64_t* positions, float* states,
                 Workspace& work, const Team& team) const {
        const int64_t width = embeddings_.width;
        const bool projected = embeddings_.before_norm.exists() || embeddings_.after_norm.exists();
        float* sums = projected ? work.first.get() : states;
        const auto [first, last] = team.part(tokens);
        const auto norm = [&](float* rows) {
            for (int64_t token = first; token < last; ++token) {
                float* row = rows + token * embeddings_.norm.size;
                embeddings_.norm.apply(row, row);
            }
            team.meet();
        };
        const auto project = [&](const Packed& layer, const float* from, float* to) {
            Rows rows;
            rows.floats = from;
            rows.float_stride = layer.in;
            multiply(layer, rows, static_cast<int>(tokens), team,
                     [&](int64_t row, int64_t column, f32x16 values, int lanes)
                         __attribute__((always_inline)) { store_some(to + row * layer.out + column, values, lanes); });
            team.meet();
        };
        for (int64_t token = first; token < last; ++token) {
            const float* word = embeddings_.words.get() + ids[token] * width;
            const float* type = embeddings_.token_types.empty() ? nullptr : embeddings_.token_types.get() + types[token] * width;
            const float* position = embeddings_.positions.empty()
                                        ? nullptr
                                        : embeddings_.positions.get() + (positions[token] + embeddings_.position_offset) * width;
            for (int64_t column = 0; column < width; ++column) {
                float total = word[column];
                if (type != nullptr) total += type[column];
                if (position != nullptr) total += position[column];
                sums[token * width + column] = total;
            }
        }
        team.meet();
        if (embeddings_.before_norm.exists()) {
            project(embeddings_.before_norm, sums, states);
            norm(states);
        } else if (embeddings_.after_norm.exists()) {
            norm(sums);
            project(embeddings_.after_norm, sums, states);
        } else {
            norm(states);
        }
    }

    // ------------------------------------------------------------------------------------------------ layers in full

    void reserve_layers(Workspace& work, const Texts& texts, int first, int last, bool embeds) const {
        const int64_t tokens = texts.tokens(), longest = *std::max_element(texts.lengths, texts.lengths + texts.count);
        if (embeds && embeddings_.width != hidden_) work.first.reserve(tokens * embeddings_.width);
        for (int index = first; index < last; ++index) {
            const Layer& layer = layers_[static_cast<size_t>(index)];
            prepare_projections(layer, tokens, work);
            prepare_feed_forward(layer, tokens, work);
            work.projected.reserve(tokens * 3 * hidden_);
        }
        for (AttentionMemory& memory : work.attention) memory.prepare(longest, hidden_ / heads_count_);
    }

    static void prepare_projections(const Layer& layer, int64_t tokens, Workspace& work) {
        for (size_t part = 0; part < layer.projections.size(); ++part) {
            work.projected_from[part].prepare(layer.projections[part], tokens, false);
        }
    }

    // Layers [first, last) over packed states, in place.
    void run_layers(int first, int last, float* states, const Texts& texts, Workspace& work, const Team& team) const {
        if (first == last) return;
        const int64_t tokens = texts.tokens(), stride = 3 * hidden_;
        const auto [first_token, last_token] = team.part(tokens);
        // One thread says which layer reads the inputs next, always between two meetings.
        if (team.index == 0) prepare_projections(layers_[static_cast<size_t>(first)], tokens, work);
        team.meet();
        for (size_t part = 0; part < layers_[static_cast<size_t>(first)].projections.size(); ++part) {
            for (int64_t token = first_token; token < last_token; ++token) {
                work.projected_from[part].quantize_row(token, states + token * hidden_);
            }
        }
        team.meet();
        for (int index = first; index < last; ++index) {
            const Layer& layer = layers_[static_cast<size_t>(index)];
            if (team.index == 0) prepare_feed_forward(layer, tokens, work);
            float* projected = work.projected.get();
            for (size_t part = 0; part < layer.projections.size(); ++part) {
                float* to = projected + static_cast<int64_t>(part) * hidden_;
                multiply(layer.projections[part], work.projected_from[part].rows(states), static_cast<int>(tokens), team,
                         [&](int64_t row, int64_t column, f32x16 values, int lanes)
                             __attribute__((always_inline)) { store_some(to + row * stride + column, values, lanes); });
            }
            team.meet();
            attend_all(projected, texts, work, team);
            const Layer* next = index + 1 < last ? &layers_[static_cast<size_t>(index + 1)] : nullptr;
            if (team.index == 0 && next != nullptr) prepare_projections(*next, tokens, work);
            feed_forward(layer, activation_, states, tokens, work, team, work.projected_from,
                         next != nullptr ? static_cast<int>(next->projections.size()) : 0);
        }
    }

    void attend_all(const float* projected, const Texts& texts, Workspace& work, const Team& team) const {
        const int64_t stride = 3 * hidden_;
        const int size = static_cast<int>(hidden_ / heads_count_);
        int64_t turn = 0;
        for (int64_t text = 0; text < texts.count; ++text) {
            const int64_t start = texts.starts[text] - texts.starts[0];
            for (int head = 0; head < heads_count_; ++head, ++turn) {
                if (turn % team.size != team.index) continue;
                const float* query = projected + start * stride + head * size;
                attend(query, query + hidden_, query + 2 * hidden_, stride, static_cast<int>(texts.lengths[text]), size,
                       scale_, work.attention[static_cast<size_t>(team.index)],
                       [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                           work.attention_output_from.put(start + row, head * size + column, values, lanes);
                       });
            }
        }
    }

    // ------------------------------------------------------------------------------------------------ the probe

    void reserve_probe(Workspace& work, const Texts& texts, const Layer& layer, const Head& head) const {
        const int64_t rows = texts.count, longest = *std::max_element(texts.lengths, texts.lengths + texts.count);
        const int64_t size = hidden_ / heads_count_;
        work.first.reserve(rows * hidden_);
        work.projected.reserve(rows * std::max<int64_t>(hidden_, head.dense.out));
        const int64_t wide = round_up(hidden_, kLanes);  // products are written in whole vectors
        work.reached.reserve(rows * wide * pool_.threads());
        work.summed.reserve(rows * wide * pool_.threads());
        work.projected_from[0].prepare(layer.query, rows, false);
        prepare_feed_forward(layer, rows, work);
        for (AttentionMemory& memory : work.attention) {
            memory.prepare(longest, size);
            memory.query.reserve(rows * round_up(size, kLanes));
        }
    }

    void run_probe(const Layer& layer, const Head& head, const float* const* rows_at, const Texts& texts, float* logits,
                   Workspace& work, const Team& team) const {
        const int64_t rows = texts.count;
        const int count = static_cast<int>(rows);
        float *first_states = work.first.get(), *queries = work.projected.get();
        const auto [first, last] = team.part(rows);
        for (int64_t row = first; row < last; ++row) {
            std::copy_n(rows_at[row], hidden_, first_states + row * hidden_);
            work.projected_from[0].quantize_row(row, rows_at[row]);
        }
        team.meet();
        multiply(layer.query, work.projected_from[0].rows(first_states), count, team,
                 [&](int64_t row, int64_t column, f32x16 values, int lanes)
                     __attribute__((always_inline)) { store_some(queries + row * hidden_ + column, values, lanes); });
        team.meet();
        const auto [first_head, last_head] = team.part(heads_count_);
        for (int64_t index = first_head; index < last_head; ++index) {
            const auto with = [&](const auto* key, const auto* value) {
                attend_first(*layer.unformed, key, value, index, rows_at, texts, work, team);
            };
            const Unformed& weights = *layer.unformed;
            const auto with_key = [&](const auto* key) {
                weights.value.empty() ? with(key, weights.float_value.get()) : with(key, weights.value.get());
            };
            weights.key.empty() ? with_key(weights.float_key.get()) : with_key(weights.key.get());
        }
        feed_forward(layer, activation_, first_states, rows, work, team, nullptr, 0);
        float* pooled = work.projected.get();
        Rows inner;
        inner.floats = first_states;
        inner.float_stride = hidden_;
        multiply(head.dense, inner, count, team,
                 [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                     store_some(pooled + row * head.dense.out + column, activate(head.activation, values), lanes);
                 });
        team.meet();
        inner.floats = pooled;
        inner.float_stride = head.dense.out;
        multiply(head.classifier, inner, count, team,
                 [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                     store_some(logits + row * head.classifier.out + column, values, lanes);
                 });
    }

    // One head of every text's first token, keys and values never formed: the query moves through the key weights,
    // (W_kᵀ q) · x_j = q · (W_k x_j), and the value weights follow the weighted sum of states. The key bias adds the same
    // to every score and cancels in the softmax; the weights sum to one, so the value bias is added once.
    template <class Key, class Value>
    void attend_first(const Unformed& layer, const Key* key, const Value* value, int64_t head, const float* const* rows_at,
                      const Texts& texts, Workspace& work, const Team& team) const {
        const int size = static_cast<int>(hidden_ / heads_count_), hidden = static_cast<int>(hidden_);
        const int rows = static_cast<int>(texts.count);
        const AttentionMemory& memory = work.attention[static_cast<size_t>(team.index)];
        const int64_t wide = round_up(size, kLanes), stride = round_up(hidden_, kLanes), offset = head * size;
        float* reached = work.reached.get() + team.index * texts.count * stride;
        float* summed = work.summed.get() + team.index * texts.count * stride;
        float *query = memory.query.get(), *scores = memory.scores.get(), *context = memory.context.get();
        for (int64_t row = 0; row < rows; ++row) {
            for (int64_t part = 0; part < size; ++part) {
                query[row * wide + part] = work.projected[row * hidden_ + offset + part] * layer.key_scale[offset + part];
            }
        }
        multiply_floats(query, wide, rows, key + offset * hidden_, hidden_, hidden, size, reached, stride);
        for (int64_t row = 0; row < rows; ++row) {
            const int length = static_cast<int>(texts.lengths[row]);
            float *to = reached + row * stride, *sums = summed + row * stride;
            scale_inputs(to, layer.key_smoothing);
            multiply_transposed(to, stride, 1, rows_at[row], hidden_, length, hidden, scores, 0);
            const float share = 1.0f / exponentials(scores, length, scale_);
            for (int64_t token = 0; token < length; ++token) scores[token] *= share;
            multiply_floats(scores, 0, 1, rows_at[row], hidden_, hidden, length, sums, stride);
            scale_inputs(sums, layer.value_smoothing);
        }
        for (int start = 0; start < rows; start += kQueryBlock) {
            const int count = std::min(kQueryBlock, rows - start);
            multiply_floats(summed + start * stride, stride, count, value + offset, hidden_, size, hidden, context, wide);
            for (int row = 0; row < count; ++row) {
                for (int column = 0; column < size; column += kLanes) {
                    const f32x16 values = load(context + row * wide + column) * load(layer.value_scale.get() + offset + column) +
                                          load(layer.value_bias.get() + offset + column);
                    work.attention_output_from.put(start + row, offset + column, values, std::min(kLanes, size - column));
                }
            }
        }
    }

    void scale_inputs(float* row, const Buffer<float>& smoothing) const {
        if (smoothing.empty()) return;
        for (int64_t column = 0; column < hidden_; ++column) row[column] *= smoothing[column];
    }

    Embeddings embeddings_;
    std::vector<Layer> layers_;
    std::vector<Head> heads_;
    std::vector<int32_t> exits_;
    int32_t heads_count_, activation_;
    float scale_;
    int64_t hidden_;
    Pool pool_;
    Barrier together_;
    std::vector<Workspace> work_;  // one per thread; a team of all uses the first
    Buffer<int64_t> starts_;
};

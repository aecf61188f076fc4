// A packed model and its calls: embed, probe, advance, and answer, which goes through them all.
#pragma once

#include <stdexcept>
#include <string>

#include "check.h"
#include "per_process.h"
#include "session.h"

struct Head {
    Packed dense, classifier;
    int32_t activation;

    explicit Head(const sweet_head& head) : dense(head.dense), classifier(head.classifier), activation(head.activation) {}
};

struct Exit {
    Head head;
    int32_t full_layers, layer;

    explicit Exit(const sweet_exit& exit) : head(exit.head), full_layers(exit.full_layers), layer(exit.layer) {}
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
        copy(from.words, words);
        copy(from.positions, positions);
        copy(from.token_types, token_types);
    }

    bool is_projected() const { return before_norm.exists() || after_norm.exists(); }

    int64_t bytes() const {
        return words.bytes() + positions.bytes() + token_types.bytes() + norm.bytes() + before_norm.bytes() +
               after_norm.bytes();
    }

   private:
    static void copy(const sweet_floats& from, Buffer<float>& to) {
        if (from.size > 0) std::copy_n(from.values, from.size, to.reserve(from.size));
    }
};

class sweet_model {
   public:
    // Of a description that `check_description` let pass.
    sweet_model(const sweet_description& from, int32_t threads, int64_t least_work)
        : embeddings_(from.embeddings),
          heads_count_(from.num_attention_heads),
          activation_(from.activation),
          scale_(1.0f / from.score_scale),
          hidden_(from.hidden),
          threads_(threads),
          least_work_(least_work < 0 ? kLeastWork : least_work),
          session_(std::make_unique<Session>(threads)) {
        for (int32_t exit = 0; exit < from.num_exits; ++exit) exits_.emplace_back(from.exits[exit]);
        for (int32_t index = 0; index < from.num_layers; ++index) {
            const bool is_probed =
                std::any_of(exits_.begin(), exits_.end(), [=](const Exit& exit) { return exit.layer == index; });
            layers_.emplace_back(from.layers[index], heads_count_, is_probed, index < from.num_full_layers);
        }
    }

    int64_t bytes() const {
        int64_t total = embeddings_.bytes();
        for (const Layer& layer : layers_) total += layer.bytes();
        for (const Exit& exit : exits_) total += exit.head.dense.bytes() + exit.head.classifier.bytes();
        return total;
    }

    int64_t workspace_bytes() const {
        int64_t total = 0;
        exclusively([&](Session& session) { total = session.memory(); });
        return total;
    }

    int32_t embed(int32_t rows, int64_t tokens, const int64_t* lengths, const int64_t* ids, const int64_t* types,
                  const int64_t* positions, float* states, int64_t states_size, const float** starts) {
        check_texts(rows, tokens, lengths, ids, types, positions);
        if (rows > 0) check_states(tokens, states, states_size, starts);
        return exclusively(
            [&](Session& session) { embed_here(session, rows, lengths, ids, types, positions, states, starts); });
    }

    int32_t advance(int32_t exit, int32_t rows, const float* const* rows_at, const int64_t* lengths, float* states,
                    int64_t states_size, const float** next_starts) {
        check_range("the call", "the exit", exit, 0, last_exit() - 1);
        const int64_t tokens = check_rows(rows, lengths);
        if (rows > 0) check_states(tokens, states, states_size, next_starts);
        check_starts(rows, rows_at);
        return exclusively([&](Session& session) { advance_here(session, exit, rows, rows_at, lengths, states, next_starts); });
    }

    int32_t probe(int32_t exit, int32_t rows, const float* const* rows_at, const int64_t* lengths, float* logits,
                  int64_t logits_size) {
        check_range("the call", "the exit", exit, 0, last_exit());
        check_rows(rows, lengths);
        check_starts(rows, rows_at);
        if (rows > 0) check_array("the call", "logits", logits, logits_size, int64_t{rows} * outputs());
        return exclusively([&](Session& session) { probe_here(session, exit, rows, rows_at, lengths, logits); });
    }

    int32_t answer(const sweet_policy& policy, int32_t rows, int64_t tokens, const int64_t* lengths, const int64_t* ids,
                   const int64_t* types, const int64_t* positions, float* logits, int64_t* exits, float* confidences) {
        check_policy(policy, last_exit() + 1, outputs());
        check_texts(rows, tokens, lengths, ids, types, positions);
        if (rows > 0) {
            check_pointer("the call", "logits", logits);
            check_pointer("the call", "exits", exits);
            check_pointer("the call", "confidences", confidences);
        }
        return exclusively([&](Session& session) {
            answer_here(session, policy, rows, tokens, lengths, ids, types, positions, logits, exits, confidences);
        });
    }

   private:
    // Multiply-adds that a thread must have to do before it pays to have it: some 20 microseconds of 8-bit products, about
    // what it takes to wake a thread; a quarter of it if all threads still spin (`benchmarks/threads.py`).
    static constexpr int64_t kLeastWork = int64_t{1} << 20, kAwakeShare = 4;

    int32_t outputs() const { return exits_.back().head.classifier.out; }
    int32_t last_exit() const { return static_cast<int32_t>(exits_.size()) - 1; }
    const Exit& of_exit(int32_t exit) const { return exits_[static_cast<size_t>(exit)]; }

    // Calls from several threads wait for one another.
    template <class Call>
    int32_t exclusively(Call call) const {
        Session& session = session_.get([&] { return std::make_unique<Session>(threads_); });
        const std::lock_guard<std::mutex> guard(session.calls);
        call(session);
        return session.pool.was_short_of_threads() ? SWEET_SHORT_OF_THREADS : SWEET_DONE;
    }

    static void check_starts(int32_t rows, const float* const* rows_at) {
        if (rows > 0) check_pointer("the call", "starts", rows_at);
        for (int32_t row = 0; row < rows; ++row) check_pointer("the call", "the start of a row", rows_at[row]);
    }

    void check_states(int64_t tokens, const float* states, int64_t size, const float** starts) const {
        check_pointer("the call", "states", states);
        check_pointer("the call", "starts", starts);
        const int64_t needed = tokens * hidden_ + SWEET_READ_BEYOND;
        if (size < needed)
            refuse("the call", "states has room for " + std::to_string(size) + " of " + std::to_string(needed) + " numbers");
    }

    void check_texts(int32_t rows, int64_t tokens, const int64_t* lengths, const int64_t* ids, const int64_t* types,
                     const int64_t* positions) const {
        check_equal("the call", "the number of tokens", tokens, check_rows(rows, lengths));
        if (tokens == 0) return;
        const auto check = [&](const int64_t* values, int64_t least, int64_t limit, const char* what) {
            check_pointer("the call", what, values);
            for (int64_t token = 0; token < tokens; ++token) {
                if (values[token] >= least && values[token] < limit) continue;
                throw std::invalid_argument(std::string(what) + " " + std::to_string(values[token]) +
                                            " is not in the table of " + std::to_string(limit - least));
            }
        };
        check(ids, 0, embeddings_.vocabulary, "token id");
        if (!embeddings_.token_types.empty()) check(types, 0, embeddings_.num_token_types, "token type");
        const int64_t offset = embeddings_.position_offset;
        if (!embeddings_.positions.empty()) check(positions, -offset, embeddings_.num_positions - offset, "position");
    }

    void answer_here(Session& session, const sweet_policy& policy, int32_t rows, int64_t tokens, const int64_t* lengths,
                     const int64_t* ids, const int64_t* types, const int64_t* positions, float* logits, int64_t* exits,
                     float* confidences) const {
        const int32_t outputs = this->outputs(), last = last_exit();
        Batch& batch = session.batch;
        batch.start(rows, lengths, outputs, tokens * hidden_ + SWEET_READ_BEYOND);
        embed_here(session, rows, lengths, ids, types, positions, batch.states.get(), batch.starts.data());
        for (int32_t exit = 0; rows > 0; ++exit) {
            if (exit == policy.deepest || policy.thresholds[exit] < 1.0f) {
                probe_here(session, exit, rows, batch.starts.data(), batch.lengths.data(), batch.logits.get());
                const Confidence confidence_of{policy, outputs, policy.learned != 0 && exit < last};
                int32_t kept = 0;
                for (int32_t place = 0; place < rows; ++place) {
                    const float* said = batch.logits.get() + int64_t{place} * outputs;
                    const float confidence = confidence_of(said, exit);
                    if (exit == policy.deepest || confidence > policy.thresholds[exit]) {
                        const int64_t row = batch.rows[static_cast<size_t>(place)];
                        std::copy_n(said, policy.labels, logits + row * policy.labels);
                        exits[row] = exit;
                        confidences[row] = confidence;
                    } else {
                        batch.keep(place, kept++);
                    }
                }
                rows = kept;
                if (rows == 0) break;
            }
            advance_here(session, exit, rows, batch.starts.data(), batch.lengths.data(), batch.next_states.get(),
                         batch.next_starts.data());
            batch.go_on();
        }
    }

    void embed_here(Session& session, int32_t rows, const int64_t* lengths, const int64_t* ids, const int64_t* types,
                    const int64_t* positions, float* states, const float** starts) const {
        const Texts texts = packed(session, rows, lengths);
        tell_starts(texts, states, starts);
        const int last = exits_.front().full_layers;
        in_parts(session, texts, 1, work_of_layers(texts, 0, last),
                 [&](Workspace& work, const Texts& part, int64_t threads) { reserve_layers(work, part, threads, 0, last, true); },
                 [&](Workspace& work, const Texts& part, const Team& team) {
                     const int64_t first = part.starts[0];
                     look_up(part.tokens(), ids + first, types + first, positions + first, states + first * hidden_, work,
                             team);
                     run_layers(0, last, states + first * hidden_, part, work, team);
                 });
    }

    void advance_here(Session& session, int32_t exit, int32_t rows, const float* const* rows_at, const int64_t* lengths,
                      float* states, const float** next_starts) const {
        const Texts texts = packed(session, rows, lengths);
        tell_starts(texts, states, next_starts);
        const int first_layer = of_exit(exit).full_layers, last_layer = of_exit(exit + 1).full_layers;
        in_parts(session, texts, 1, work_of_layers(texts, first_layer, last_layer),
                 [&](Workspace& work, const Texts& part, int64_t threads) {
                     reserve_layers(work, part, threads, first_layer, last_layer, false);
                 },
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

    void probe_here(Session& session, int32_t exit, int32_t rows, const float* const* rows_at, const int64_t* lengths,
                    float* logits) const {
        const Texts texts = packed(session, rows, lengths);
        const Layer& layer = layers_[static_cast<size_t>(of_exit(exit).layer)];
        const Head& head = of_exit(exit).head;
        in_parts(session, texts, 4, work_of_probe(texts, layer, head),
                 [&](Workspace& work, const Texts& part, int64_t threads) { reserve_probe(work, part, threads, layer, head); },
                 [&](Workspace& work, const Texts& part, const Team& team) {
                     const int64_t skipped = part.starts - texts.starts;
                     run_probe(layer, head, rows_at + skipped, part, logits + skipped * head.classifier.out, work, team);
                 });
    }

    // The start of each text.
    static Texts packed(Session& session, int32_t rows, const int64_t* lengths) {
        int64_t* starts = session.starts.reserve(int64_t{rows} + 1);
        int64_t total = 0;
        for (int32_t row = 0; row < rows; ++row) {
            starts[row] = total;
            total += lengths[row];
        }
        return {rows, lengths, starts};
    }

    void tell_starts(const Texts& texts, const float* states, const float** starts) const {
        for (int64_t text = 0; text < texts.count; ++text) starts[text] = states + texts.starts[text] * hidden_;
    }

    // Multiply-adds of layers [first, last) for these texts.
    int64_t work_of_layers(const Texts& texts, int first, int last) const {
        int64_t of_token = 0, pairs = 0;
        for (int index = first; index < last; ++index) of_token += layers_[static_cast<size_t>(index)].work();
        for (int64_t text = 0; text < texts.count; ++text) pairs += texts.lengths[text] * texts.lengths[text];
        return texts.tokens() * of_token + 2 * pairs * hidden_ * (last - first);
    }

    int64_t work_of_probe(const Texts& texts, const Layer& layer, const Head& head) const {
        const int64_t of_text = layer.work() + head.dense.work() + head.classifier.work();
        return texts.count * of_text + 2 * texts.tokens() * hidden_ * heads_count_;
    }

    // Threads that have enough to do, from 1.
    int threads_for(const Pool& pool, int64_t work) const {
        if (least_work_ == 0) return threads_;
        const int64_t least = pool.is_awake(threads_) ? std::max<int64_t>(least_work_ / kAwakeShare, 1) : least_work_;
        return static_cast<int>(std::clamp<int64_t>(work / least, 1, threads_));
    }

    // As many threads as have enough to do. Texts are cut among them, each part with a workspace of its own, so that none
    // waits for another; or, where they are too few, all threads are one team on all of them. Memory is reserved before
    // threads run, where failing is safe, and as much where the pool gives fewer threads than are wanted.
    template <class Reserve, class Job>
    void in_parts(Session& session, const Texts& texts, int64_t least_texts, int64_t work, Reserve reserve, Job job) const {
        if (texts.count == 0) return;
        const int threads = threads_for(session.pool, work), running = session.pool.size_for(threads);
        if (threads == 1 || texts.count < least_texts * threads || texts.tokens() < 16 * threads) {
            reserve(session.work[0], texts, threads);
            session.pool.run(running, [&](const Team& team) { job(session.work[0], texts, team); });
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
            reserve(session.work[static_cast<size_t>(index)], parts[static_cast<size_t>(index)], 1);
        }
        session.pool.run(running, [&](const Team& team) {
            for (auto index = static_cast<size_t>(team.index); index < parts.size(); index += static_cast<size_t>(team.size))
                job(session.work[index], parts[index], Team{0, 1, team.barrier, nullptr});
        });
    }

    // ------------------------------------------------------------------------------------------------ embeddings

    void look_up(int64_t tokens, const int64_t* ids, const int64_t* types, const int64_t* positions, float* states,
                 Workspace& work, const Team& team) const {
        const int64_t width = embeddings_.width;
        float* sums = embeddings_.is_projected() ? work.first.get() : states;
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

    // Texts run through a layer a chunk at a time, so that what is between its products stays in the second cache.
    static constexpr int64_t kChunkTokens = 128;

    // Calls each(chunk) for runs of texts of at most `kChunkTokens` tokens for each of `threads`, or of one text.
    template <class Each>
    static void in_chunks(const Texts& texts, int64_t threads, Each each) {
        for (int64_t first = 0; first < texts.count;) {
            Texts chunk{1, texts.lengths + first, texts.starts + first};
            while (first + chunk.count < texts.count &&
                   chunk.tokens() + chunk.lengths[chunk.count] <= kChunkTokens * threads) {
                ++chunk.count;
            }
            each(chunk);
            first += chunk.count;
        }
    }

    void reserve_layers(Workspace& work, const Texts& texts, int64_t threads, int first, int last, bool embeds) const {
        if (embeds && embeddings_.is_projected()) work.first.reserve(texts.tokens() * embeddings_.width);
        int64_t most = 0, longest = 0;
        in_chunks(texts, threads, [&](const Texts& chunk) { most = std::max(most, chunk.tokens()); });
        for (int64_t text = 0; text < texts.count; ++text) longest = std::max(longest, texts.lengths[text]);
        for (int index = first; index < last; ++index) {
            const Layer& layer = layers_[static_cast<size_t>(index)];
            for (size_t part = 0; part < layer.projections.size(); ++part) {
                work.projected_from[part].reserve(layer.projections[part], most, false);
            }
            reserve_feed_forward(layer, most, work);
            work.projected.reserve(most * 3 * hidden_);
            for (int64_t thread = 0; thread < threads; ++thread) {
                work.threads[static_cast<size_t>(thread)].attention.reserve(longest, hidden_ / heads_count_);
            }
        }
    }

    // Layers [first, last) over packed states, in place.
    void run_layers(int first, int last, float* states, const Texts& texts, Workspace& work, const Team& team) const {
        for (int index = first; index < last; ++index) {
            in_chunks(texts, team.size, [&](const Texts& chunk) {
                float* from = states + (chunk.starts[0] - texts.starts[0]) * hidden_;
                run_layer(layers_[static_cast<size_t>(index)], from, chunk, work, team);
            });
        }
        team.meet();
    }

    void run_layer(const Layer& layer, float* states, const Texts& texts, Workspace& work, const Team& team) const {
        const int64_t tokens = texts.tokens(), stride = 3 * hidden_;
        const auto [first, last] = team.part(tokens);
        for (size_t part = 0; part < layer.projections.size(); ++part) {
            for (int64_t token = first; token < last; ++token) {
                work.projected_from[part].quantize_row(layer.projections[part], token, states + token * hidden_);
            }
        }
        team.meet();
        float* projected = work.projected.get();
        for (size_t part = 0; part < layer.projections.size(); ++part) {
            float* to = projected + layer.columns[part];
            const Packed& projection = layer.projections[part];
            multiply(projection, work.projected_from[part].rows(projection, states), static_cast<int>(tokens), team,
                     [=](int64_t row, int64_t column, f32x16 values, int lanes)
                         __attribute__((always_inline)) { store_some(to + row * stride + column, values, lanes); },
                     [=](int64_t row, int64_t column) {
                         for (int64_t line = 0; line < kPanel; line += kLanes) fetch_ahead(to + row * stride + column + line);
                     });
        }
        team.meet();
        attend_all(layer, projected, texts, work, team);
        feed_forward(layer, activation_, states, tokens, work, team);
    }

    static constexpr int kLeastInWords = 64;  // tokens: 16-bit attention saves nothing at 25, and 4 % of BERT-base's time at 128

    void attend_all(const Layer& layer, const float* projected, const Texts& texts, Workspace& work, const Team& team) const {
        const int64_t stride = 3 * hidden_;
        const int size = static_cast<int>(hidden_ / heads_count_);
        const AttentionMemory& memory = work.threads[static_cast<size_t>(team.index)].attention;
        const Input::Writer put = work.attention_output_from.writer(layer.attention_output);
        const bool is_integer = layer.attention_output.is_integer;
        int64_t turn = 0;
        for (int64_t text = 0; text < texts.count; ++text) {
            const int64_t start = texts.starts[text] - texts.starts[0];
            for (int head = 0; head < heads_count_; ++head, ++turn) {
                if (turn % team.size != team.index) continue;
                const float* query = projected + start * stride + head * size;
                const auto put_here = [=](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                    put(start + row, head * size + column, values, lanes);
                };
                const int length = static_cast<int>(texts.lengths[text]);
                attend(is_integer && length >= kLeastInWords, query, query + hidden_, query + 2 * hidden_, stride, length,
                       size, scale_, memory, put_here);
            }
        }
    }

    // ------------------------------------------------------------------------------------------------ the probe

    static constexpr int64_t kProbeTexts = 16;  // whose reached and summed states are held at a time

    void reserve_probe(Workspace& work, const Texts& texts, int64_t threads, const Layer& layer, const Head& head) const {
        const int64_t rows = texts.count, longest = *std::max_element(texts.lengths, texts.lengths + texts.count);
        const int64_t size = hidden_ / heads_count_, block = std::min(rows, kProbeTexts);
        work.first.reserve(rows * hidden_);
        work.projected.reserve(rows * std::max<int64_t>(round_up(hidden_, kWidestPanel), head.dense.out));
        work.projected_from[0].reserve(layer.projections[0], rows, false);
        reserve_feed_forward(layer, rows, work);
        for (int64_t index = 0; index < threads; ++index) {
            ThreadMemory& thread = work.threads[static_cast<size_t>(index)];
            thread.attention.scores.reserve(heads_count_ * round_up(longest, kLanes));
            thread.reached.reserve(block * heads_count_ * round_up(hidden_, kLanes));
            thread.queries.reserve(block * size);
            thread.context.reserve(block * (size + 2 * kWidestPanel));
            thread.wide.reserve(hidden_, block);
            thread.narrow.reserve(layer.keys->heads.front(), block, false);
            thread.narrow.reserve(layer.projections.back(), block, false);
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
            work.projected_from[0].quantize_row(layer.projections[0], row, rows_at[row]);
        }
        team.meet();
        const Packed& projection = layer.projections[0];
        const int64_t panel = projection.panel_columns(), panels = round_up(hidden_, panel) / panel, stride = panels * panel;
        const auto [first_panel, last_panel] = team.part(panels);
        multiply(projection, work.projected_from[0].rows(projection, first_states), count, Panels{first_panel, last_panel},
                 [&](int64_t row, int64_t column, f32x16 values, int)
                     __attribute__((always_inline)) { store(queries + row * stride + column, values); });
        team.meet();
        for (int64_t start = 0; start < rows; start += kProbeTexts) {
            const Texts block{std::min(kProbeTexts, rows - start), texts.lengths + start, texts.starts + start};
            attend_first(layer, queries + start * stride, stride, start, rows_at + start, block, work, team);
        }
        feed_forward(layer, activation_, first_states, rows, work, team);
        team.meet();
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

    // This thread's heads of every text's first token, keys and values never formed: the query moves through the key
    // weights, (W_kᵀ q) · x_j = q · (W_k x_j), and the value weights follow the weighted sum of states. The key bias adds
    // the same to every score and cancels in the softmax; the weights sum to one, so the value bias is added once.
    void attend_first(const Layer& layer, const float* queries, int64_t query_stride, int64_t first_row,
                      const float* const* rows_at, const Texts& texts, Workspace& work, const Team& team) const {
        const int size = static_cast<int>(hidden_ / heads_count_), hidden = static_cast<int>(hidden_);
        const int count = static_cast<int>(texts.count);
        const int64_t wide = round_up(hidden_, kLanes);
        const ThreadMemory& memory = work.threads[static_cast<size_t>(team.index)];
        const auto [first_head, last_head] = team.part(heads_count_);
        const int heads = static_cast<int>(last_head - first_head);
        const int64_t text_stride = heads * wide;
        float* scores = memory.attention.scores.get();
        for (int head = 0; head < heads; ++head) {
            move_queries(*layer.keys, first_head + head, queries, query_stride, count, memory.reached.get() + head * wide,
                         text_stride, memory);
        }
        for (int64_t text = 0; text < count; ++text) {
            const int length = static_cast<int>(texts.lengths[text]);
            const int64_t padded = round_up(length, kLanes);
            float* reached = memory.reached.get() + text * text_stride;
            multiply_transposed(reached, wide, heads, rows_at[text], hidden_, length, hidden, scores, padded);
            for (int head = 0; head < heads; ++head) {
                const float share = 1.0f / exponentials(scores + head * padded, length, scale_);
                for (int64_t token = 0; token < length; ++token) scores[head * padded + token] *= share;
            }
            multiply_dense<Floats>(scores, padded, heads, rows_at[text], hidden_, hidden, length, reached, wide);  // weighted sums
        }
        const Input::Writer put = work.attention_output_from.writer(layer.attention_output);
        for (int head = 0; head < heads; ++head) {
            const int64_t column = (first_head + head) * size;
            const auto [context, stride] =
                multiply_values(layer, column, memory.reached.get() + head * wide, text_stride, count, memory);
            for (int row = 0; row < count; ++row) {
                for (int part = 0; part < size; part += kLanes) {
                    put(first_row + row, column + part, load(context + row * stride + part), std::min(kLanes, size - part));
                }
            }
        }
    }

    // One head's queries (texts, size) through its key weights: `reached` (texts, hidden).
    void move_queries(const KeysTransposed& keys, int64_t head, const float* queries, int64_t query_stride, int count,
                      float* reached, int64_t stride, const ThreadMemory& memory) const {
        const Packed& layer = keys.heads[static_cast<size_t>(head)];
        const int64_t offset = head * layer.in;
        const auto put = [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
            if (!keys.smoothing.empty()) values *= load(keys.smoothing.get() + column);
            store_some(reached + row * stride + column, values, lanes);
        };
        if (!layer.is_integer) {
            const Rows rows = in_floats(layer, queries + offset, query_stride, count, memory);
            return multiply_floats(layer, rows, count, {0, layer.panels()}, put);
        }
        for (int64_t row = 0; row < count; ++row) {
            const float* query = queries + row * query_stride + offset;
            memory.wide.quantize_row(layer, row, [&](int column) __attribute__((always_inline)) {
                return load(query + column) * load(keys.scale.get() + offset + column);
            });
        }
        multiply_wide_integers(layer, memory.wide.rows(layer), count, {0, layer.panels()}, put);
    }

    // Rows as a layer of floats or bfloat16 reads them.
    static Rows in_floats(const Packed& layer, const float* from, int64_t stride, int count, const ThreadMemory& memory) {
        for (int64_t row = 0; row < count; ++row) memory.narrow.quantize_row(layer, row, from + row * stride);
        Rows rows = memory.narrow.rows(layer, from);
        rows.float_stride = stride;
        return rows;
    }

    // One head's weighted sums of states (texts, hidden) through its value weights, columns from `column` on: where the
    // results are, (texts, size), and how far apart the rows.
    std::pair<const float*, int64_t> multiply_values(const Layer& layer, int64_t column, const float* sums,
                                                     int64_t sums_stride, int count, const ThreadMemory& memory) const {
        const Packed& values = layer.projections.back();
        const int64_t size = hidden_ / heads_count_, panel = values.panel_columns();
        column += values.out - hidden_;  // values stand behind queries and keys
        const Panels panels{column / panel, (column + size + panel - 1) / panel};
        const int64_t stride = (panels.last - panels.first) * panel;
        float* context = memory.context.get();
        const auto put = [&](int64_t row, int64_t place, f32x16 result, int) __attribute__((always_inline)) {
            store(context + row * stride + place - panels.first * panel, result);
        };
        if (values.is_integer) {
            for (int64_t row = 0; row < count; ++row) {
                memory.wide.quantize_row(values, row, [&](int place) __attribute__((always_inline)) {
                    const f32x16 loaded = load(sums + row * sums_stride + place);
                    return values.smoothing.empty() ? loaded : loaded * load(values.smoothing.get() + place);
                });
            }
            multiply_wide_integers(values, memory.wide.rows(values), count, panels, put);
        } else {
            multiply_floats(values, in_floats(values, sums, sums_stride, count, memory), count, panels, put);
        }
        return {context + column - panels.first * panel, stride};
    }

    Embeddings embeddings_;
    std::vector<Exit> exits_;
    std::vector<Layer> layers_;  // those run in full, then those that only probes run
    int32_t heads_count_, activation_;
    float scale_;
    int64_t hidden_;
    int32_t threads_;
    int64_t least_work_;
    PerProcess<Session> session_;
};

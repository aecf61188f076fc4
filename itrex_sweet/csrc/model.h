// A packed model and its calls: embed, probe, advance, and answer, which runs all of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "check.h"
#include "embeddings.h"
#include "encoder.h"
#include "parallel.h"
#include "per_process.h"
#include "probe.h"
#include "session.h"

struct Exit {
    Head head;
    LayerNorm norm;
    int32_t full_layers, layer;

    explicit Exit(const sweet_exit& exit)
        : head(exit.head), norm(exit.norm), full_layers(exit.full_layers), layer(exit.layer) {}
};

// Token ids, types and positions of packed rows.
struct Tokens {
    const int64_t *ids, *types, *positions;
};

// The arrays that `sweet_answer` writes.
struct Answers {
    float* logits;
    int64_t* exits;
    float* confidences;
    int64_t* best;  // may be null
    float* probabilities;
};

struct sweet_model {
    // The description must have passed `check_description`.
    sweet_model(const sweet_description& from, int32_t threads, int64_t min_macs_per_thread)
        : embeddings_(from.embeddings),
          exits_(from.exits, from.exits + from.num_exits),
          encoder_({from.num_attention_heads, from.activation, 1.0f / from.score_scale, from.hidden}, RelativePositions(from),
                   pack_layers(from)),
          uses_positions_(encoder_.uses_positions()),
          hidden_(from.hidden),
          max_length_(from.max_length),
          threads_(threads),
          parallelizer_(threads, min_macs_per_thread),
          session_(std::make_unique<Session>(threads)) {}

    int64_t bytes() const {
        int64_t total = embeddings_.bytes() + encoder_.bytes();
        for (const Exit& exit : exits_) total += exit.head.bytes() + exit.norm.bytes();
        return total;
    }

    int64_t workspace_bytes() const {
        int64_t total = 0;
        with_session([&](Session& session) { total = session.bytes(); });
        return total;
    }

    int32_t embed(int32_t rows, int64_t tokens, const int64_t* lengths, const int64_t* ids, const int64_t* types,
                  const int64_t* positions, float* states, int64_t states_size, const float** starts) {
        check_tokens(rows, tokens, lengths, ids, types, positions);
        if (rows > 0) check_states(tokens, states, states_size, starts);
        return with_session(
            [&](Session& session) { embed_rows(session, rows, lengths, ids, types, positions, states, starts); });
    }

    int32_t advance(int32_t exit, int32_t rows, const float* const* starts, const int64_t* lengths,
                    const int64_t* const* positions, float* states, int64_t states_size, const float** next_starts) {
        check_range("the call", "the exit", exit, 0, last_exit() - 1);
        const int64_t tokens = check_rows(rows, lengths);
        if (rows > 0) check_states(tokens, states, states_size, next_starts);
        check_starts(rows, starts);
        return with_session([&](Session& session) {
            const int64_t* const* given = positions_of_rows(session, rows, lengths, positions);
            advance_rows(session, exit, rows, starts, lengths, given, states, next_starts);
        });
    }

    int32_t probe(int32_t exit, int32_t rows, const float* const* starts, const int64_t* lengths,
                  const int64_t* const* positions, float* outputs, int64_t outputs_size) {
        check_range("the call", "the exit", exit, 0, last_exit());
        check_rows(rows, lengths);
        check_starts(rows, starts);
        if (rows > 0) check_array("the call", "logits", outputs, outputs_size, int64_t{rows} * num_outputs());
        return with_session([&](Session& session) {
            const int64_t* const* given = positions_of_rows(session, rows, lengths, positions);
            probe_rows(session, exit, rows, starts, lengths, given, outputs);
        });
    }

    // Types and positions may be null, see `sweet_answer`.
    int32_t answer(const sweet_policy& policy, int32_t rows, int64_t tokens, const int64_t* lengths, Tokens given,
                   const Answers& answers) {
        check_policy(policy, last_exit() + 1, num_outputs());
        check_equal("the call", "the number of tokens", tokens, check_rows(rows, lengths));
        if (rows > 0) {
            check_pointer("the call", "logits", answers.logits);
            check_pointer("the call", "exits", answers.exits);
            check_pointer("the call", "confidences", answers.confidences);
            if (answers.best != nullptr) check_pointer("the call", "probabilities", answers.probabilities);
        }
        return with_session([&](Session& session) {
            if (given.types == nullptr) {
                int64_t* types = session.token_types.reserve(tokens);
                std::fill_n(types, tokens, 0);
                given.types = types;
            }
            if (given.positions == nullptr) {
                int64_t* positions = session.position_ids.reserve(tokens);
                given.positions = positions;
                for (int32_t row = 0; row < rows; positions += lengths[row++])
                    std::iota(positions, positions + lengths[row], int64_t{0});
            }
            check_tokens(rows, tokens, lengths, given.ids, given.types, given.positions);
            answer_rows(session, policy, rows, tokens, lengths, given, answers);
        });
    }

   private:
    static std::vector<Layer> pack_layers(const sweet_description& from) {
        std::vector<Layer> layers;
        const RelativePositions positions(from);
        std::vector<std::shared_ptr<const RotaryTable>> tables;  // layers with the same frequencies share one
        for (int32_t index = 0; index < from.num_layers; ++index) {
            const auto is_used = [&](bool is_mean_pooled) {
                return std::any_of(from.exits, from.exits + from.num_exits, [=](const sweet_exit& exit) {
                    return exit.layer == index && (exit.head.is_mean_pooled != 0) == is_mean_pooled;
                });
            };
            const sweet_rotary& rotary = from.layers[index].rotary;
            std::shared_ptr<const RotaryTable> table;
            if (rotary.inverse_frequencies.size > 0) {
                for (const auto& other : tables) {
                    if (other->is_of(rotary)) table = other;
                }
                if (!table) tables.push_back(table = std::make_shared<RotaryTable>(rotary, from.max_length));
            }
            layers.emplace_back(from.layers[index], positions, table, from.norm_first != 0, from.num_attention_heads,
                                is_used(false), index < from.num_full_layers || is_used(true));
        }
        return layers;
    }

    // Also checks the length of the rows; returns the total number of tokens.
    int64_t check_rows(int64_t rows, const int64_t* lengths) const {
        const int64_t tokens = ::check_rows(rows, lengths);
        for (int64_t row = 0; row < rows && max_length_ > 0; ++row)
            check_range("the call", "the length of a row", lengths[row], 1, max_length_);
        return tokens;
    }

    int32_t num_outputs() const { return exits_.back().head.classifier.out; }
    int32_t last_exit() const { return static_cast<int32_t>(exits_.size()) - 1; }
    const Exit& exit_at(int32_t exit) const { return exits_[static_cast<size_t>(exit)]; }

    // Serializes calls from several threads.
    template <class Call>
    int32_t with_session(Call call) const {
        Session& session = session_.get([&] { return std::make_unique<Session>(threads_); });
        const std::lock_guard<std::mutex> guard(session.mutex);
        call(session);
        return session.pool.take_thread_shortage() ? SWEET_FEWER_THREADS : SWEET_OK;
    }

    static void check_starts(int32_t rows, const float* const* starts) {
        if (rows > 0) check_pointer("the call", "starts", starts);
        for (int32_t row = 0; row < rows; ++row) check_pointer("the call", "the start of a row", starts[row]);
    }

    void check_states(int64_t tokens, const float* states, int64_t size, const float** starts) const {
        check_pointer("the call", "states", states);
        check_pointer("the call", "starts", starts);
        const int64_t required = tokens * hidden_ + SWEET_READ_PADDING;
        if (size < required)
            fail("the call",
                 "states has a size of " + std::to_string(size) + ", but " + std::to_string(required) + " are required");
    }

    void check_tokens(int32_t rows, int64_t tokens, const int64_t* lengths, const int64_t* ids, const int64_t* types,
                      const int64_t* positions) const {
        check_equal("the call", "the number of tokens", tokens, check_rows(rows, lengths));
        if (tokens == 0) return;
        const auto check = [&](const int64_t* values, int64_t first, int64_t last, const char* what) {
            check_pointer("the call", what, values);
            for (int64_t token = 0; token < tokens; ++token) {
                if (values[token] >= first && values[token] < last) continue;
                throw std::invalid_argument(std::string(what) + " " + std::to_string(values[token]) +
                                            " is outside the embedding table of " + std::to_string(last - first));
            }
        };
        check(ids, 0, embeddings_.vocabulary, "token id");
        if (!embeddings_.token_types.empty()) check(types, 0, embeddings_.num_token_types, "token type");
        const int64_t offset = embeddings_.position_offset;
        if (uses_positions_) check_pointer("the call", "position", positions);
        if (!embeddings_.positions.empty()) check(positions, -offset, embeddings_.num_positions - offset, "position");
    }

    void answer_rows(Session& session, const sweet_policy& policy, int32_t rows, int64_t tokens, const int64_t* lengths,
                     const Tokens& given, const Answers& answers) const {
        const int32_t num_outputs = this->num_outputs(), last = last_exit();
        ActiveRows& active = session.active;
        active.reset(rows, lengths, num_outputs, tokens * hidden_ + SWEET_READ_PADDING);
        embed_rows(session, rows, lengths, given.ids, given.types, given.positions, active.states.get(),
                   active.starts.data());
        active.positions = session.positions;
        for (int32_t exit = 0; rows > 0; ++exit) {
            const bool is_last = exit == policy.max_exit_index;
            if (is_last || policy.thresholds[exit] < 1.0f) {
                probe_rows(session, exit, rows, active.starts.data(), active.lengths.data(), active.row_positions(),
                           active.outputs.get());
                const Confidence confidence_of{policy, num_outputs, policy.learned != 0 && exit < last};
                int32_t remaining = 0;
                for (int32_t index = 0; index < rows; ++index) {
                    const float* outputs = active.outputs.get() + int64_t{index} * num_outputs;
                    const float confidence = confidence_of(outputs, exit);
                    if (is_last || confidence > policy.thresholds[exit]) {
                        const int64_t row = active.rows[static_cast<size_t>(index)];
                        std::copy_n(outputs, policy.labels, answers.logits + row * policy.labels);
                        answers.exits[row] = exit;
                        answers.confidences[row] = confidence;
                        if (answers.best != nullptr)
                            std::tie(answers.best[row], answers.probabilities[row]) =
                                best_label(outputs, policy.labels, policy.temperatures[exit]);
                    } else {
                        active.move(index, remaining++);
                    }
                }
                rows = remaining;
                if (rows == 0) break;
            }
            advance_rows(session, exit, rows, active.starts.data(), active.lengths.data(), active.row_positions(),
                         active.next_states.get(), active.next_starts.data());
            active.swap_states();
        }
    }

    void embed_rows(Session& session, int32_t rows, const int64_t* lengths, const int64_t* ids, const int64_t* types,
                    const int64_t* positions, float* states, const float** starts) const {
        const Sequences sequences = pack(session, rows, lengths, positions_of_tokens(session, rows, lengths, positions));
        write_starts(sequences, states, starts);
        const int last = exits_.front().full_layers;
        parallelizer_.run(
            session, sequences, 1, embeddings_.equivalent_macs(sequences.tokens()) + encoder_.macs(sequences, 0, last),
            [&](Workspace& workspace, const Sequences& part, int64_t threads) {
                embeddings_.reserve(part.tokens(), workspace);
                encoder_.reserve(part, threads, 0, last, workspace);
            },
            [&](Workspace& workspace, const Sequences& part, const Team& team) {
                const int64_t first = part.starts[0];
                float* part_states = states + first * hidden_;
                embeddings_.lookup(part.tokens(), ids + first, types + first, positions + first, part_states, workspace,
                                   team);
                encoder_.run(0, last, part_states, part, workspace, team);
            });
    }

    void advance_rows(Session& session, int32_t exit, int32_t rows, const float* const* row_starts, const int64_t* lengths,
                      const int64_t* const* positions, float* states, const float** next_starts) const {
        const Sequences sequences = pack(session, rows, lengths, positions);
        write_starts(sequences, states, next_starts);
        const int first_layer = exit_at(exit).full_layers, last_layer = exit_at(exit + 1).full_layers;
        parallelizer_.run(
            session, sequences, 1, encoder_.macs(sequences, first_layer, last_layer),
            [&](Workspace& workspace, const Sequences& part, int64_t threads) {
                encoder_.reserve(part, threads, first_layer, last_layer, workspace);
            },
            [&](Workspace& workspace, const Sequences& part, const Team& team) {
                const auto [first, last] = team.range(part.count);
                const float* const* from = row_starts + (part.starts - sequences.starts);
                for (int64_t i = first; i < last; ++i) {
                    std::copy_n(from[i], part.lengths[i] * hidden_, states + part.starts[i] * hidden_);
                }
                team.barrier();
                encoder_.run(first_layer, last_layer, states + part.starts[0] * hidden_, part, workspace, team);
            });
    }

    void probe_rows(Session& session, int32_t exit, int32_t rows, const float* const* row_starts, const int64_t* lengths,
                    const int64_t* const* positions, float* outputs) const {
        const Sequences sequences = pack(session, rows, lengths, positions);
        const Exit& of = exit_at(exit);
        const Probe probe(encoder_.config(), encoder_.positions(), encoder_.layer(of.layer), of.norm, of.head);
        const SharedQuery* shared = nullptr;
        if (of.full_layers == 0 && rows > 0)
            shared = probe.find_shared_query(row_starts, sequences, session.shared_query, session.workspaces.front());
        parallelizer_.run(
            session, sequences, probe.min_sequences(), probe.macs(sequences),
            [&](Workspace& workspace, const Sequences& part, int64_t threads) { probe.reserve(part, threads, workspace); },
            [&](Workspace& workspace, const Sequences& part, const Team& team) {
                const int64_t first = part.starts - sequences.starts;
                probe.run(row_starts + first, part, shared, outputs + first * num_outputs(), workspace, team);
            });
    }

    // Returns the positions of the rows that have gaps, and null for the others, whose positions are consecutive; null if all
    // are, or if the model does not use them.
    const int64_t* const* positions_of_rows(Session& session, int32_t rows, const int64_t* lengths,
                                            const int64_t* const* positions) const {
        session.positions.clear();
        if (positions == nullptr || !uses_positions_) return nullptr;
        bool have_gaps = false;
        for (int32_t row = 0; row < rows; ++row) {
            const bool has_gaps = positions[row] != nullptr && !check_positions(row, positions[row], lengths[row]);
            if (has_gaps && max_length_ > 0) {
                check_range("the call", "the first position of a row", positions[row][0], 0, max_length_ - 1);
                check_range("the call", "the last position of a row", positions[row][lengths[row] - 1], 0, max_length_ - 1);
            }
            session.positions.push_back(has_gaps ? positions[row] : nullptr);
            have_gaps = have_gaps || has_gaps;
        }
        if (!have_gaps) session.positions.clear();
        return have_gaps ? session.positions.data() : nullptr;
    }

    // The same for the positions of the packed tokens.
    const int64_t* const* positions_of_tokens(Session& session, int32_t rows, const int64_t* lengths,
                                              const int64_t* positions) const {
        std::vector<const int64_t*> given;
        for (int32_t row = 0; row < rows && uses_positions_; positions += lengths[row++]) given.push_back(positions);
        return positions_of_rows(session, rows, lengths, given.empty() ? nullptr : given.data());
    }

    // Computes the first token of each row.
    static Sequences pack(Session& session, int32_t rows, const int64_t* lengths, const int64_t* const* positions) {
        int64_t* starts = session.starts.reserve(int64_t{rows} + 1);
        int64_t total = 0;
        for (int32_t row = 0; row < rows; ++row) {
            starts[row] = total;
            total += lengths[row];
        }
        return {rows, lengths, starts, positions};
    }

    void write_starts(const Sequences& sequences, const float* states, const float** starts) const {
        for (int64_t i = 0; i < sequences.count; ++i) starts[i] = states + sequences.starts[i] * hidden_;
    }

    Embeddings embeddings_;
    std::vector<Exit> exits_;
    Encoder encoder_;
    bool uses_positions_;
    int64_t hidden_;
    int64_t max_length_;  // 0: unlimited
    int32_t threads_;
    Parallelizer parallelizer_;
    PerProcess<Session> session_;
};

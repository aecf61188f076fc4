// The calls of a model: embed, probe, advance, and answer, which runs all of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "check.h"
#include "model.h"
#include "parallel.h"
#include "per_process.h"
#include "session.h"

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

// The threads of a process that contexts share.
class SharedThreads {
   public:
    explicit SharedThreads(int32_t threads) : threads_(threads), pool_(std::make_unique<ThreadPool>(threads)) {}

    int32_t threads() const { return threads_; }
    ThreadPool& pool() const {
        return pool_.get([&] { return std::make_unique<ThreadPool>(threads_); });
    }

   private:
    int32_t threads_;
    PerProcess<ThreadPool> pool_;
};

// Runs the calls of one model, one at a time. Contexts of the same model and of the same threads run at the same time.
class Context {
   public:
    Context(std::shared_ptr<const Model> model, std::shared_ptr<const SharedThreads> threads, int64_t min_macs_per_thread)
        : model_(std::move(model)),
          threads_(std::move(threads)),
          parallelizer_(threads_->threads(), min_macs_per_thread),
          session_(std::make_unique<Session>(threads_->threads())) {}

    int64_t bytes() const {
        Session& session = this->session();
        const std::lock_guard<std::mutex> guard(session.mutex);
        return session.bytes();
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
        check_range("the call", "the exit", exit, 0, model_->last_exit() - 1);
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
        check_range("the call", "the exit", exit, 0, model_->last_exit());
        check_rows(rows, lengths);
        check_starts(rows, starts);
        if (rows > 0) check_array("the call", "logits", outputs, outputs_size, int64_t{rows} * model_->num_outputs());
        return with_session([&](Session& session) {
            const int64_t* const* given = positions_of_rows(session, rows, lengths, positions);
            probe_rows(session, exit, rows, starts, lengths, given, outputs);
        });
    }

    // Types and positions may be null, see `sweet_answer`.
    int32_t answer(const sweet_policy& policy, int32_t rows, int64_t tokens, const int64_t* lengths, Tokens given,
                   const Answers& answers) {
        check_policy(policy, model_->last_exit() + 1, model_->num_outputs());
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
    // Also checks the length of the rows; returns the total number of tokens.
    int64_t check_rows(int64_t rows, const int64_t* lengths) const {
        const int64_t tokens = ::check_rows(rows, lengths);
        for (int64_t row = 0; row < rows && model_->max_length > 0; ++row)
            check_range("the call", "the length of a row", lengths[row], 1, model_->max_length);
        return tokens;
    }

    Session& session() const {
        return session_.get([&] { return std::make_unique<Session>(threads_->threads()); });
    }

    // Runs call(session) when threads are available.
    template <class Call>
    int32_t with_session(Call call) const {
        Session& session = this->session();
        const std::lock_guard<std::mutex> guard(session.mutex);
        ThreadPool::Call threads(threads_->pool(), session.backoff);
        session.call = &threads;
        call(session);
        return threads.has_thread_shortage() ? SWEET_FEWER_THREADS : SWEET_OK;
    }

    static void check_starts(int32_t rows, const float* const* starts) {
        if (rows > 0) check_pointer("the call", "starts", starts);
        for (int32_t row = 0; row < rows; ++row) check_pointer("the call", "the start of a row", starts[row]);
    }

    void check_states(int64_t tokens, const float* states, int64_t size, const float** starts) const {
        check_pointer("the call", "states", states);
        check_pointer("the call", "starts", starts);
        const int64_t required = tokens * model_->hidden + SWEET_READ_PADDING;
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
        check(ids, 0, model_->embeddings.vocabulary, "token id");
        if (!model_->embeddings.token_types.empty()) check(types, 0, model_->embeddings.num_token_types, "token type");
        const int64_t offset = model_->embeddings.position_offset;
        if (model_->uses_positions) check_pointer("the call", "position", positions);
        if (!model_->embeddings.positions.empty())
            check(positions, -offset, model_->embeddings.num_positions - offset, "position");
    }

    void answer_rows(Session& session, const sweet_policy& policy, int32_t rows, int64_t tokens, const int64_t* lengths,
                     const Tokens& given, const Answers& answers) const {
        const int32_t num_outputs = model_->num_outputs(), last = model_->last_exit();
        ActiveRows& active = session.active;
        active.reset(rows, lengths, num_outputs, tokens * model_->hidden + SWEET_READ_PADDING);
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
        const int last_layer = model_->exit_at(0).full_layers;
        const auto macs = [&](int first, int last) {
            return (first == 0 ? model_->embeddings.equivalent_macs(sequences.tokens()) : 0) +
                   model_->encoder.macs(sequences, first, last);
        };
        parallelizer_.for_each_job(0, last_layer, macs, [&](int first, int last) {
            parallelizer_.run(
                session, sequences, 1, macs(first, last),
                [&](Workspace& workspace, const Sequences& part, int64_t threads) {
                    if (first == 0) model_->embeddings.reserve(part.tokens(), workspace);
                    model_->encoder.reserve(part, threads, first, last, workspace);
                },
                [&](Workspace& workspace, const Sequences& part, const Team& team) {
                    const int64_t token = part.starts[0];
                    float* part_states = states + token * model_->hidden;
                    if (first == 0)
                        model_->embeddings.lookup(part.tokens(), ids + token, types + token, positions + token, part_states,
                                                  workspace, team);
                    model_->encoder.run(first, last, part_states, part, workspace, team);
                });
        });
    }

    void advance_rows(Session& session, int32_t exit, int32_t rows, const float* const* row_starts, const int64_t* lengths,
                      const int64_t* const* positions, float* states, const float** next_starts) const {
        const Sequences sequences = pack(session, rows, lengths, positions);
        write_starts(sequences, states, next_starts);
        const int first_layer = model_->exit_at(exit).full_layers, last_layer = model_->exit_at(exit + 1).full_layers;
        const auto macs = [&](int first, int last) { return model_->encoder.macs(sequences, first, last); };
        parallelizer_.for_each_job(first_layer, last_layer, macs, [&](int first, int last) {
            parallelizer_.run(
                session, sequences, 1, macs(first, last),
                [&](Workspace& workspace, const Sequences& part, int64_t threads) {
                    model_->encoder.reserve(part, threads, first, last, workspace);
                },
                [&](Workspace& workspace, const Sequences& part, const Team& team) {
                    if (first == first_layer) {
                        const auto [first_row, last_row] = team.range(part.count);
                        const float* const* from = row_starts + (part.starts - sequences.starts);
                        for (int64_t i = first_row; i < last_row; ++i)
                            std::copy_n(from[i], part.lengths[i] * model_->hidden, states + part.starts[i] * model_->hidden);
                        team.barrier();
                    }
                    model_->encoder.run(first, last, states + part.starts[0] * model_->hidden, part, workspace, team);
                });
        });
    }

    void probe_rows(Session& session, int32_t exit, int32_t rows, const float* const* row_starts, const int64_t* lengths,
                    const int64_t* const* positions, float* outputs) const {
        const Sequences sequences = pack(session, rows, lengths, positions);
        const Exit& of = model_->exit_at(exit);
        const Probe probe(model_->encoder.config(), model_->encoder.positions(), model_->encoder.layer(of.layer), of.norm,
                          of.head);
        const SharedQuery* shared = nullptr;
        if (of.full_layers == 0 && rows > 0)
            shared = probe.find_shared_query(row_starts, sequences, session.shared_query, session.workspaces.front());
        parallelizer_.run(
            session, sequences, probe.min_sequences(), probe.macs(sequences),
            [&](Workspace& workspace, const Sequences& part, int64_t threads) { probe.reserve(part, threads, workspace); },
            [&](Workspace& workspace, const Sequences& part, const Team& team) {
                const int64_t first = part.starts - sequences.starts;
                probe.run(row_starts + first, part, shared, outputs + first * model_->num_outputs(), workspace, team);
            });
    }

    // Returns the positions of the rows that have gaps, and null for the others, whose positions are consecutive; null if all
    // are, or if the model does not use them.
    const int64_t* const* positions_of_rows(Session& session, int32_t rows, const int64_t* lengths,
                                            const int64_t* const* positions) const {
        session.positions.clear();
        if (positions == nullptr || !model_->uses_positions) return nullptr;
        bool have_gaps = false;
        for (int32_t row = 0; row < rows; ++row) {
            const bool has_gaps = positions[row] != nullptr && !counts_without_padding(positions[row], lengths[row]) &&
                                  !check_positions(row, positions[row], lengths[row]);
            if (has_gaps && model_->max_length > 0) {
                check_range("the call", "the first position of a row", positions[row][0], 0, model_->max_length - 1);
                check_range("the call", "the last position of a row", positions[row][lengths[row] - 1], 0,
                            model_->max_length - 1);
            }
            session.positions.push_back(has_gaps ? positions[row] : nullptr);
            have_gaps = have_gaps || has_gaps;
        }
        if (!have_gaps) session.positions.clear();
        return have_gaps ? session.positions.data() : nullptr;
    }

    // Returns whether padding tokens stand among the tokens of a row, which then has no gaps: the distances of a position bias
    // count them, the positions do not.
    bool counts_without_padding(const int64_t* positions, int64_t length) const {
        return model_->encoder.positions().bias().is_present() && model_->embeddings.position_offset > 0 &&
               std::any_of(positions, positions + length, [](int64_t position) { return position < 0; });
    }

    // The same for the positions of the packed tokens.
    const int64_t* const* positions_of_tokens(Session& session, int32_t rows, const int64_t* lengths,
                                              const int64_t* positions) const {
        std::vector<const int64_t*> given;
        for (int32_t row = 0; row < rows && model_->uses_positions; positions += lengths[row++]) given.push_back(positions);
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
        for (int64_t i = 0; i < sequences.count; ++i) starts[i] = states + sequences.starts[i] * model_->hidden;
    }

    std::shared_ptr<const Model> model_;
    std::shared_ptr<const SharedThreads> threads_;
    Parallelizer parallelizer_;
    PerProcess<Session> session_;
};

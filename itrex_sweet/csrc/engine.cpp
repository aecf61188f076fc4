// The C interface of the native engine. Compiled once per instruction set, selected by SWEET_ISA_*.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

#include "context.h"
#include "operations.h"

// Handles share ownership, so that they may be freed in any order.
struct sweet_model {
    std::shared_ptr<const Model> shared;
};

struct sweet_threads {
    std::shared_ptr<const SharedThreads> shared;
};

struct sweet_context {
    Context context;
};

namespace {

// Static memory: reporting that memory is exhausted must not allocate.
thread_local char last_error[512] = "";

void set_error(const char* message) { std::snprintf(last_error, sizeof(last_error), "%s", message); }

// Converts exceptions to an error message and a negative result.
template <class Call>
int32_t guarded(Call call) {
    try {
        if constexpr (std::is_void_v<decltype(call())>) {
            call();
            return SWEET_OK;
        } else {
            return call();
        }
    } catch (const std::bad_alloc&) {
        set_error("out of memory");
    } catch (const std::exception& error) {
        set_error(error.what());
    } catch (...) {
        set_error("unknown error");
    }
    return -1;
}

void check_model(const sweet_model* model) { check_pointer("the call", "the model", model); }
void check_threads(const sweet_threads* threads) { check_pointer("the call", "the threads", threads); }
void check_context(const sweet_context* context) { check_pointer("the call", "the context", context); }

// Checks an elementwise operation on `count` values.
void check_values(int64_t count, const float* from, const float* to) {
    check_range("the call", "the number of values", count, 0, std::numeric_limits<int32_t>::max() - kLanes);
    if (count == 0) return;
    check_pointer("the call", "the values", from);
    check_pointer("the call", "the results", to);
}

void check_logits(int32_t rows, int32_t labels, const float* logits) {
    check_range("the call", "the number of rows", rows, 0, kMaxTokens);
    check_range("the call", "the number of labels", labels, 1, kMaxOutputs);
    if (rows > 0) check_pointer("the call", "logits", logits);
}

// Checks the temperature of each row.
void check_temperatures(int32_t rows, const float* temperatures) {
    if (rows > 0) check_pointer("the call", "temperatures", temperatures);
    for (int64_t row = 0; row < rows; ++row) check_positive("the call", "a temperature", temperatures[row]);
}

void check_linear_call(const sweet_linear* layer, int32_t rows, int32_t threads) {
    check_pointer("the call", "the layer", layer);
    check_linear("the layer", *layer);
    check_range("the call", "the number of rows", rows, 0, kMaxTokens);
    validate_threads(threads);
}

}  // namespace

int32_t sweet_interface() { return kSweetInterface; }

int64_t sweet_size_of(const char* structure) {
    constexpr std::pair<const char*, size_t> kSizes[] = {
        {"sweet_floats", sizeof(sweet_floats)}, {"sweet_linear", sizeof(sweet_linear)},
        {"sweet_norm", sizeof(sweet_norm)},     {"sweet_layer", sizeof(sweet_layer)},
        {"sweet_head", sizeof(sweet_head)},     {"sweet_embeddings", sizeof(sweet_embeddings)},
        {"sweet_policy", sizeof(sweet_policy)}, {"sweet_description", sizeof(sweet_description)},
        {"sweet_exit", sizeof(sweet_exit)},     {"sweet_rotary", sizeof(sweet_rotary)}};
    for (const auto& [name, size] : kSizes)
        if (structure != nullptr && std::strcmp(structure, name) == 0) return static_cast<int64_t>(size);
    return -1;
}

sweet_model* sweet_model_new(const sweet_description* description) {
    sweet_model* model = nullptr;
    guarded([&] {
        check_pointer("the call", "the description", description);
        check_description(*description);
        model = new sweet_model{std::make_shared<const Model>(*description)};
    });
    return model;
}

void sweet_model_free(sweet_model* model) { delete model; }

int64_t sweet_model_bytes(const sweet_model* model) {
    int64_t bytes = -1;
    guarded([&] {
        check_model(model);
        bytes = model->shared->bytes();
    });
    return bytes;
}

sweet_threads* sweet_threads_new(int32_t threads) {
    sweet_threads* created = nullptr;
    guarded([&] { created = new sweet_threads{std::make_shared<const SharedThreads>(validate_threads(threads))}; });
    return created;
}

void sweet_threads_free(sweet_threads* threads) { delete threads; }

int32_t sweet_threads_count(const sweet_threads* threads, int64_t* counts) {
    return guarded([&] {
        check_threads(threads);
        check_pointer("the call", "counts", counts);
        const ThreadPool::Counts now = threads->shared->pool().counts();
        counts[SWEET_CALLS] = now.calls;
        counts[SWEET_THREADS] = now.threads;
        counts[SWEET_MOST_CALLS] = now.most_running;
        counts[SWEET_MOST_THREADS] = now.most_threads;
    });
}

int32_t sweet_threads_wake(const sweet_threads* threads) {
    return guarded([&] {
        check_threads(threads);
        threads->shared->pool().wake();
    });
}

int32_t sweet_threads_yield(const sweet_threads* threads, int32_t yields) {
    return guarded([&] {
        check_threads(threads);
        threads->shared->pool().set_yields(yields != 0);
    });
}

sweet_context* sweet_context_new(const sweet_model* model, const sweet_threads* threads, int64_t min_macs_per_thread) {
    sweet_context* context = nullptr;
    guarded([&] {
        check_model(model);
        check_threads(threads);
        check_range("the call", "min_macs_per_thread", min_macs_per_thread, -1, std::numeric_limits<int64_t>::max());
        context = new sweet_context{Context(model->shared, threads->shared, min_macs_per_thread)};
    });
    return context;
}

void sweet_context_free(sweet_context* context) { delete context; }

int64_t sweet_context_bytes(const sweet_context* context) {
    int64_t bytes = -1;
    guarded([&] {
        check_context(context);
        bytes = context->context.bytes();
    });
    return bytes;
}

int32_t sweet_embed(sweet_context* context, int32_t rows, int64_t tokens, const int64_t* lengths, const int64_t* ids,
                    const int64_t* token_types, const int64_t* positions, float* states, int64_t states_size,
                    const float** starts) {
    return guarded([&] {
        check_context(context);
        return context->context.embed(rows, tokens, lengths, ids, token_types, positions, states, states_size, starts);
    });
}

int32_t sweet_probe(sweet_context* context, int32_t exit, int32_t rows, const float* const* starts, const int64_t* lengths,
                    const int64_t* const* positions, float* logits, int64_t logits_size) {
    return guarded([&] {
        check_context(context);
        return context->context.probe(exit, rows, starts, lengths, positions, logits, logits_size);
    });
}

int32_t sweet_advance(sweet_context* context, int32_t exit, int32_t rows, const float* const* starts, const int64_t* lengths,
                      const int64_t* const* positions, float* states, int64_t states_size, const float** next_starts) {
    return guarded([&] {
        check_context(context);
        return context->context.advance(exit, rows, starts, lengths, positions, states, states_size, next_starts);
    });
}

int32_t sweet_confidence(int32_t rows, int32_t labels, const float* logits, float temperature, const float* label_offsets,
                         int32_t target_label, float* confidences) {
    return guarded([&] {
        check_logits(rows, labels, logits);
        check_positive("the call", "the temperature", temperature);
        check_range("the call", "the target label", target_label, -1, labels - 1);
        if (rows > 0) check_pointer("the call", "confidences", confidences);
        for (int64_t row = 0; row < rows; ++row)
            confidences[row] = confidence_of_logits(logits + row * labels, labels, temperature, label_offsets, target_label);
    });
}

int32_t sweet_logistic(int32_t count, const float* values, float* probabilities) {
    return guarded([&] {
        check_values(count, values, probabilities);
        std::transform(values, values + count, probabilities, logistic);
    });
}

int32_t sweet_best_label(int32_t rows, int32_t labels, const float* logits, const float* temperatures, int64_t* best,
                         float* probabilities) {
    return guarded([&] {
        check_logits(rows, labels, logits);
        check_temperatures(rows, temperatures);
        if (rows > 0) {
            check_pointer("the call", "best", best);
            check_pointer("the call", "probabilities", probabilities);
        }
        for (int64_t row = 0; row < rows; ++row)
            std::tie(best[row], probabilities[row]) = best_label(logits + row * labels, labels, temperatures[row]);
    });
}

int32_t sweet_probabilities(int32_t rows, int32_t labels, const float* logits, const float* temperatures,
                            float* probabilities) {
    return guarded([&] {
        check_logits(rows, labels, logits);
        check_temperatures(rows, temperatures);
        if (rows > 0) check_pointer("the call", "probabilities", probabilities);
        for (int64_t row = 0; row < rows; ++row)
            label_probabilities(logits + row * labels, labels, temperatures[row], probabilities + row * labels);
    });
}

int32_t sweet_answer(sweet_context* context, const sweet_policy* policy, int32_t rows, int64_t tokens, const int64_t* lengths,
                     const int64_t* ids, const int64_t* token_types, const int64_t* positions, float* logits, int64_t* exits,
                     float* confidences, int64_t* best, float* probabilities) {
    return guarded([&] {
        check_context(context);
        check_pointer("the call", "the policy", policy);
        const Answers answers{logits, exits, confidences, best, probabilities};
        return context->context.answer(*policy, rows, tokens, lengths, {ids, token_types, positions}, answers);
    });
}

const char* sweet_isa() { return kInstructionSet; }
const char* sweet_error() { return last_error; }

int32_t sweet_op_gemm_int32(int32_t m, int32_t n, int32_t k, const uint8_t* a, const int8_t* w, int32_t* c) {
    return guarded([&] {
        check_range("the call", "m", m, 0, kMaxTokens);
        check_range("the call", "n", n, 1, kMaxOutputs);
        check_range("the call", "k", k, 1, kMaxInputs);
        checked_product("the call", m, std::max(n, k));
        check_pointer("the call", "w", w);
        if (m > 0) {
            check_pointer("the call", "a", a);
            check_pointer("the call", "c", c);
        }
        gemm_int32(m, n, k, a, w, c);
    });
}

int32_t sweet_op_linear(const sweet_linear* layer, int32_t m, const float* x, float* y, int32_t threads) {
    return guarded([&] {
        check_linear_call(layer, m, threads);
        if (m == 0) return;
        check_pointer("the call", "x", x);
        check_pointer("the call", "y", y);
        LinearCall(*layer, m, x, threads).run(y);
    });
}

double sweet_op_time(const sweet_linear* layer, int32_t m, int32_t threads, int32_t repeats) {
    double median = -1.0;
    guarded([&] {
        check_linear_call(layer, m, threads);
        check_range("the call", "the number of repeats", repeats, 1, 1 << 20);
        median = time_linear(*layer, m, threads, repeats);
    });
    return median;
}

double sweet_op_peak(int32_t threads) {
    double rate = -1.0;
    guarded([&] { rate = measure_peak(validate_threads(threads)); });
    return rate;
}

int32_t sweet_op_attention(int32_t rows, const int64_t* lengths, int32_t heads, int32_t size, float scale, int32_t use_int16,
                           int32_t window, const float* qkv, float* context) {
    return guarded([&] {
        check_range("the call", "the number of heads", heads, 1, kMaxInputs);
        check_range("the call", "the size of a head", size, 1, kMaxInputs / heads);
        check_positive("the call", "the scale", scale);
        check_range("the call", "the window", window, 0, kMaxTokens);
        const int64_t tokens = check_rows(rows, lengths);
        if (rows > 0) {
            check_pointer("the call", "qkv", qkv);
            check_pointer("the call", "context", context);
        }
        self_attention(rows, lengths, tokens, heads, size, scale, use_int16 != 0, window, qkv, context);
    });
}

int32_t sweet_op_activation(int32_t activation, int32_t count, const float* x, float* y) {
    return guarded([&] {
        check_activation("the call", activation);
        check_values(count, x, y);
        for (int32_t first = 0; first < count; first += kLanes) {
            const int lanes = std::min(kLanes, count - first);
            store_partial(y + first, activate(activation, load_partial(x + first, lanes)), lanes);
        }
    });
}

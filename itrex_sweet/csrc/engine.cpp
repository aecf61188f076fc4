// The native engine, compiled once for each instruction set into a shared object of its own.

#if defined(SWEET_ISA_AMX)
#include "tile_amx.h"
#elif defined(SWEET_ISA_AVX512_BF16) || defined(SWEET_ISA_AVX512_VNNI)
#include "tile_vnni.h"
#elif defined(SWEET_ISA_AVX2)
#include "tile_avx2.h"
#elif defined(SWEET_ISA_PORTABLE)
#include "tile_portable.h"
#else
#error "no instruction set was chosen"
#endif

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "model.h"

namespace {

// In memory that is there already: reporting that there is none left must not need any.
thread_local char last_error[512] = "";

void report(const char* message) { std::snprintf(last_error, sizeof(last_error), "%s", message); }

// Runs what may throw, for a caller that cannot catch.
template <class Call>
int32_t guarded(Call call) {
    try {
        if constexpr (std::is_void_v<decltype(call())>) {
            call();
            return SWEET_DONE;
        } else {
            return call();
        }
    } catch (const std::bad_alloc&) {
        report("out of memory");
    } catch (const std::exception& error) {
        report(error.what());
    } catch (...) {
        report("an unknown failure");
    }
    return -1;
}

void check_model(const sweet_model* model) { check_pointer("the call", "the model", model); }

// `count` values that become as many others.
void check_values(int64_t count, const float* from, const float* to) {
    check_range("the call", "the number of values", count, 0, std::numeric_limits<int32_t>::max() - kLanes);
    if (count == 0) return;
    check_pointer("the call", "the values", from);
    check_pointer("the call", "the results", to);
}

void check_call(const sweet_linear* layer, int32_t rows, int32_t threads) {
    check_pointer("the call", "the layer", layer);
    check_linear("the layer", *layer);
    check_range("the call", "the number of rows", rows, 0, kMostTokens);
    checked_threads(threads);
}

double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// One linear layer of floats, by a team of `pool`'s threads.
class LinearCall {
   public:
    LinearCall(const sweet_linear& layer, int32_t rows, const float* x, int32_t threads)
        : packed_(layer), rows_(rows), threads_(threads), pool_(threads), x_(x) {
        input_.reserve(packed_, rows, false);
    }
    void run(float* y) {
        pool_.run(pool_.size_for(threads_), [&](const Team& team) {
            const auto [first, last] = team.part(rows_);
            for (int64_t row = first; row < last; ++row) input_.quantize_row(packed_, row, x_ + row * packed_.in);
            team.meet();
            multiply(packed_, input_.rows(packed_, x_), rows_, team,
                     [&](int64_t row, int64_t column, f32x16 values, int lanes)
                         __attribute__((always_inline)) { store_some(y + row * packed_.out + column, values, lanes); });
        });
    }

   private:
    const Packed packed_;
    const int32_t rows_, threads_;
    Input input_;
    Pool pool_;
    const float* x_;
};

}  // namespace

int32_t sweet_interface() { return kSweetInterface; }

int64_t sweet_size_of(const char* structure) {
    constexpr std::pair<const char*, size_t> kSizes[] = {
        {"sweet_floats", sizeof(sweet_floats)}, {"sweet_linear", sizeof(sweet_linear)},
        {"sweet_norm", sizeof(sweet_norm)},     {"sweet_layer", sizeof(sweet_layer)},
        {"sweet_head", sizeof(sweet_head)},     {"sweet_embeddings", sizeof(sweet_embeddings)},
        {"sweet_policy", sizeof(sweet_policy)}, {"sweet_description", sizeof(sweet_description)},
        {"sweet_exit", sizeof(sweet_exit)}};
    for (const auto& [name, size] : kSizes)
        if (structure != nullptr && std::strcmp(structure, name) == 0) return static_cast<int64_t>(size);
    return -1;
}

sweet_model* sweet_model_new(const sweet_description* description, int32_t threads, int64_t least_work) {
    sweet_model* model = nullptr;
    guarded([&] {
        check_pointer("the call", "the description", description);
        check_range("the call", "least_work", least_work, -1, std::numeric_limits<int64_t>::max());
        check_description(*description);
        model = new sweet_model(*description, checked_threads(threads), least_work);
    });
    return model;
}

void sweet_model_free(sweet_model* model) { delete model; }

int64_t sweet_model_bytes(const sweet_model* model) {
    int64_t bytes = -1;
    guarded([&] {
        check_model(model);
        bytes = model->bytes();
    });
    return bytes;
}

int64_t sweet_workspace_bytes(const sweet_model* model) {
    int64_t bytes = -1;
    guarded([&] {
        check_model(model);
        bytes = model->workspace_bytes();
    });
    return bytes;
}

int32_t sweet_embed(sweet_model* model, int32_t rows, int64_t tokens, const int64_t* lengths, const int64_t* ids,
                    const int64_t* token_types, const int64_t* positions, float* states, int64_t states_size,
                    const float** starts) {
    return guarded([&] {
        check_model(model);
        return model->embed(rows, tokens, lengths, ids, token_types, positions, states, states_size, starts);
    });
}

int32_t sweet_probe(sweet_model* model, int32_t exit, int32_t rows, const float* const* starts, const int64_t* lengths,
                    float* logits, int64_t logits_size) {
    return guarded([&] {
        check_model(model);
        return model->probe(exit, rows, starts, lengths, logits, logits_size);
    });
}

int32_t sweet_advance(sweet_model* model, int32_t exit, int32_t rows, const float* const* starts, const int64_t* lengths,
                      float* states, int64_t states_size, const float** next_starts) {
    return guarded([&] {
        check_model(model);
        return model->advance(exit, rows, starts, lengths, states, states_size, next_starts);
    });
}

int32_t sweet_confidence(int32_t rows, int32_t labels, const float* logits, float temperature, float* confidences) {
    return guarded([&] {
        check_range("the call", "the number of rows", rows, 0, kMostTokens);
        check_range("the call", "the number of labels", labels, 1, kMostOutputs);
        check_positive("the call", "the temperature", temperature);
        if (rows > 0) {
            check_pointer("the call", "logits", logits);
            check_pointer("the call", "confidences", confidences);
        }
        for (int64_t row = 0; row < rows; ++row) confidences[row] = max_probability(logits + row * labels, labels, temperature);
    });
}

int32_t sweet_logistic(int32_t count, const float* values, float* shares) {
    return guarded([&] {
        check_values(count, values, shares);
        std::transform(values, values + count, shares, logistic);
    });
}

int32_t sweet_answer(sweet_model* model, const sweet_policy* policy, int32_t rows, int64_t tokens, const int64_t* lengths,
                     const int64_t* ids, const int64_t* token_types, const int64_t* positions, float* logits, int64_t* exits,
                     float* confidences) {
    return guarded([&] {
        check_model(model);
        check_pointer("the call", "the policy", policy);
        return model->answer(*policy, rows, tokens, lengths, ids, token_types, positions, logits, exits, confidences);
    });
}

const char* sweet_isa() { return kInstructionSet; }
const char* sweet_error() { return last_error; }

int32_t sweet_op_gemm_int32(int32_t m, int32_t n, int32_t k, const uint8_t* a, const int8_t* w, int32_t* c) {
    return guarded([&] {
        check_range("the call", "m", m, 0, kMostTokens);
        check_range("the call", "n", n, 1, kMostOutputs);
        check_range("the call", "k", k, 1, kMostInputs);
        checked_product("the call", m, std::max(n, k));
        check_pointer("the call", "w", w);
        if (m > 0) {
            check_pointer("the call", "a", a);
            check_pointer("the call", "c", c);
        }
        Buffer<float> ones(n);
        std::fill_n(ones.get(), n, 1.0f);
        sweet_linear layer{};
        layer.weight = w;
        layer.weight_size = int64_t{n} * k;
        layer.weight_scale = {ones.get(), n};
        layer.in = k;
        layer.out = n;
        const Packed packed(layer);
        Buffer<uint8_t> inputs((m + kTileRows) * packed.padded_in());
        for (int64_t row = 0; row < m; ++row) std::copy_n(a + row * k, k, inputs.get() + row * packed.padded_in());
        [[maybe_unused]] const TileSession session;
        alignas(64) int32_t sums[kTileRows * kPanel];
        for (int64_t panel = 0; panel < packed.panels(); ++panel) {
            const int8_t* weights = packed.weights.get() + panel * packed.padded_in() * kPanel;
            even_tiles(m, kTileRows, [&](int first, int height) {
                integer_tile(inputs.get() + first * packed.padded_in(), packed.padded_in(), height, weights,
                             static_cast<int>(packed.padded_in()) / kGroup, sums);
                const int64_t column = panel * kPanel;
                for (int64_t row = 0; row < height; ++row) {
                    std::copy_n(sums + row * kPanel, std::min<int64_t>(kPanel, n - column), c + (first + row) * n + column);
                }
            });
        }
    });
}

int32_t sweet_op_linear(const sweet_linear* layer, int32_t m, const float* x, float* y, int32_t threads) {
    return guarded([&] {
        check_call(layer, m, threads);
        if (m == 0) return;
        check_pointer("the call", "x", x);
        check_pointer("the call", "y", y);
        LinearCall(*layer, m, x, threads).run(y);
    });
}

double sweet_op_time(const sweet_linear* layer, int32_t m, int32_t threads, int32_t repeats) {
    double median = -1.0;
    guarded([&] {
        check_call(layer, m, threads);
        check_range("the call", "the number of repeats", repeats, 1, 1 << 20);
        Buffer<float> x(int64_t{m} * layer->in), y(int64_t{m} * layer->out);
        for (int64_t place = 0; place < int64_t{m} * layer->in; ++place) x[place] = static_cast<float>(place % 13 - 6);
        LinearCall call(*layer, m, x.get(), threads);
        std::vector<double> times;
        for (int32_t repeat = 0; repeat < repeats + 2; ++repeat) {
            const double start = seconds();
            call.run(y.get());
            if (repeat >= 2) times.push_back(seconds() - start);
        }
        std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
        median = 1000.0 * times.at(static_cast<size_t>(repeats / 2));
    });
    return median;
}

double sweet_op_peak(int32_t threads) {
    double best = -1.0;
    guarded([&] {
        Pool pool(checked_threads(threads));
        std::vector<int64_t> done(static_cast<size_t>(threads));
        for (int repeat = 0; repeat < 5; ++repeat) {
            std::fill(done.begin(), done.end(), 0);
            const int size = pool.size_for(threads);
            const double start = seconds();
            pool.run(size, [&](const Team& team) { done[static_cast<size_t>(team.index)] = peak_turns(400000); });
            int64_t total = 0;
            for (const int64_t part : done) total += part;
            best = std::max(best, static_cast<double>(total) / (seconds() - start));
        }
    });
    return best;
}

int32_t sweet_op_attention(int32_t rows, const int64_t* lengths, int32_t heads, int32_t size, float scale,
                           int32_t in_words, const float* projected, float* context) {
    return guarded([&] {
        check_range("the call", "the number of heads", heads, 1, kMostInputs);
        check_range("the call", "the size of a head", size, 1, kMostInputs / heads);
        check_positive("the call", "the scale", scale);
        const int64_t hidden = int64_t{heads} * size, total = check_rows(rows, lengths);
        if (rows > 0) {
            check_pointer("the call", "projected", projected);
            check_pointer("the call", "context", context);
        }
        AttentionMemory memory;
        Buffer<float> copy(total * 3 * hidden);  // with room behind for whole vectors
        std::copy_n(projected, total * 3 * hidden, copy.get());
        int64_t start = 0;
        for (int32_t row = 0; row < rows; start += lengths[row++]) {
            memory.reserve(lengths[row], size);
            for (int64_t head = 0; head < heads; ++head) {
                const float* query = copy.get() + start * 3 * hidden + head * size;
                attend(in_words != 0, query, query + hidden, query + 2 * hidden, 3 * hidden, static_cast<int>(lengths[row]),
                       size, scale, memory, [&](int64_t token, int64_t column, f32x16 values, int lanes) {
                           store_some(context + (start + token) * hidden + head * size + column, values, lanes);
                       });
            }
        }
    });
}

int32_t sweet_op_activation(int32_t activation, int32_t count, const float* x, float* y) {
    return guarded([&] {
        check_activation("the call", activation);
        check_values(count, x, y);
        for (int32_t place = 0; place < count; place += kLanes) {
            const int lanes = std::min(kLanes, count - place);
            store_some(y + place, activate(activation, load_some(x + place, lanes)), lanes);
        }
    });
}

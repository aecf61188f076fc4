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
#include <exception>

#include "model.h"

namespace {

thread_local std::string last_error;

// Runs what may throw, for a caller that cannot catch.
template <class Call>
int32_t guarded(Call call) {
    try {
        call();
        return 0;
    } catch (const std::exception& error) {
        last_error = error.what();
        return -1;
    }
}

double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// One linear layer of floats, by a team of `pool`'s threads.
class LinearCall {
   public:
    LinearCall(const sweet_linear& layer, int32_t rows, const float* x, int32_t threads)
        : packed_(layer), rows_(rows), pool_(threads), barrier_(threads), x_(x) {
        input_.reserve(packed_, rows, false);
    }
    void run(float* y) {
        pool_.run([&](int index) {
            const Team team{index, pool_.threads(), &barrier_};
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
    const int32_t rows_;
    Input input_;
    Pool pool_;
    Barrier barrier_;
    const float* x_;
};

}  // namespace

sweet_model* sweet_model_new(const sweet_description* description, int32_t threads) {
    sweet_model* model = nullptr;
    guarded([&] {
        if (threads < 1) throw std::invalid_argument("at least one thread is needed");
        model = new sweet_model(*description, threads);
    });
    return model;
}

void sweet_model_free(sweet_model* model) { delete model; }
int64_t sweet_model_bytes(const sweet_model* model) { return model->bytes(); }
int64_t sweet_workspace_bytes(const sweet_model* model) { return model->workspace_bytes(); }

int32_t sweet_embed(sweet_model* model, int32_t rows, const int64_t* lengths, const int64_t* ids, const int64_t* token_types,
                    const int64_t* positions, float* states, const float** starts) {
    return guarded([&] { model->embed(rows, lengths, ids, token_types, positions, states, starts); });
}

int32_t sweet_probe(sweet_model* model, int32_t exit, int32_t rows, const float* const* starts, const int64_t* lengths,
                    float* logits) {
    return guarded([&] { model->probe(exit, rows, starts, lengths, logits); });
}

int32_t sweet_advance(sweet_model* model, int32_t exit, int32_t rows, const float* const* starts, const int64_t* lengths,
                      float* states, const float** next_starts) {
    return guarded([&] { model->advance(exit, rows, starts, lengths, states, next_starts); });
}

int32_t sweet_confidence(int32_t rows, int32_t labels, const float* logits, float temperature, float* confidences) {
    return guarded([&] {
        for (int64_t row = 0; row < rows; ++row) confidences[row] = max_probability(logits + row * labels, labels, temperature);
    });
}

int32_t sweet_logistic(int32_t count, const float* values, float* shares) {
    return guarded([&] { std::transform(values, values + count, shares, logistic); });
}

int32_t sweet_answer(sweet_model* model, const sweet_policy* policy, int32_t rows, const int64_t* lengths, const int64_t* ids,
                     const int64_t* token_types, const int64_t* positions, float* logits, int64_t* exits,
                     float* confidences) {
    return guarded(
        [&] { model->answer(*policy, rows, lengths, ids, token_types, positions, logits, exits, confidences); });
}

const char* sweet_isa() { return kInstructionSet; }
const char* sweet_error() { return last_error.c_str(); }

int32_t sweet_op_gemm_int32(int32_t m, int32_t n, int32_t k, const uint8_t* a, const int8_t* w, int32_t* c) {
    return guarded([&] {
        if (m < 0 || n < 1 || k < 1) throw std::invalid_argument("a negative or empty shape");
        Buffer<float> ones(n);
        std::fill_n(ones.get(), n, 1.0f);
        const Packed packed(sweet_linear{w, ones.get(), nullptr, nullptr, 1.0f, 0, k, n, 0, 0});
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
        if (m < 0 || threads < 1) throw std::invalid_argument("a negative number of rows, or no thread");
        LinearCall(*layer, m, x, threads).run(y);
    });
}

double sweet_op_time(const sweet_linear* layer, int32_t m, int32_t threads, int32_t repeats) {
    double median = -1.0;
    guarded([&] {
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
    Pool pool(threads);
    std::vector<int64_t> done(static_cast<size_t>(threads));
    double best = 0.0;
    for (int repeat = 0; repeat < 5; ++repeat) {
        const double start = seconds();
        pool.run([&](int index) { done[static_cast<size_t>(index)] = peak_turns(400000); });
        int64_t total = 0;
        for (const int64_t part : done) total += part;
        best = std::max(best, static_cast<double>(total) / (seconds() - start));
    }
    return best;
}

int32_t sweet_op_attention(int32_t rows, const int64_t* lengths, int32_t heads, int32_t size, float scale,
                           int32_t in_words, const float* projected, float* context) {
    return guarded([&] {
        const int64_t hidden = int64_t{heads} * size;
        AttentionMemory memory;
        int64_t total = 0;
        for (int32_t row = 0; row < rows; ++row) total += lengths[row];
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
        for (int32_t place = 0; place < count; place += kLanes) {
            const int lanes = std::min(kLanes, count - place);
            store_some(y + place, activate(activation, load_some(x + place, lanes)), lanes);
        }
    });
}

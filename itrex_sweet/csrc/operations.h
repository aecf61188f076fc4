// Single operations for tests and micro-benchmarks; they pack their weights in every call.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "attention.h"
#include "blocked_attention.h"
#include "buffer.h"
#include "check.h"
#include "gemm.h"
#include "linear_input.h"
#include "packed_linear.h"
#include "threads.h"
#include "tile.h"

inline double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// c (m, n) = a (m, k) · wᵀ, w (n, k).
inline void gemm_int32(int32_t m, int32_t n, int32_t k, const uint8_t* a, const int8_t* w, int32_t* c) {
    Buffer<float> ones(n);
    std::fill_n(ones.get(), n, 1.0f);
    sweet_linear layer{};
    layer.weight = w;
    layer.weight_size = int64_t{n} * k;
    layer.weight_scale = {ones.get(), n};
    layer.in = k;
    layer.out = n;
    const PackedLinear packed(layer);
    Buffer<uint8_t> inputs((m + kTileRows) * packed.padded_in());
    for (int64_t row = 0; row < m; ++row) std::copy_n(a + row * k, k, inputs.get() + row * packed.padded_in());
    [[maybe_unused]] const TileSession session;
    alignas(64) int32_t sums[kTileRows * kPanel];
    for (int64_t panel = 0; panel < packed.panels(); ++panel) {
        const int8_t* weights = packed.weights.get() + panel * packed.padded_in() * kPanel;
        for_each_tile(m, kTileRows, [&](int first, int height) {
            integer_tile(inputs.get() + first * packed.padded_in(), packed.padded_in(), height, weights,
                         static_cast<int>(packed.padded_in()) / kGroup, sums);
            const int64_t column = panel * kPanel;
            for (int64_t row = 0; row < height; ++row) {
                std::copy_n(sums + row * kPanel, std::min<int64_t>(kPanel, n - column), c + (first + row) * n + column);
            }
        });
    }
}

// A linear layer with float32 input and output, on a thread pool of its own.
class LinearCall {
   public:
    LinearCall(const sweet_linear& layer, int32_t rows, const float* x, int32_t threads)
        : packed_(layer), rows_(rows), threads_(threads), pool_(threads), call_(pool_, backoff_), x_(x) {
        input_.reserve(packed_, rows, false);
    }
    void run(float* y) {
        call_.prepare(threads_, threads_);
        call_.run([&](const Team& team) {
            const auto [first, last] = team.range(rows_);
            for (int64_t row = first; row < last; ++row) input_.quantize_row(packed_, row, x_ + row * packed_.in);
            team.barrier();
            gemm(
                packed_, input_.rows(packed_, x_), rows_,
                team, [&](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                    store_partial(y + row * packed_.out + column, values, lanes);
                });
        });
    }

   private:
    const PackedLinear packed_;
    const int32_t rows_, threads_;
    LinearInput input_;
    ThreadPool pool_;
    Backoff backoff_;
    ThreadPool::Call call_;
    const float* x_;
};

// Returns the median time of a layer in milliseconds.
inline double time_linear(const sweet_linear& layer, int32_t m, int32_t threads, int32_t repeats) {
    constexpr int32_t kWarmUp = 2;
    Buffer<float> x(int64_t{m} * layer.in), y(int64_t{m} * layer.out);
    for (int64_t index = 0; index < int64_t{m} * layer.in; ++index) x[index] = static_cast<float>(index % 13 - 6);
    LinearCall call(layer, m, x.get(), threads);
    std::vector<double> times;
    for (int32_t repeat = 0; repeat < repeats + kWarmUp; ++repeat) {
        const double start = seconds();
        call.run(y.get());
        if (repeat >= kWarmUp) times.push_back(seconds() - start);
    }
    std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
    return 1000.0 * times.at(static_cast<size_t>(repeats / 2));
}

// Returns the highest of 5 measured rates of int8 multiply-accumulates per second.
inline double measure_peak(int32_t threads) {
    double best = -1.0;
    ThreadPool pool(threads);
    Backoff backoff;
    ThreadPool::Call call(pool, backoff);
    std::vector<int64_t> macs(static_cast<size_t>(threads));
    for (int repeat = 0; repeat < 5; ++repeat) {
        std::fill(macs.begin(), macs.end(), 0);
        call.prepare(threads, threads);
        const double start = seconds();
        call.run([&](const Team& team) { macs[static_cast<size_t>(team.index)] = run_peak_loop(400000); });
        int64_t total = 0;
        for (const int64_t part : macs) total += part;
        best = std::max(best, static_cast<double>(total) / (seconds() - start));
    }
    return best;
}

// Self-attention of packed rows of `lengths`; qkv (tokens, 3 · heads · size), context (tokens, heads · size).
inline void self_attention(int32_t rows, const int64_t* lengths, int64_t tokens, int32_t heads, int32_t size, float scale,
                           bool use_int16, int32_t window, const float* qkv, float* context) {
    const int64_t hidden = int64_t{heads} * size;
    AttentionScratch scratch;
    Buffer<float> padded(tokens * 3 * hidden);  // readable beyond the end, unlike the caller's array
    std::copy_n(qkv, tokens * 3 * hidden, padded.get());
    int64_t start = 0;
    for (int32_t row = 0; row < rows; start += lengths[row++]) {
        scratch.reserve(lengths[row], size);
        for (int64_t head = 0; head < heads; ++head) {
            const float* query = padded.get() + start * 3 * hidden + head * size;
            const float *key = query + hidden, *value = key + hidden;
            const int length = static_cast<int>(lengths[row]);
            const auto write = [&](int64_t token, int64_t column, f32x16 values, int lanes) {
                store_partial(context + (start + token) * hidden + head * size + column, values, lanes);
            };
            if (needs_blocks(length, window, nullptr)) {
                blocked_attention(use_int16, query, key, value, 3 * hidden, length, size, scale, window, nullptr, scratch,
                                  write);
            } else {
                attention(use_int16, query, key, value, 3 * hidden, length, size, scale, scratch, write);
            }
        }
    }
}

// DeBERTa-v2's convolution beside the first layer: over the positions of a row, those without a token count as zeros.
#pragma once

#include <algorithm>
#include <cstdint>

#include "api.h"
#include "buffer.h"
#include "gemm.h"
#include "norm.h"
#include "linear_input.h"
#include "packed_linear.h"
#include "sequences.h"
#include "threads.h"

struct Convolution {
    PackedLinear linear;  // reads the states around a token, one after the other
    Norm norm;
    int32_t activation;

    explicit Convolution(const sweet_layer& layer)
        : linear(layer.convolution), norm(layer.convolution_norm), activation(layer.convolution_activation) {}

    int64_t bytes() const { return linear.bytes() + norm.bytes(); }
    int64_t half_width() const { return linear.in / norm.size / 2; }
};

// Memory of a team.
struct ConvolutionScratch {
    Buffer<float> windows;  // (tokens, width · hidden)
    Buffer<float> outputs;  // (tokens, hidden)
    LinearInput input;

    void reserve(const Convolution& convolution, int64_t tokens) {
        windows.reserve(tokens * convolution.linear.in);
        outputs.reserve(tokens * convolution.norm.size);
        input.reserve(convolution.linear, tokens, false);
    }
    int64_t bytes() const { return windows.bytes() + outputs.bytes() + input.bytes(); }

    // Writes window `row`: the states around token `token` of a row of `length` tokens, which begin at `states`.
    void write_window(const Convolution& convolution, int64_t row, const float* states, int64_t token, int64_t length,
                      const int64_t* positions) {
        const int64_t half = convolution.half_width(), hidden = convolution.norm.size;
        float* const window = windows.get() + row * convolution.linear.in;
        std::fill_n(window, convolution.linear.in, 0.0f);
        // Positions increase, so that a token at a distance of up to `half` positions is at most as many tokens away.
        for (int64_t other = std::max<int64_t>(token - half, 0); other <= std::min(token + half, length - 1); ++other) {
            const int64_t distance = positions == nullptr ? other - token : positions[other] - positions[token];
            if (distance < -half || distance > half) continue;
            std::copy_n(states + other * hidden, hidden, window + (distance + half) * hidden);
        }
        input.quantize_row(convolution.linear, row, window);
    }

    // Computes the outputs of all windows, which the team has written.
    void multiply(const Convolution& convolution, int64_t rows, const Team& team) const {
        team.barrier();
        const int64_t hidden = convolution.norm.size;
        gemm(
            convolution.linear, input.rows(convolution.linear, windows.get()), static_cast<int>(rows), team,
            [ activation = convolution.activation, hidden, to = outputs.get() ](int64_t row, int64_t column, f32x16 values,
                                                                                int lanes) __attribute__((always_inline)) {
                store_partial(to + row * hidden + column, activate(activation, values), lanes);
            });
    }

    // Adds the outputs to this thread's rows of the layer's output, and normalizes them.
    void add(const Convolution& convolution, float* states, int64_t rows, const Team& team) const {
        const int64_t hidden = convolution.norm.size;
        const auto [first, last] = team.range(rows);
        for (int64_t row = first; row < last; ++row) {
            float* const to = states + row * hidden;
            const float* const added = outputs.get() + row * hidden;
            for (int64_t column = 0; column < hidden; ++column) to[column] += added[column];
            convolution.norm.apply(to, to);
        }
    }
};

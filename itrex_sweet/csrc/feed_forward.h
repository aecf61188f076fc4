// A layer from after the attention: output projection, residual connections, norms, and the feed-forward part.
#pragma once

#include <algorithm>
#include <cstdint>

#include "gated.h"
#include "gemm.h"
#include "layers.h"
#include "threads.h"

// Waits until the team has written the input of `layer`, and quantizes what needs whole rows.
inline void finish_input(const PackedLinear& layer, const LinearInput& input, int64_t rows, const Team& team) {
    team.barrier();
    if (!layer.is_integer || layer.quantizes_elementwise()) return;
    const auto [first, last] = team.range(rows);
    for (int64_t row = first; row < last; ++row) input.quantize_row(layer, row, input.floats() + row * layer.in);
    team.barrier();
}

// Writes the input of `down`, from the input of `up` and of the gate; `x`: the same in float32.
inline void feed_up(const Layer& layer, int32_t activation, const float* x, int count, Workspace& workspace,
                    const Team& team) {
    const InputRows rows = workspace.up_input.rows(layer.up, x);
    const LinearInput::Writer write = workspace.down_input.writer(layer.down);
    if (!layer.is_gated) {
        gemm(
            layer.up, rows, count,
            team, [=](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                write(row, column, activate(activation, values), lanes);
            });
        return;
    }
    const int inner = layer.down.in;
    if (!layer.gate.is_present()) {
        alignas(64) float held[kMaxTileRows * kLanes];
        gemm(layer.up, rows, count, team, GatedEpilogue<LinearInput::Writer>{activation, inner, held, write});
        return;
    }
    float* gate_values = workspace.gate_values.get();
    gemm(
        layer.gate, workspace.gate_input.rows(layer.gate, x), count,
        team, [=](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
            store_partial(gate_values + row * inner + column, values, lanes);
        });
    team.barrier();
    gemm(
        layer.up, rows, count,
        team, [=](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
            write(row, column, activate(activation, values) * load_partial(gate_values + row * inner + column, lanes), lanes);
        });
}

// Runs a layer from after the attention. `attention_output_input` holds the context; `states` are the layer's input and are
// replaced by its output. No barrier at the end: a thread may read only its own range of rows.
inline void feed_forward(const Layer& layer, int32_t activation, float* states, int64_t rows, Workspace& workspace,
                         const Team& team) {
    const int hidden = layer.output_norm.size, count = static_cast<int>(rows);
    float* attended = workspace.attended.get();
    const auto [first, last] = team.range(rows);
    // to = from + linear(input).
    const auto add_linear = [&](const PackedLinear& linear, const LinearInput& input, const float* from, float* to) {
        gemm(
            linear, input.rows(linear), count, team,
            [=](int64_t row, int64_t column, f32x16 values, int lanes) __attribute__((always_inline)) {
                const int64_t offset = row * hidden + column;
                store_partial(to + offset, values + load_partial(from + offset, lanes), lanes);
            },
            [=](int64_t row, int64_t column) {
                for (int64_t offset = row * hidden + column, line = 0; line < kPanel; line += kLanes) {
                    prefetch_line(from + offset + line);
                    if (to != from) prefetch_line(to + offset + line);
                }
            });
        team.barrier();
    };
    // With `norm_first`, `states` accumulate and `attended` holds the normalized input of the feed-forward part; otherwise
    // `attended` is the output of the attention part, of which the feed-forward part is a residual.
    float* sums = layer.norm_first ? states : attended;
    const Norm& norm = layer.norm_first ? layer.output_norm : layer.attention_norm;
    finish_input(layer.attention_output, workspace.attention_output_input, rows, team);
    add_linear(layer.attention_output, workspace.attention_output_input, states, sums);
    for (int64_t row = first; row < last; ++row) {
        norm.apply(sums + row * hidden, attended + row * hidden);
        workspace.up_input.quantize_row(layer.up, row, attended + row * hidden);
        if (layer.gate.is_present()) workspace.gate_input.quantize_row(layer.gate, row, attended + row * hidden);
    }
    team.barrier();
    feed_up(layer, activation, attended, count, workspace, team);
    finish_input(layer.down, workspace.down_input, rows, team);
    add_linear(layer.down, workspace.down_input, sums, states);
    if (layer.norm_first) return;
    for (int64_t row = first; row < last; ++row) layer.output_norm.apply(states + row * hidden, states + row * hidden);
}

// Reserves the memory of `feed_forward`. Called before threads run, where an allocation may fail.
inline void reserve_feed_forward(const Layer& layer, int64_t rows, Workspace& workspace) {
    workspace.attended.reserve(rows * layer.output_norm.size);
    workspace.attention_output_input.reserve(layer.attention_output, rows, true);
    workspace.up_input.reserve(layer.up, rows, false);
    workspace.down_input.reserve(layer.down, rows, true);
    if (!layer.gate.is_present()) return;
    workspace.gate_input.reserve(layer.gate, rows, false);
    workspace.gate_values.reserve(rows * layer.down.in);
}

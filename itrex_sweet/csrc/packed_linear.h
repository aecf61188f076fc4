// Weights of a linear layer in the layout that the kernels read: panels of columns, inputs interleaved.
#pragma once

#include <algorithm>
#include <cstdint>

#include "api.h"
#include "buffer.h"
#include "tile.h"
#include "vector.h"

constexpr int kPanel = 32;                               // columns of an int8 panel
constexpr int kFloatPanel = kFloatTileVectors * kLanes;  // columns of a float panel
constexpr int kMaxPanel = std::max(kPanel, kFloatPanel);
constexpr int64_t kInputMultiple = 64;  // int8 inputs are padded to a multiple of it, with weights of zero

inline int64_t round_up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

struct PackedLinear {
    int in = 0, out = 0;
    bool is_integer = false, is_bfloat16 = false;  // else float32
    bool is_static = false;                        // static input quantization; else dynamic, per row
    float input_scale = 0.0f, inverse_scale = 0.0f;
    int32_t zero_point = 0;
    Buffer<int8_t> weights;            // panels of [inputs / kGroup][kPanel][kGroup]
    Buffer<float> float_weights;       // panels of [inputs][`panel_stride`]
    Buffer<int32_t> bfloat16_weights;  // panels of [inputs / 2][`panel_stride`], pairs of bfloat16
    Buffer<float> weight_scale, bias, smoothing;
    Buffer<int32_t> column_sums;  // of the weights, for the correction by the zero point

    PackedLinear() = default;
    explicit PackedLinear(const sweet_linear& layer) : PackedLinear(&layer, 1) {}

    // Concatenates the outputs of several layers that share their input and its quantization; `interleaved`: alternates
    // between `kLanes` outputs of each layer, all of the same size, padded to a multiple of `kLanes`.
    PackedLinear(const sweet_linear* layers, int count, bool interleaved = false)
        : in(layers->in), is_integer(layers->weight_scale.values != nullptr) {
        for (int index = 0; index < count; ++index)
            out += interleaved ? static_cast<int>(round_up(layers[index].out, kLanes)) : layers[index].out;
        if (out == 0) return;
        is_bfloat16 = !is_integer && layers->is_bfloat16 != 0 && in % 2 == 0;
        is_static = is_integer && layers->is_static != 0;
        if (is_static) {
            input_scale = layers->input_scale;
            inverse_scale = 1.0f / input_scale;
            zero_point = layers->input_zero_point;
        }
        bias.reserve(round_up(out, kFloatPanel));
        if (is_integer) {
            weights.reserve(panels() * padded_in() * kPanel);
            weight_scale.reserve(panels() * kPanel);
            column_sums.reserve(panels() * kPanel);
            if (layers->smoothing.values != nullptr) std::copy_n(layers->smoothing.values, in, smoothing.reserve(in));
        } else if (is_bfloat16) {
            bfloat16_weights.reserve(float_columns() * (in / 2));
        } else {
            float_weights.reserve(float_columns() * in);
        }
        int column = 0;
        for (int index = 0; index < count; ++index) {
            for (int row = 0; row < layers[index].out; ++row, ++column) {
                const int block = (row / kLanes * count + index) * kLanes;
                pack_row(layers[index], row, interleaved ? block + row % kLanes : column);
            }
        }
    }

    bool is_present() const { return out > 0; }
    // Multiply-accumulates of one row.
    int64_t macs() const { return int64_t{in} * out; }
    // True if input values can be converted one by one, without the range of their row.
    bool quantizes_elementwise() const { return is_static || is_bfloat16; }
    int64_t padded_in() const { return round_up(in, kInputMultiple); }
    int64_t panel_columns() const { return is_integer ? kPanel : kFloatPanel; }
    int64_t panels() const { return round_up(out, panel_columns()) / panel_columns(); }
    // Columns of a float panel in memory: the last one may be narrow.
    int64_t panel_stride(int64_t panel) const { return out - panel * kFloatPanel <= kLanes ? kLanes : kFloatPanel; }
    int64_t bytes() const {
        return weights.bytes() + float_weights.bytes() + bfloat16_weights.bytes() + weight_scale.bytes() + bias.bytes() +
               smoothing.bytes() + column_sums.bytes();
    }

   private:
    int64_t float_columns() const { return (panels() - 1) * kFloatPanel + panel_stride(panels() - 1); }

    // Row `row` of a layer's weights becomes column `column` of the packed ones.
    void pack_row(const sweet_linear& layer, int row, int column) {
        if (layer.bias.values != nullptr) bias[column] = layer.bias.values[row];
        if (is_bfloat16) {
            const float* from = static_cast<const float*>(layer.weight) + int64_t{row} * in;
            const int64_t stride = panel_stride(column / kFloatPanel);
            int32_t* to =
                bfloat16_weights.get() + int64_t{column / kFloatPanel} * (in / 2) * kFloatPanel + column % kFloatPanel;
            for (int64_t input = 0; input < in; input += 2) {
                const u16x16 pair = to_bfloat16(load_partial(from + input, 2));
                to[input / 2 * stride] = static_cast<int32_t>(pair[0] | uint32_t{pair[1]} << 16);
            }
            return;
        }
        if (!is_integer) {
            const float* from = static_cast<const float*>(layer.weight) + int64_t{row} * in;
            const int64_t stride = panel_stride(column / kFloatPanel);
            float* to = float_weights.get() + int64_t{column / kFloatPanel} * in * kFloatPanel + column % kFloatPanel;
            for (int64_t input = 0; input < in; ++input) to[input * stride] = from[input];
            return;
        }
        const int8_t* from = static_cast<const int8_t*>(layer.weight) + int64_t{row} * in;
        int8_t* to = weights.get() + int64_t{column / kPanel} * padded_in() * kPanel + column % kPanel * kGroup;
        int32_t total = 0;
        for (int64_t input = 0; input < in; ++input) {
            to[input / kGroup * kGroup * kPanel + input % kGroup] = from[input];
            total += from[input];
        }
        weight_scale[column] = layer.weight_scale.values[row];
        column_sums[column] = total;
    }
};

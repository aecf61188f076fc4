// A linear layer as the kernels read it, and its input in 8 bits.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cstdint>

#include "api.h"
#include "buffer.h"
#include "vector.h"

constexpr int kPanel = 32;                                // columns of an integer panel
constexpr int kFloatPanel = kFloatTileVectors * kLanes;   // columns of a float panel
constexpr int kWidestPanel = std::max(kPanel, kFloatPanel);
constexpr int64_t kInputMultiple = 64;                    // inputs are padded to it, by weights of zero

inline int64_t round_up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

struct Packed {
    int in = 0, out = 0;
    bool is_integer = false, in_bfloat16 = false;  // else in float32
    bool is_fixed = false;  // one scale for every input; else one for each row
    float input_scale = 0.0f, inverse_scale = 0.0f;
    int32_t zero_point = 0;
    Buffer<int8_t> weights;       // panels of [inputs / kGroup][kPanel][kGroup]
    Buffer<float> float_weights;  // panels of [inputs][kFloatPanel]
    Buffer<int32_t> pair_weights;  // panels of [inputs / 2][kFloatPanel], two of bfloat16 in each
    Buffer<float> weight_scale, bias, smoothing;
    Buffer<int32_t> column_sums;  // of the weights: what the zero point has to be multiplied by

    Packed() = default;
    explicit Packed(const sweet_linear& layer) : Packed(&layer, 1) {}

    // Several layers that quantize the same input alike, their outputs side by side.
    Packed(const sweet_linear* layers, int count) : in(layers->in), is_integer(layers->weight_scale.values != nullptr) {
        for (int place = 0; place < count; ++place) out += layers[place].out;
        if (out == 0) return;
        in_bfloat16 = !is_integer && layers->in_bfloat16 != 0 && in % 2 == 0;
        is_fixed = is_integer && layers->input_is_fixed != 0;
        if (is_fixed) {
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
        } else if (in_bfloat16) {
            pair_weights.reserve(panels() * (in / 2) * kFloatPanel);
        } else {
            float_weights.reserve(panels() * in * kFloatPanel);
        }
        int column = 0;
        for (int place = 0; place < count; ++place) {
            for (int row = 0; row < layers[place].out; ++row, ++column) pack_row(layers[place], row, column);
        }
    }

    bool exists() const { return out > 0; }
    int64_t work() const { return int64_t{in} * out; }  // multiply-adds of one row
    // Whether a value of its input can be brought into the form it is read in before the rest of its row is known.
    bool takes_single_values() const { return is_fixed || in_bfloat16; }
    int64_t padded_in() const { return round_up(in, kInputMultiple); }
    int64_t panel_columns() const { return is_integer ? kPanel : kFloatPanel; }
    int64_t panels() const { return round_up(out, panel_columns()) / panel_columns(); }
    int64_t bytes() const {
        return weights.bytes() + float_weights.bytes() + pair_weights.bytes() + weight_scale.bytes() + bias.bytes() +
               smoothing.bytes() + column_sums.bytes();
    }

   private:
    void pack_row(const sweet_linear& layer, int row, int column) {
        if (layer.bias.values != nullptr) bias[column] = layer.bias.values[row];
        if (in_bfloat16) {
            const float* from = static_cast<const float*>(layer.weight) + int64_t{row} * in;
            int32_t* to = pair_weights.get() + int64_t{column / kFloatPanel} * (in / 2) * kFloatPanel + column % kFloatPanel;
            for (int64_t input = 0; input < in; input += 2) {
                const u16x16 pair = to_bfloats(load_some(from + input, 2));
                to[input / 2 * kFloatPanel] = static_cast<int32_t>(pair[0] | uint32_t{pair[1]} << 16);
            }
            return;
        }
        if (!is_integer) {
            const float* from = static_cast<const float*>(layer.weight) + int64_t{row} * in;
            float* to = float_weights.get() + int64_t{column / kFloatPanel} * in * kFloatPanel + column % kFloatPanel;
            for (int64_t input = 0; input < in; ++input) to[input * kFloatPanel] = from[input];
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

// Rows as a linear layer reads them: floats, or in `bytes` bfloat16, or 8 bits with a scale and zero point per row.
struct Rows {
    const float* floats = nullptr;
    int64_t float_stride = 0;
    const uint8_t* bytes = nullptr;
    int64_t byte_stride = 0;
    const float* scales = nullptr;
    const int32_t* zero_points = nullptr;
};

// Nearest whole number of x / scale, ties to even, plus the zero point, within 0 to 255; NaN becomes the zero point.
SWEET_INLINE u8x16 quantize(f32x16 x, float inverse_scale, int32_t zero_point) {
    const f32x16 steps = clamp(x * inverse_scale, static_cast<float>(-zero_point), static_cast<float>(255 - zero_point));
    return __builtin_convertvector(nearest_integer(steps) + zero_point, u8x16);
}

// Memory for the input of layers.
class Input {
   public:
    // Room for `rows` rows as `layer` reads them, also in float if a layer before writes them. Tiles read up to
    // `kTileRows` rows beyond.
    void reserve(const Packed& layer, int64_t rows, bool with_floats) {
        if (with_floats && !layer.takes_single_values()) floats_.reserve(rows * layer.in);
        if (layer.in_bfloat16) bytes_.reserve(rows * layer.in * 2);
        if (!layer.is_integer) return;
        bytes_.reserve((rows + kTileRows) * layer.padded_in());
        scales_.reserve(rows);
        zero_points_.reserve(rows);
    }

    float* floats() const { return floats_.get(); }
    int64_t memory() const {
        return floats_.bytes() + bytes_.bytes() + scales_.bytes() + zero_points_.bytes();
    }

    // `floats`: where the rows are in float, if the layer reads floats; this object's own memory by default.
    Rows rows(const Packed& layer, const float* floats = nullptr) const {
        return {floats ? floats : floats_.get(), layer.in, bytes_.get(), layer.padded_in(), scales_.get(), zero_points_.get()};
    }

    // Takes sixteen values of a row at a time, from a layer before: in 8 bits where the scale is known beforehand, in
    // bfloat16, else in float. By value, so that a product's inner loop keeps all of it in registers.
    struct Writer {
        float* floats;
        uint8_t* bytes;
        const float* smoothing;
        float inverse_scale;
        int32_t zero_point;
        int64_t stride;
        bool in_bfloat16;

        SWEET_INLINE void operator()(int64_t row, int64_t column, f32x16 values, int count) const {
            const int64_t place = row * stride + column;
            if (bytes == nullptr) return store_some(floats + place, values, count);
            if (in_bfloat16) return store_some(reinterpret_cast<uint16_t*>(bytes) + place, to_bfloats(values), count);
            if (smoothing != nullptr) values *= load(smoothing + column);
            store_some(bytes + place, quantize(values, inverse_scale, zero_point), count);
        }
    };
    Writer writer(const Packed& layer) const {
        if (layer.in_bfloat16) return {nullptr, bytes_.get(), nullptr, 0.0f, 0, layer.in, true};
        if (!layer.is_fixed) return {floats_.get(), nullptr, nullptr, 0.0f, 0, layer.in, false};
        return {nullptr, bytes_.get(), layer.smoothing.get(), layer.inverse_scale, layer.zero_point, layer.padded_in(), false};
    }

    // A whole row, from floats.
    void quantize_row(const Packed& layer, int64_t row, const float* x) const {
        const int in = layer.in;
        if (layer.in_bfloat16) {
            auto* to = reinterpret_cast<uint16_t*>(bytes_.get()) + row * in;
            for (int column = 0; column < in; column += kLanes) {
                const int count = std::min(kLanes, in - column);
                store_some(to + column, to_bfloats(load_some(x + column, count)), count);
            }
        }
        if (!layer.is_integer) return;
        const float* smoothing = layer.smoothing.empty() ? nullptr : layer.smoothing.get();
        const auto value = [&](int column) {
            const f32x16 loaded = load_some(x + column, std::min(kLanes, in - column));
            return smoothing ? loaded * load(smoothing + column) : loaded;
        };
        float scale = layer.input_scale;
        int32_t zero_point = layer.zero_point;
        if (!layer.is_fixed) {
            f32x16 low = {}, high = {};
            for (int column = 0; column < in; column += kLanes) {
                low = least(low, value(column));
                high = greatest(high, value(column));
            }
            scale = (greatest_of(high) - least_of(low)) / 255.0f;
            if (!(scale > FLT_MIN)) scale = 1.0f;
            const float zero = nearest(splat(std::min(-least_of(low) / scale, 255.0f)))[0];
            zero_point = static_cast<int32_t>(zero);
            scales_[row] = scale;
            zero_points_[row] = zero_point;
        }
        uint8_t* to = bytes_.get() + row * layer.padded_in();
        for (int column = 0; column < in; column += kLanes) {
            store_some(to + column, quantize(value(column), 1.0f / scale, zero_point), in - column);
        }
    }

   private:
    Buffer<float> floats_, scales_;
    Buffer<uint8_t> bytes_;
    Buffer<int32_t> zero_points_;
};

// Rows in 16 bits, q + 2¹⁵ as two rows of bytes, the high ones and then the low ones: two products with 8-bit weights make
// one with 16-bit inputs, for a few rows that have no calibrated scale and should lose nothing.
struct WideRows {
    const uint8_t* bytes;
    int64_t stride;
    const float* scales;
};

class WideInput {
   public:
    void reserve(int64_t most_in, int64_t rows) {
        bytes_.reserve((2 * rows + kTileRows) * round_up(most_in, kInputMultiple));
        scales_.reserve(rows);
    }
    int64_t memory() const { return bytes_.bytes() + scales_.bytes(); }
    WideRows rows(const Packed& layer) const { return {bytes_.get(), layer.padded_in(), scales_.get()}; }

    // A row as `layer` reads it; value(column) gives sixteen.
    template <class Value>
    void quantize_row(const Packed& layer, int64_t row, Value value) const {
        f32x16 most = {};
        for (int column = 0; column < layer.in; column += kLanes) {
            most = greatest(keep_some(size_of(value(column)), layer.in - column, 0.0f), most);
        }
        const float reach = greatest_of(most), inverse = reach > FLT_MIN ? 32767.0f / reach : 0.0f;
        scales_[row] = reach / 32767.0f;
        uint8_t* high = bytes_.get() + 2 * row * layer.padded_in();
        uint8_t* low = high + layer.padded_in();
        for (int column = 0; column < layer.in; column += kLanes) {
            const i32x16 steps = nearest_integer(value(column) * inverse) + 32768;
            store_some(high + column, __builtin_convertvector(steps >> 8, u8x16), layer.in - column);
            store_some(low + column, __builtin_convertvector(steps, u8x16), layer.in - column);
        }
    }

   private:
    Buffer<uint8_t> bytes_;
    Buffer<float> scales_;
};

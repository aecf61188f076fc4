// Inputs of linear layers in the precision that the layer reads: float32, bfloat16, uint8 or int16.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cstdint>

#include "buffer.h"
#include "packed_linear.h"
#include "vector.h"

// Rows as a layer reads them: float32 in `floats`, or bfloat16 or uint8 in `bytes`; dynamically quantized rows have a scale
// and a zero point each.
struct InputRows {
    const float* floats = nullptr;
    int64_t float_stride = 0;
    const uint8_t* bytes = nullptr;
    int64_t byte_stride = 0;
    const float* scales = nullptr;
    const int32_t* zero_points = nullptr;
};

// Quantizes to uint8: x / scale rounded to nearest, ties to even, plus the zero point, clamped; NaN becomes the zero point.
SWEET_INLINE u8x16 quantize(f32x16 x, float inverse_scale, int32_t zero_point) {
    const f32x16 quantized = clamp(x * inverse_scale, static_cast<float>(-zero_point), static_cast<float>(255 - zero_point));
    return __builtin_convertvector(round_to_int(quantized) + zero_point, u8x16);
}

// Owns the quantized input of one layer.
class LinearInput {
   public:
    // Reserves memory for `rows` rows of `layer`'s input; `with_floats`: also in float32, if the previous layer writes them
    // through `writer` and quantization needs whole rows. Tiles read up to `kTileRows` rows beyond the last.
    void reserve(const PackedLinear& layer, int64_t rows, bool with_floats) {
        if (with_floats && !layer.quantizes_elementwise()) floats_.reserve(rows * layer.in);
        if (layer.is_bfloat16) bytes_.reserve(rows * layer.in * 2);
        if (!layer.is_integer) return;
        bytes_.reserve((rows + kTileRows) * layer.padded_in());
        scales_.reserve(rows);
        zero_points_.reserve(rows);
    }

    float* floats() const { return floats_.get(); }
    int64_t bytes() const { return floats_.bytes() + bytes_.bytes() + scales_.bytes() + zero_points_.bytes(); }

    // `floats`: the rows in float32, for a layer that reads floats; by default those written through `writer`.
    InputRows rows(const PackedLinear& layer, const float* floats = nullptr) const {
        return {
            floats ? floats : floats_.get(), layer.in, bytes_.get(), layer.padded_in(), scales_.get(), zero_points_.get()};
    }

    // Writes 16 values at a time, as the previous layer computes them: quantized if that works elementwise, else in
    // float32. Passed by value, so that the epilogue of a product keeps it in registers.
    struct Writer {
        float* floats;
        uint8_t* bytes;
        const float* smoothing;
        float inverse_scale;
        int32_t zero_point;
        int64_t stride;
        bool is_bfloat16;

        SWEET_INLINE void operator()(int64_t row, int64_t column, f32x16 values, int count) const {
            const int64_t offset = row * stride + column;
            if (bytes == nullptr) return store_partial(floats + offset, values, count);
            if (is_bfloat16) return store_partial(reinterpret_cast<uint16_t*>(bytes) + offset, to_bfloat16(values), count);
            if (smoothing != nullptr) values *= load(smoothing + column);
            store_partial(bytes + offset, quantize(values, inverse_scale, zero_point), count);
        }
    };
    Writer writer(const PackedLinear& layer) const {
        if (layer.is_bfloat16) return {nullptr, bytes_.get(), nullptr, 0.0f, 0, layer.in, true};
        if (!layer.is_static) return {floats_.get(), nullptr, nullptr, 0.0f, 0, layer.in, false};
        return {nullptr,           bytes_.get(), layer.smoothing.get(), layer.inverse_scale, layer.zero_point,
                layer.padded_in(), false};
    }

    // Quantizes one row. Dynamic quantization (Jacob et al. 2018, arXiv 1712.05877, equation 1): the scale is the range of
    // the row and 0, divided by 255.
    void quantize_row(const PackedLinear& layer, int64_t row, const float* x) const {
        const int in = layer.in;
        if (layer.is_bfloat16) {
            auto* to = reinterpret_cast<uint16_t*>(bytes_.get()) + row * in;
            for (int column = 0; column < in; column += kLanes) {
                const int count = std::min(kLanes, in - column);
                store_partial(to + column, to_bfloat16(load_partial(x + column, count)), count);
            }
        }
        if (!layer.is_integer) return;
        const float* smoothing = layer.smoothing.empty() ? nullptr : layer.smoothing.get();
        const auto value = [&](int column) {
            const f32x16 loaded = load_partial(x + column, std::min(kLanes, in - column));
            return smoothing ? loaded * load(smoothing + column) : loaded;
        };
        float scale = layer.input_scale;
        int32_t zero_point = layer.zero_point;
        if (!layer.is_static) {
            f32x16 low = {}, high = {};
            for (int column = 0; column < in; column += kLanes) {
                low = min(low, value(column));
                high = max(high, value(column));
            }
            scale = (reduce_max(high) - reduce_min(low)) / 255.0f;
            if (!(scale > FLT_MIN)) scale = 1.0f;
            const float zero = round(splat(std::min(-reduce_min(low) / scale, 255.0f)))[0];
            zero_point = static_cast<int32_t>(zero);
            scales_[row] = scale;
            zero_points_[row] = zero_point;
        }
        uint8_t* to = bytes_.get() + row * layer.padded_in();
        for (int column = 0; column < in; column += kLanes) {
            store_partial(to + column, quantize(value(column), 1.0f / scale, zero_point), in - column);
        }
    }

   private:
    Buffer<float> floats_, scales_;
    Buffer<uint8_t> bytes_;
    Buffer<int32_t> zero_points_;
};

// Rows quantized to 16 bits, q + 2¹⁵ split into a row of high bytes and a row of low bytes: two uint8 × int8 products give
// one with 16-bit inputs. Used for the few rows of a probe that have no calibrated scale, where 8 bits would lose accuracy.
struct Int16Rows {
    const uint8_t* bytes;
    int64_t stride;
    const float* scales;
};

class Int16Input {
   public:
    void reserve(int64_t max_in, int64_t rows) {
        bytes_.reserve((2 * rows + kTileRows) * round_up(max_in, kInputMultiple));
        scales_.reserve(rows);
    }
    int64_t bytes() const { return bytes_.bytes() + scales_.bytes(); }
    Int16Rows rows(const PackedLinear& layer) const { return {bytes_.get(), layer.padded_in(), scales_.get()}; }

    // Quantizes one row of `layer`'s input; value(column) returns 16 values.
    template <class Value>
    void quantize_row(const PackedLinear& layer, int64_t row, Value value) const {
        f32x16 largest = {};
        for (int column = 0; column < layer.in; column += kLanes) {
            largest = max(mask(abs(value(column)), layer.in - column, 0.0f), largest);
        }
        const float max_abs = reduce_max(largest), inverse_scale = max_abs > FLT_MIN ? 32767.0f / max_abs : 0.0f;
        scales_[row] = max_abs / 32767.0f;
        uint8_t* high = bytes_.get() + 2 * row * layer.padded_in();
        uint8_t* low = high + layer.padded_in();
        for (int column = 0; column < layer.in; column += kLanes) {
            const i32x16 quantized = round_to_int(value(column) * inverse_scale) + 32768;
            store_partial(high + column, __builtin_convertvector(quantized >> 8, u8x16), layer.in - column);
            store_partial(low + column, __builtin_convertvector(quantized, u8x16), layer.in - column);
        }
    }

   private:
    Buffer<uint8_t> bytes_;
    Buffer<float> scales_;
};

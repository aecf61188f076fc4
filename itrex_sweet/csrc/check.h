// Validates all sizes that a caller passes, so that the engine never accesses memory out of bounds.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "api.h"

// Limits that keep products of sizes and the indices of kernels from overflowing. With more than `kMaxInputs` inputs, the
// int32 sums of int8 products could overflow: 255 · 128 · 65 536 < 2³¹.
constexpr int64_t kMaxInputs = 65536;
constexpr int64_t kMaxOutputs = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxLength = int64_t{1} << 20;  // of rows with rotary positions
constexpr int64_t kMaxThreads = 1024;
constexpr int64_t kMaxTokens = int64_t{1} << 24;    // per call
constexpr int64_t kMaxElements = int64_t{1} << 40;  // per array

[[noreturn]] inline void fail(const std::string& where, const std::string& message) {
    throw std::invalid_argument(where + ": " + message);
}

inline void check_range(const std::string& where, const char* what, int64_t value, int64_t minimum, int64_t maximum) {
    if (value >= minimum && value <= maximum) return;
    fail(where, std::string(what) + " is " + std::to_string(value) + "; expected " + std::to_string(minimum) + " to " +
                    std::to_string(maximum));
}

inline void check_equal(const std::string& where, const char* what, int64_t value, int64_t expected) {
    if (value != expected)
        fail(where, std::string(what) + " is " + std::to_string(value) + "; expected " + std::to_string(expected));
}

inline void check_positive(const std::string& where, const char* what, float value) {
    if (!(std::isfinite(value) && value > 0.0f))
        fail(where, std::string(what) + " is " + std::to_string(value) + "; expected a positive finite number");
}

inline void check_pointer(const std::string& where, const char* what, const void* pointer) {
    if (pointer == nullptr) fail(where, std::string(what) + " is null");
}

// Returns a · b, the number of elements of an array.
inline int64_t checked_product(const std::string& where, int64_t a, int64_t b) {
    int64_t product;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product) || product > kMaxElements)
        fail(where, std::to_string(a) + " times " + std::to_string(b) + " elements exceed the limit of " +
                        std::to_string(kMaxElements));
    return product;
}

inline void check_array(const std::string& where, const char* what, const void* values, int64_t size, int64_t expected) {
    check_pointer(where, what, values);
    check_equal(where, (std::string("the size of ") + what).c_str(), size, expected);
}

inline void check_floats(const std::string& where, const char* what, const sweet_floats& array, int64_t expected) {
    check_array(where, what, array.values, array.size, expected);
}

// The same for an optional array.
inline void check_optional(const std::string& where, const char* what, const sweet_floats& array, int64_t expected) {
    if (array.values != nullptr || array.size != 0) check_floats(where, what, array, expected);
}

inline bool is_present(const sweet_linear& layer) { return layer.in != 0 || layer.out != 0; }
inline bool is_present(const sweet_norm& norm) { return norm.size != 0; }
inline bool is_present(const sweet_rotary& rotary) {
    return rotary.inverse_frequencies.values != nullptr || rotary.inverse_frequencies.size != 0;
}

// Checks a layer on its own.
inline void check_linear(const std::string& where, const sweet_linear& layer) {
    check_range(where, "the number of inputs", layer.in, 1, kMaxInputs);
    check_range(where, "the number of outputs", layer.out, 1, kMaxOutputs);
    check_array(where, "weight", layer.weight, layer.weight_size, checked_product(where, layer.in, layer.out));
    check_optional(where, "weight_scale", layer.weight_scale, layer.out);
    check_optional(where, "bias", layer.bias, layer.out);
    check_optional(where, "smoothing", layer.smoothing, layer.in);
    if (layer.weight_scale.values == nullptr) {
        if (layer.smoothing.values != nullptr) fail(where, "smoothing requires int8 weights");
        if (layer.is_static != 0) fail(where, "static input quantization requires int8 weights");
        return;
    }
    if (layer.is_bfloat16 != 0) fail(where, "bfloat16 requires float weights");
    for (int64_t row = 0; row < layer.out; ++row)
        check_positive(where, "an element of weight_scale", layer.weight_scale.values[row]);
    for (int64_t index = 0; index < layer.smoothing.size; ++index)
        check_positive(where, "an element of smoothing", layer.smoothing.values[index]);
    if (layer.is_static == 0) return;
    check_positive(where, "input_scale", layer.input_scale);
    check_range(where, "input_zero_point", layer.input_zero_point, 0, 255);
}

inline void check_linear(const std::string& where, const sweet_linear& layer, int64_t in, int64_t out) {
    check_linear(where, layer);
    check_equal(where, "the number of inputs", layer.in, in);
    check_equal(where, "the number of outputs", layer.out, out);
}

// Checks a layer that must be float32.
inline void check_float_linear(const std::string& where, const sweet_linear& layer, int64_t in, int64_t out) {
    check_linear(where, layer, in, out);
    if (layer.weight_scale.values != nullptr || layer.is_bfloat16 != 0) fail(where, "only float32 is supported");
}

inline void check_norm(const std::string& where, const sweet_norm& norm, int64_t size) {
    check_equal(where, "the size", norm.size, size);
    check_floats(where, "weight", norm.weight, size);
    check_optional(where, "bias", norm.bias, size);
    check_range(where, "is_rms", norm.is_rms, 0, 1);
    if (!(std::isfinite(norm.eps) && norm.eps >= 0.0f))
        fail(where, "eps is " + std::to_string(norm.eps) + "; expected a finite number of at least 0");
}

inline void check_optional_norm(const std::string& where, const sweet_norm& norm, int64_t size) {
    if (is_present(norm)) check_norm(where, norm, size);
}

inline void check_activation(const std::string& where, int32_t activation) {
    check_range(where, "the activation", activation, SWEET_GELU, SWEET_SILU);
}

inline void check_table(const char* what, const sweet_floats& table, int64_t rows, int64_t width) {
    const std::string where = std::string("embeddings, ") + what;
    check_range(where, "the number of rows", rows, 0, std::numeric_limits<int32_t>::max());
    if (rows == 0 && table.values == nullptr && table.size == 0) return;
    check_floats(where, "the table", table, checked_product(where, rows, width));
}

inline void check_words(const sweet_embeddings& description) {
    const std::string where = "embeddings, words";
    check_array(where, "the table", description.words, description.words_size,
                checked_product(where, description.vocabulary, description.width));
    check_optional(where, "word_scale", description.word_scale, description.vocabulary);
    for (int64_t row = 0; row < description.word_scale.size; ++row)
        check_positive(where, "an element of word_scale", description.word_scale.values[row]);
}

inline void check_embeddings(const sweet_embeddings& description, int64_t hidden) {
    const std::string where = "embeddings";
    check_range(where, "the width", description.width, 1, kMaxInputs);
    check_range(where, "the vocabulary", description.vocabulary, 1, std::numeric_limits<int32_t>::max());
    check_words(description);
    check_table("positions", description.positions, description.num_positions, description.width);
    check_table("token_types", description.token_types, description.num_token_types, description.width);
    check_range(where, "the position offset", description.position_offset, 0, description.num_positions);
    const bool before = is_present(description.before_norm), after = is_present(description.after_norm);
    if (before && after) fail(where, "before_norm and after_norm are both present; at most one is supported");
    if (before) check_float_linear("embeddings, before_norm", description.before_norm, description.width, hidden);
    if (after) check_float_linear("embeddings, after_norm", description.after_norm, description.width, hidden);
    if (!before && !after) check_equal(where, "the width without a projection", description.width, hidden);
    check_optional_norm("embeddings, norm", description.norm, before ? hidden : description.width);
}

inline void check_rotary(const std::string& where, const sweet_rotary& rotary, int64_t head_size) {
    if (head_size % 2 != 0) fail(where, "heads of size " + std::to_string(head_size) + " have no halves");
    check_floats(where, "inverse_frequencies", rotary.inverse_frequencies, head_size / 2);
    for (int64_t pair = 0; pair < head_size / 2; ++pair) {
        if (!std::isfinite(rotary.inverse_frequencies.values[pair])) fail(where, "an inverse frequency is not finite");
    }
    check_positive(where, "scaling", rotary.scaling);
}

// Checks the table of buckets that disentangled attention uses.
inline void check_relative_index(const sweet_description& description) {
    const std::string where = "relative_index";
    const int64_t size = description.relative_index_size, buckets = description.num_relative_buckets;
    if (description.relative_index == nullptr && size == 0 && buckets == 0) return;
    check_pointer(where, "the table", description.relative_index);
    check_range(where, "the number of buckets", buckets, 1, kMaxOutputs);
    check_range(where, "the size", size, 1, 2 * kMaxTokens + 1);
    if (size % 2 == 0) fail(where, "the size is " + std::to_string(size) + "; expected an odd number");
    for (int64_t place = 0; place < size; ++place)
        check_range(where, "a bucket", description.relative_index[place], 0, buckets - 1);
}

inline void check_position_bias(const sweet_description& description) {
    const std::string where = "position_bias";
    const int64_t size = description.position_bias.size, heads = description.num_attention_heads;
    if (size == 0 && description.position_bias.values == nullptr) return;
    check_range(where, "the size", size, heads, heads * (2 * kMaxTokens + 1));
    check_floats(where, "the table", description.position_bias, size);
    if (size % heads != 0 || size / heads % 2 == 0)
        fail(where, "the size is " + std::to_string(size) + "; expected an odd multiple of " + std::to_string(heads));
}

inline void check_convolution(const std::string& where, const sweet_layer& layer, int64_t hidden) {
    if (!is_present(layer.convolution)) return;
    check_linear(where, layer.convolution);
    if (layer.convolution.weight_scale.values != nullptr) fail(where, "the weights must be float32");
    check_equal(where, "the number of outputs", layer.convolution.out, hidden);
    if (layer.convolution.in % hidden != 0 || layer.convolution.in / hidden % 2 == 0)
        fail(where, "the number of inputs is " + std::to_string(layer.convolution.in) + "; expected an odd multiple of " +
                        std::to_string(hidden));
    check_norm(where + ", norm", layer.convolution_norm, hidden);
    check_activation(where, layer.convolution_activation);
}

inline void check_layer(const std::string& where, const sweet_layer& layer, const sweet_description& description) {
    const int64_t hidden = description.hidden;
    const std::pair<const char*, const sweet_linear*> projections[] = {
        {"query", &layer.query}, {"key", &layer.key}, {"value", &layer.value}, {"attention_output", &layer.attention_output}};
    for (const auto& [name, projection] : projections) check_linear(where + ", " + name, *projection, hidden, hidden);
    check_linear(where + ", up", layer.up);
    check_range(where + ", up", "the number of outputs", layer.up.out, 1, kMaxInputs);  // the inputs of `down`
    check_linear(where + ", up", layer.up, hidden, layer.up.out);
    check_linear(where + ", down", layer.down, layer.up.out, hidden);
    if (is_present(layer.gate)) check_linear(where + ", gate", layer.gate, hidden, layer.up.out);
    if (description.norm_first == 0 || is_present(layer.attention_norm))
        check_norm(where + ", attention_norm", layer.attention_norm, hidden);
    check_norm(where + ", output_norm", layer.output_norm, hidden);
    const int64_t terms = checked_product(where, hidden, description.num_relative_buckets);
    check_optional(where, "relative_key", layer.relative_key, terms);
    check_optional(where, "relative_query", layer.relative_query, terms);
    check_convolution(where + ", convolution", layer, hidden);
    check_range(where, "the window", layer.window, 0, kMaxTokens);
    const bool has_relative = layer.relative_key.size > 0 || layer.relative_query.size > 0;
    const bool has_bias = description.position_bias.size > 0;
    if (has_relative && (is_present(layer.rotary) || layer.window > 0 || description.norm_first != 0 || has_bias))
        fail(where, "disentangled attention does not support rotary positions, windows, norm_first and a position bias");
    if (has_bias && (is_present(layer.rotary) || layer.window > 0))
        fail(where, "a position bias does not support rotary positions and windows");
    if (is_present(layer.convolution) && description.norm_first != 0)
        fail(where, "a convolution does not support norm_first");
    if (!is_present(layer.rotary)) return;
    check_rotary(where + ", rotary", layer.rotary, hidden / description.num_attention_heads);
    check_range("the model", "the maximum length, which rotary positions require,", description.max_length, 1, kMaxLength);
}

// Checks everything except that arrays are as long as their sizes.
inline void check_description(const sweet_description& description) {
    const std::string where = "the model";
    check_range(where, "the hidden size", description.hidden, 1, kMaxInputs);
    check_range(where, "the number of layers", description.num_layers, 1, kMaxLayers);
    check_range(where, "the number of full layers", description.num_full_layers, 0, description.num_layers - 1);
    check_range(where, "the number of exits", description.num_exits, 1, description.num_full_layers + 1);
    check_range(where, "the number of attention heads", description.num_attention_heads, 1, description.hidden);
    if (description.hidden % description.num_attention_heads != 0)
        fail(where, "the number of attention heads, " + std::to_string(description.num_attention_heads) +
                        ", does not divide the hidden size, " + std::to_string(description.hidden));
    check_activation(where, description.activation);
    check_positive(where, "score_scale", description.score_scale);
    check_range(where, "norm_first", description.norm_first, 0, 1);
    check_range(where, "the maximum length", description.max_length, 0, kMaxLength);
    check_pointer(where, "layers", description.layers);
    check_pointer(where, "exits", description.exits);
    int64_t min_full = 0;
    for (int64_t exit = 0; exit < description.num_exits; ++exit) {
        const int64_t full = description.exits[exit].full_layers, layer = description.exits[exit].layer;
        check_range(where, "the number of full layers before an exit", full, min_full, description.num_full_layers);
        check_range(where, "the layer of a probe", layer, 0, description.num_layers - 1);
        if (layer < description.num_full_layers) check_equal(where, "the full layer of a probe", layer, full);
        min_full = full + 1;
    }
    check_equal(where, "the number of full layers before the last exit", min_full - 1, description.num_full_layers);
    check_embeddings(description.embeddings, description.hidden);
    check_relative_index(description);
    check_position_bias(description);
    for (int64_t index = 0; index < description.num_layers; ++index)
        check_layer("layer " + std::to_string(index), description.layers[index], description);
    for (int64_t exit = 0; exit < description.num_exits; ++exit) {
        const sweet_head& head = description.exits[exit].head;
        const std::string name = "head " + std::to_string(exit);
        check_linear(name + ", dense", head.dense);
        check_range(name + ", dense", "the number of outputs", head.dense.out, 1, kMaxInputs);
        check_float_linear(name + ", dense", head.dense, description.hidden, head.dense.out);
        check_linear(name + ", classifier", head.classifier);
        check_float_linear(name + ", classifier", head.classifier, head.dense.out, description.exits[0].head.classifier.out);
        check_activation(name, head.activation);
        check_optional_norm(name + ", norm", head.norm, head.dense.out);
        check_range(name, "the pooling", head.pooling, SWEET_FIRST, SWEET_LATE);
        check_optional_norm("exit " + std::to_string(exit) + ", norm", description.exits[exit].norm, description.hidden);
    }
}

inline void check_policy(const sweet_policy& policy, int64_t exits, int64_t outputs) {
    const std::string where = "the policy";
    check_equal(where, "the number of exits", policy.num_exits, exits);
    check_pointer(where, "temperatures", policy.temperatures);
    if (exits > 1) check_pointer(where, "thresholds", policy.thresholds);
    check_range(where, "the number of labels", policy.labels, 1, policy.learned != 0 ? outputs - 1 : outputs);
    check_range(where, "max_exit_index", policy.max_exit_index, 0, exits - 1);
    check_range(where, "learned", policy.learned, 0, 1);
    check_range(where, "the target label", policy.target_label, -1, policy.labels - 1);
    for (int64_t exit = 0; exit < exits; ++exit) check_positive(where, "a temperature", policy.temperatures[exit]);
    for (int64_t exit = 0; exit + 1 < exits; ++exit)
        if (std::isnan(policy.thresholds[exit])) fail(where, "a threshold is NaN");
}

// Checks that each row has at least one token; returns the total number of tokens.
inline int64_t check_rows(int64_t rows, const int64_t* lengths) {
    check_range("the call", "the number of rows", rows, 0, kMaxTokens);
    if (rows > 0) check_pointer("the call", "lengths", lengths);
    int64_t total = 0;
    for (int64_t row = 0; row < rows; ++row) {
        if (lengths[row] < 1) fail("the call", "row " + std::to_string(row) + " has no tokens");
        if (lengths[row] > kMaxTokens - total)
            fail("the call", "the rows have more than " + std::to_string(kMaxTokens) + " tokens");
        total += lengths[row];
    }
    return total;
}

// Greatest position of a token; distances of two positions do not overflow.
constexpr int64_t kMaxPosition = int64_t{1} << 40;

// Checks that the positions of a row increase; returns true if they are consecutive.
inline bool check_positions(int64_t row, const int64_t* positions, int64_t length) {
    bool are_consecutive = true;
    for (int64_t token = 0; token < length; ++token) {
        if (positions[token] < -kMaxPosition || positions[token] > kMaxPosition)
            fail("the call",
                 "position " + std::to_string(positions[token]) + " of row " + std::to_string(row) + " is out of range");
        if (token == 0) continue;
        if (positions[token] <= positions[token - 1])
            fail("the call", "the positions of row " + std::to_string(row) + " do not increase");
        are_consecutive = are_consecutive && positions[token] == positions[token - 1] + 1;
    }
    return are_consecutive;
}

inline int32_t validate_threads(int64_t threads) {
    check_range("the call", "the number of threads", threads, 1, kMaxThreads);
    return static_cast<int32_t>(threads);
}

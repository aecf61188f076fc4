// Refuses what would make the engine read or write memory that is not its own: the one place that says which sizes fit.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "api.h"

// Bounds that keep every product of sizes, and every index a kernel forms, far below what its type holds. Sums over more
// inputs than `kMostInputs` might not fit 32 bits: 255 · 128 · 65 536 < 2³¹.
constexpr int64_t kMostInputs = 65536;
constexpr int64_t kMostOutputs = int64_t{1} << 20;
constexpr int64_t kMostLayers = 4096;
constexpr int64_t kMostThreads = 1024;
constexpr int64_t kMostTokens = int64_t{1} << 24;  // of one call
constexpr int64_t kMostElements = int64_t{1} << 40;  // of one array

[[noreturn]] inline void refuse(const std::string& where, const std::string& why) {
    throw std::invalid_argument(where + ": " + why);
}

inline void check_range(const std::string& where, const char* what, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return;
    refuse(where, std::string(what) + " is " + std::to_string(value) + ", not from " + std::to_string(least) + " to " +
                      std::to_string(most));
}

inline void check_equal(const std::string& where, const char* what, int64_t value, int64_t expected) {
    if (value != expected)
        refuse(where, std::string(what) + " is " + std::to_string(value) + ", not " + std::to_string(expected));
}

inline void check_positive(const std::string& where, const char* what, float value) {
    if (!(std::isfinite(value) && value > 0.0f))
        refuse(where, std::string(what) + " is " + std::to_string(value) + ", not positive and finite");
}

inline void check_pointer(const std::string& where, const char* what, const void* pointer) {
    if (pointer == nullptr) refuse(where, std::string(what) + " is null");
}

// The number of elements of an array, if it can be.
inline int64_t checked_product(const std::string& where, int64_t a, int64_t b) {
    int64_t product;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product) || product > kMostElements)
        refuse(where, std::to_string(a) + " times " + std::to_string(b) + " elements are too many");
    return product;
}

inline void check_array(const std::string& where, const char* what, const void* values, int64_t size, int64_t expected) {
    check_pointer(where, what, values);
    check_equal(where, (std::string("the size of ") + what).c_str(), size, expected);
}

inline void check_floats(const std::string& where, const char* what, const sweet_floats& array, int64_t expected) {
    check_array(where, what, array.values, array.size, expected);
}

// One that may be absent.
inline void check_optional(const std::string& where, const char* what, const sweet_floats& array, int64_t expected) {
    if (array.values != nullptr || array.size != 0) check_floats(where, what, array, expected);
}

inline bool exists(const sweet_linear& layer) { return layer.in != 0 || layer.out != 0; }

// A layer by itself, that exists.
inline void check_linear(const std::string& where, const sweet_linear& layer) {
    check_range(where, "its number of inputs", layer.in, 1, kMostInputs);
    check_range(where, "its number of outputs", layer.out, 1, kMostOutputs);
    check_array(where, "weight", layer.weight, layer.weight_size, checked_product(where, layer.in, layer.out));
    check_optional(where, "weight_scale", layer.weight_scale, layer.out);
    check_optional(where, "bias", layer.bias, layer.out);
    check_optional(where, "smoothing", layer.smoothing, layer.in);
    if (layer.weight_scale.values == nullptr) {
        if (layer.smoothing.values != nullptr) refuse(where, "a float layer has no smoothing");
        if (layer.input_is_fixed != 0) refuse(where, "the input of a float layer has no scale");
        return;
    }
    if (layer.in_bfloat16 != 0) refuse(where, "an 8-bit layer is not computed in bfloat16");
    for (int64_t row = 0; row < layer.out; ++row) check_positive(where, "a weight_scale", layer.weight_scale.values[row]);
    for (int64_t place = 0; place < layer.smoothing.size; ++place)
        check_positive(where, "a smoothing", layer.smoothing.values[place]);
    if (layer.input_is_fixed == 0) return;
    check_positive(where, "input_scale", layer.input_scale);
    check_range(where, "input_zero_point", layer.input_zero_point, 0, 255);
}

inline void check_linear(const std::string& where, const sweet_linear& layer, int64_t in, int64_t out) {
    check_linear(where, layer);
    check_equal(where, "its number of inputs", layer.in, in);
    check_equal(where, "its number of outputs", layer.out, out);
}

// A layer that reads its input as it is, in float32.
inline void check_plain_linear(const std::string& where, const sweet_linear& layer, int64_t in, int64_t out) {
    check_linear(where, layer, in, out);
    if (layer.weight_scale.values != nullptr || layer.in_bfloat16 != 0) refuse(where, "it is not in float32");
}

inline void check_norm(const std::string& where, const sweet_norm& norm, int64_t size) {
    check_equal(where, "its size", norm.size, size);
    check_floats(where, "weight", norm.weight, size);
    check_floats(where, "bias", norm.bias, size);
    if (!(std::isfinite(norm.eps) && norm.eps >= 0.0f)) refuse(where, "eps is negative or not finite");
}

inline void check_activation(const std::string& where, int32_t activation) {
    check_range(where, "the activation", activation, SWEET_GELU, SWEET_SILU);
}

inline void check_table(const char* what, const sweet_floats& table, int64_t rows, int64_t width) {
    const std::string where = std::string("embeddings, ") + what;
    check_range(where, "its number of rows", rows, 0, std::numeric_limits<int32_t>::max());
    if (rows == 0 && table.values == nullptr && table.size == 0) return;
    check_floats(where, "the table", table, checked_product(where, rows, width));
}

inline void check_embeddings(const sweet_embeddings& from, int64_t hidden) {
    const std::string where = "embeddings";
    check_range(where, "their width", from.width, 1, kMostInputs);
    check_range(where, "the vocabulary", from.vocabulary, 1, std::numeric_limits<int32_t>::max());
    check_table("words", from.words, from.vocabulary, from.width);
    check_table("positions", from.positions, from.num_positions, from.width);
    check_table("token_types", from.token_types, from.num_token_types, from.width);
    check_range(where, "the position offset", from.position_offset, 0, from.num_positions);
    const bool before = exists(from.before_norm), after = exists(from.after_norm);
    if (before && after) refuse(where, "two projections");
    if (before) check_plain_linear("embeddings, before_norm", from.before_norm, from.width, hidden);
    if (after) check_plain_linear("embeddings, after_norm", from.after_norm, from.width, hidden);
    if (!before && !after) check_equal(where, "their width without a projection", from.width, hidden);
    check_norm("embeddings, norm", from.norm, before ? hidden : from.width);
}

inline void check_layer(const std::string& where, const sweet_layer& layer, int64_t hidden) {
    const std::pair<const char*, const sweet_linear*> projections[] = {
        {"query", &layer.query}, {"key", &layer.key}, {"value", &layer.value}, {"attention_output", &layer.attention_output}};
    for (const auto& [name, projection] : projections) check_linear(where + ", " + name, *projection, hidden, hidden);
    check_linear(where + ", up", layer.up);
    check_range(where + ", up", "its number of outputs", layer.up.out, 1, kMostInputs);  // the inputs of `down`
    check_linear(where + ", up", layer.up, hidden, layer.up.out);
    check_linear(where + ", down", layer.down, layer.up.out, hidden);
    check_norm(where + ", attention_norm", layer.attention_norm, hidden);
    check_norm(where + ", output_norm", layer.output_norm, hidden);
}

// Everything about a model but that its arrays are as long as they say.
inline void check_description(const sweet_description& from) {
    const std::string where = "the model";
    check_range(where, "the hidden size", from.hidden, 1, kMostInputs);
    check_range(where, "the number of layers", from.num_layers, 1, kMostLayers);
    check_range(where, "the number of full layers", from.num_full_layers, 0, from.num_layers - 1);
    check_range(where, "the number of exits", from.num_exits, 1, from.num_full_layers + 1);
    check_range(where, "the number of attention heads", from.num_attention_heads, 1, from.hidden);
    if (from.hidden % from.num_attention_heads != 0)
        refuse(where, std::to_string(from.num_attention_heads) + " attention heads do not divide the hidden size " +
                          std::to_string(from.hidden));
    check_activation(where, from.activation);
    check_positive(where, "the scores' divisor", from.score_scale);
    check_pointer(where, "layers", from.layers);
    check_pointer(where, "exits", from.exits);
    int64_t least = 0;
    for (int64_t exit = 0; exit < from.num_exits; ++exit) {
        const int64_t full = from.exits[exit].full_layers, layer = from.exits[exit].layer;
        check_range(where, "the number of full layers before an exit", full, least, from.num_full_layers);
        check_range(where, "the layer of a probe", layer, 0, from.num_layers - 1);
        if (layer < from.num_full_layers) check_equal(where, "the full layer of a probe", layer, full);
        least = full + 1;
    }
    check_equal(where, "the number of full layers before the last exit", least - 1, from.num_full_layers);
    check_embeddings(from.embeddings, from.hidden);
    for (int64_t index = 0; index < from.num_layers; ++index)
        check_layer("layer " + std::to_string(index), from.layers[index], from.hidden);
    for (int64_t exit = 0; exit < from.num_exits; ++exit) {
        const sweet_head& head = from.exits[exit].head;
        const std::string name = "head " + std::to_string(exit);
        check_linear(name + ", dense", head.dense);
        check_range(name + ", dense", "its number of outputs", head.dense.out, 1, kMostInputs);
        check_plain_linear(name + ", dense", head.dense, from.hidden, head.dense.out);
        check_linear(name + ", classifier", head.classifier);
        check_plain_linear(name + ", classifier", head.classifier, head.dense.out, from.exits[0].head.classifier.out);
        check_activation(name, head.activation);
    }
}

inline void check_policy(const sweet_policy& policy, int64_t exits, int64_t outputs) {
    const std::string where = "the policy";
    check_equal(where, "its number of exits", policy.num_exits, exits);
    check_pointer(where, "temperatures", policy.temperatures);
    if (exits > 1) check_pointer(where, "thresholds", policy.thresholds);
    check_range(where, "its number of labels", policy.labels, 1, policy.learned != 0 ? outputs - 1 : outputs);
    check_range(where, "the deepest exit", policy.deepest, 0, exits - 1);
    check_range(where, "learned", policy.learned, 0, 1);
    for (int64_t exit = 0; exit < exits; ++exit) check_positive(where, "a temperature", policy.temperatures[exit]);
    for (int64_t exit = 0; exit + 1 < exits; ++exit)
        if (std::isnan(policy.thresholds[exit])) refuse(where, "a threshold is not a number");
}

// Rows of `lengths`, at least one token each; returns how many tokens they have.
inline int64_t check_rows(int64_t rows, const int64_t* lengths) {
    check_range("the call", "the number of rows", rows, 0, kMostTokens);
    if (rows > 0) check_pointer("the call", "lengths", lengths);
    int64_t total = 0;
    for (int64_t row = 0; row < rows; ++row) {
        if (lengths[row] < 1) refuse("the call", "row " + std::to_string(row) + " has no tokens");
        if (lengths[row] > kMostTokens - total)
            refuse("the call", "its rows have more than " + std::to_string(kMostTokens) + " tokens");
        total += lengths[row];
    }
    return total;
}

inline int32_t checked_threads(int64_t threads) {
    check_range("the call", "the number of threads", threads, 1, kMostThreads);
    return static_cast<int32_t>(threads);
}

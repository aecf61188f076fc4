// The rows of a batch that have not exited yet, and their confidence.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "api.h"
#include "buffer.h"

// Returns the maximum softmax probability: 1 / Σ exp(x_i - max x), x = logits / temperature.
inline float max_probability(const float* logits, int labels, float temperature) {
    float maximum = -INFINITY, total = 0.0f;
    for (int label = 0; label < labels; ++label) maximum = std::max(maximum, logits[label] / temperature);
    for (int label = 0; label < labels; ++label) total += std::exp(logits[label] / temperature - maximum);
    return 1.0f / total;
}

inline float logistic(float value) { return 1.0f / (1.0f + std::exp(-value)); }

// Returns max(p, 1 - p) of the softmax probability p of a label.
inline float one_against_rest(const float* logits, int labels, float temperature, int target) {
    float maximum = -INFINITY, rest = 0.0f;
    for (int label = 0; label < labels; ++label) maximum = std::max(maximum, logits[label] / temperature);
    for (int label = 0; label < labels; ++label)
        if (label != target) rest += std::exp(logits[label] / temperature - maximum);
    const float own = std::exp(logits[target] / temperature - maximum);
    return std::max(own, rest) / (own + rest);
}

// Returns the certainty of the least certain label of a multi-label row.
inline float label_confidence(const float* logits, int labels, float temperature, const float* offsets) {
    float distance = INFINITY;
    for (int label = 0; label < labels; ++label) {
        if (!std::isfinite(logits[label])) return NAN;
        distance = std::min(distance, std::abs(logits[label] / temperature - offsets[label]));
    }
    return logistic(distance);
}

// Returns the confidence of `sweet_confidence` for one row.
inline float confidence_of_logits(const float* logits, int labels, float temperature, const float* label_offsets,
                                  int target_label) {
    if (label_offsets != nullptr) return label_confidence(logits, labels, temperature, label_offsets);
    if (target_label >= 0) return one_against_rest(logits, labels, temperature, target_label);
    return max_probability(logits, labels, temperature);
}

// Label and softmax probability of `sweet_best_label`. Writes the probabilities of all labels, relative to that of the best,
// to `relative` if it is not null.
inline std::pair<int64_t, float> best_label(const float* logits, int labels, float temperature, float* relative = nullptr) {
    float maximum = -INFINITY, total = 0.0f;
    int best = -1;
    for (int label = 0; label < labels; ++label) maximum = std::max(maximum, logits[label] / temperature);
    for (int label = 0; label < labels; ++label) {
        const float power = std::exp(logits[label] / temperature - maximum);
        if (best < 0 && power == 1.0f) best = label;  // the greatest power is 1
        if (relative != nullptr) relative[label] = power;
        total += power;
    }
    if (std::isnan(total)) return {-1, NAN};
    return {best, 1.0f / total};
}

// Writes the softmax probability of every label; NaN where `best_label` finds none.
inline void label_probabilities(const float* logits, int labels, float temperature, float* probabilities) {
    const float greatest = best_label(logits, labels, temperature, probabilities).second;
    for (int label = 0; label < labels; ++label) probabilities[label] *= greatest;
}

// Confidence of a row from the outputs of an exit.
struct Confidence {
    const sweet_policy& policy;
    int32_t num_outputs;
    bool learned;

    float operator()(const float* outputs, int32_t exit) const {
        if (!learned)
            return confidence_of_logits(outputs, policy.labels, policy.temperatures[exit], policy.label_offsets,
                                        policy.target_label);
        for (int32_t label = 0; label < policy.labels; ++label)
            if (!std::isfinite(outputs[label])) return NAN;
        return logistic(outputs[num_outputs - 1]);
    }
};

// Rows in flight, in the order of the batch.
struct ActiveRows {
    std::vector<int64_t> rows, lengths;
    std::vector<const float*> starts, next_starts;
    std::vector<const int64_t*> positions;  // empty if those of all rows are consecutive
    Buffer<float> outputs, states, next_states;

    void reset(int32_t count, const int64_t* all_lengths, int64_t num_outputs, int64_t states_size) {
        rows.resize(static_cast<size_t>(count));
        std::iota(rows.begin(), rows.end(), 0);
        lengths.assign(all_lengths, all_lengths + count);
        starts.resize(static_cast<size_t>(count));
        next_starts.resize(static_cast<size_t>(count));
        outputs.reserve(count * num_outputs);
        states.reserve(states_size);
        next_states.reserve(states_size);
    }
    // Moves a row to the front when those that exited are dropped.
    void move(int32_t from, int32_t to) {
        rows[static_cast<size_t>(to)] = rows[static_cast<size_t>(from)];
        lengths[static_cast<size_t>(to)] = lengths[static_cast<size_t>(from)];
        starts[static_cast<size_t>(to)] = starts[static_cast<size_t>(from)];
        if (!positions.empty()) positions[static_cast<size_t>(to)] = positions[static_cast<size_t>(from)];
    }
    const int64_t* const* row_positions() const { return positions.empty() ? nullptr : positions.data(); }
    void swap_states() {
        std::swap(states, next_states);
        starts.swap(next_starts);
    }
    int64_t bytes() const { return outputs.bytes() + states.bytes() + next_states.bytes(); }
};

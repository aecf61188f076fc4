// The rows of a batch that have not exited yet, and their confidence.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
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

// Confidence of a row from the outputs of an exit.
struct Confidence {
    const sweet_policy& policy;
    int32_t num_outputs;
    bool learned;

    float operator()(const float* outputs, int32_t exit) const {
        if (!learned) return max_probability(outputs, policy.labels, policy.temperatures[exit]);
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

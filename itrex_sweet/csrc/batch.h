// The rows of a batch on their way through the exits, and what lets one go.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "api.h"
#include "buffer.h"

// The largest softmax probability: 1 over the sum of all, the largest scaled to 1.
inline float max_probability(const float* logits, int labels, float temperature) {
    float most = -INFINITY, total = 0.0f;
    for (int label = 0; label < labels; ++label) most = std::max(most, logits[label] / temperature);
    for (int label = 0; label < labels; ++label) total += std::exp(logits[label] / temperature - most);
    return 1.0f / total;
}

inline float logistic(float value) { return 1.0f / (1.0f + std::exp(-value)); }

// What a row is let go by.
struct Confidence {
    const sweet_policy& policy;
    int32_t outputs;
    bool learned;

    float operator()(const float* said, int32_t exit) const {
        if (!learned) return max_probability(said, policy.labels, policy.temperatures[exit]);
        for (int32_t label = 0; label < policy.labels; ++label)
            if (!std::isfinite(said[label])) return NAN;
        return logistic(said[outputs - 1]);
    }
};

// The rows of a batch that are still on their way, in the order in which they came.
struct Batch {
    std::vector<int64_t> rows, lengths;
    std::vector<const float*> starts, next_starts;
    Buffer<float> logits, states, next_states;

    void start(int32_t count, const int64_t* all_lengths, int64_t labels, int64_t values) {
        rows.resize(static_cast<size_t>(count));
        std::iota(rows.begin(), rows.end(), 0);
        lengths.assign(all_lengths, all_lengths + count);
        starts.resize(static_cast<size_t>(count));
        next_starts.resize(static_cast<size_t>(count));
        logits.reserve(count * labels);
        states.reserve(values);
        next_states.reserve(values);
    }
    void keep(int32_t place, int32_t to) {
        rows[static_cast<size_t>(to)] = rows[static_cast<size_t>(place)];
        lengths[static_cast<size_t>(to)] = lengths[static_cast<size_t>(place)];
        starts[static_cast<size_t>(to)] = starts[static_cast<size_t>(place)];
    }
    void go_on() {
        std::swap(states, next_states);
        starts.swap(next_starts);
    }
    int64_t memory() const { return logits.bytes() + states.bytes() + next_states.bytes(); }
};

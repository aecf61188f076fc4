// Floating-point operations of the engine against double precision: linear layers, attention, activations, and a small model.
// On one instruction set, the result of a row is the same bit by bit alone, in a batch, and on any number of threads; between
// instruction sets only rounding differs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine_under_test.h"
#include "op_cases.h"
#include "small_model.h"

inline void check_linear(const Engine& engine, const LinearCase& shape, Checks& check) {
    Random random;
    const Linear linear(random, shape.in, shape.out, shape.input_type);
    const size_t m = shape.m, in = shape.in, out = shape.out;
    const std::vector<float> x = random.reals(m * in, 3.9f);
    std::vector<float> y(m * out, NAN), again(m * out, NAN);
    const std::string what = "linear " + std::to_string(m) + " x " + std::to_string(in) + " x " + std::to_string(out) +
                             ", input " + std::to_string(shape.input_type);
    check(engine.linear(&linear.layer, shape.m, x.data(), y.data(), 1) == 0, what + ": " + engine.error());
    check(engine.linear(&linear.layer, shape.m, x.data(), again.data(), 2) == 0, what + ", 2 threads: " + engine.error());
    check(same_bits(y.data(), again.data(), y.size()), what + ": 1 and 2 threads differ");
    if (m > 1) {
        const int32_t code = engine.linear(&linear.layer, 1, x.data() + (m - 1) * in, again.data(), 1);
        check(code == 0 && same_bits(y.data() + (m - 1) * out, again.data(), out), what + ": a single row differs");
    }
    // The error of 8-bit quantization is at most one step, including the rounding of the zero point; a uniformly distributed
    // error has a root mean square of 1/√12 steps. The relative error of rounding to bfloat16 is at most 1/512.
    constexpr double kBfloat16Epsilon = 1.0 / 512.0;
    const bool is_float = shape.input_type == FLOAT || shape.input_type == BFLOAT16;
    double squared = 0.0, expected_squared = 0.0, worst = 0.0;
    for (size_t row = 0; row < m; ++row) {
        std::vector<double> inputs(in);
        double low = 0.0, high = 0.0;
        for (size_t j = 0; j < in; ++j) {
            inputs[j] = static_cast<double>(x[row * in + j]) * (linear.smoothing.empty() ? 1.0 : linear.smoothing[j]);
            low = std::min(low, inputs[j]);
            high = std::max(high, inputs[j]);
        }
        const double step = is_float ? 0.0 : shape.input_type == STATIC ? 8.0 / 255.0 : (high - low) / 255.0;
        for (size_t column = 0; column < out; ++column) {
            double expected = linear.bias[column], sum_abs_weights = 0.0, sum_squares = 0.0, sum_abs_products = 1.0,
                   sum_product_squares = 0.0;
            for (size_t j = 0; j < in; ++j) {
                const double weight = linear.weight(column, j);
                expected += weight * inputs[j];
                sum_abs_products += std::abs(weight * inputs[j]);
                sum_abs_weights += std::abs(weight);
                sum_squares += weight * weight;
                sum_product_squares += weight * inputs[j] * weight * inputs[j];
            }
            const double error = std::abs(y[row * out + column] - expected);
            const double relative = shape.input_type == BFLOAT16 ? 2.1 * kBfloat16Epsilon : 0.0;
            worst = std::max(worst, error / (step * sum_abs_weights + (relative + 4e-6) * sum_abs_products));
            squared += error * error;
            expected_squared += step * step * sum_squares / 12.0 + relative * relative * sum_product_squares / 6.0 +
                                1e-11 * sum_abs_products * sum_abs_products;
        }
    }
    check(m * out == 0 || worst <= 1.0, what + ": error " + std::to_string(worst) + " times the rounding bound");
    check(m * out < 32 || squared <= 4.0 * expected_squared,
          what + ": mean square error " + std::to_string(squared / expected_squared) + " times the expected rounding error");
}

// int16 quantization of queries, keys and weights has a relative error of some 1e-5 of the maximum.
inline void check_attention(const Engine& engine, int heads, int size, const std::vector<int64_t>& lengths, bool use_int16,
                            Checks& check, int window = 0) {
    Random random;
    const size_t hidden = static_cast<size_t>(heads) * size;
    size_t tokens = 0;
    for (int64_t length : lengths) tokens += length;
    const std::vector<float> qkv = random.reals(tokens * 3 * hidden, 2.0f);
    std::vector<float> context(tokens * hidden, NAN);
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    const int32_t rows = static_cast<int32_t>(lengths.size());
    const std::string what = "attention of " + std::to_string(heads) + " heads of " + std::to_string(size) +
                             (use_int16 ? " in int16" : "") + (window ? ", window " + std::to_string(window) : "");
    check(engine.attention(rows, lengths.data(), heads, size, scale, use_int16, window, qkv.data(), context.data()) == 0,
          what);
    double worst = 0.0;
    size_t start = 0;
    for (int64_t length : lengths) {
        for (int head = 0; head < heads; ++head)
            for (int64_t token = 0; token < length; ++token) {
                const float* query = qkv.data() + (start + token) * 3 * hidden + head * size;
                const float* keys = qkv.data() + start * 3 * hidden + hidden + head * size;
                std::vector<double> weights(length);
                double total = 0.0;
                const int64_t first = window ? std::max<int64_t>(0, token - window) : 0;
                const int64_t last = window ? std::min<int64_t>(length, token + window + 1) : length;
                for (int64_t other = first; other < last; ++other) {
                    double score = 0.0;
                    for (int i = 0; i < size; ++i) score += static_cast<double>(query[i]) * keys[other * 3 * hidden + i];
                    total += weights[other] = std::exp(score * scale);
                }
                for (int i = 0; i < size; ++i) {
                    double expected = 0.0;
                    for (int64_t other = first; other < last; ++other)
                        expected += weights[other] / total * keys[other * 3 * hidden + hidden + i];
                    const double found = context[(start + token) * hidden + head * size + i];
                    worst = std::isnan(found) ? INFINITY : std::max(worst, std::abs(found - expected));
                }
            }
        start += length;
    }
    check(worst < (use_int16 ? 1e-3 : 2e-5), what + ": error " + std::to_string(worst));
}

inline double reference_activation(int32_t activation, double x) {
    switch (activation) {
        case SWEET_GELU: return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
        case SWEET_GELU_TANH: return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
        case SWEET_RELU: return std::max(x, 0.0);
        case SWEET_TANH: return std::tanh(x);
        default: return x / (1.0 + std::exp(-x));
    }
}

inline void check_activations(const Engine& engine, Checks& check) {
    std::vector<float> x;
    for (int step = -600; step <= 600; ++step) x.push_back(static_cast<float>(step) / 50.0f);
    x.insert(x.end(), {-0.0f, 1e-30f, -1e-30f, 60.0f, -60.0f, 1e4f, -1e4f});
    std::vector<float> y(x.size(), NAN);
    for (int32_t activation = SWEET_GELU; activation <= SWEET_SILU; ++activation) {
        const int32_t code = engine.activation(activation, static_cast<int32_t>(x.size()), x.data(), y.data());
        double worst = 0.0;
        for (size_t i = 0; i < x.size(); ++i) {
            const double expected = reference_activation(activation, x[i]);
            const double error = std::abs(y[i] - expected) / std::max(1.0, std::abs(expected));
            worst = std::isnan(error) ? INFINITY : std::max(worst, error);
        }
        check(code == 0 && worst < 2e-6, "activation " + std::to_string(activation) + ": error " + std::to_string(worst));
    }
}

constexpr size_t kLongText = 66;

// Returns the logits of all small models, for comparison between instruction sets.
inline std::vector<float> check_models(const Engine& engine, Checks& check) {
    std::vector<float> all;
    Random random;
    std::vector<std::vector<int64_t>> texts;
    for (size_t length : {1, 2, 19, 35}) {
        texts.emplace_back();
        for (size_t position = 0; position < length; ++position) texts.back().push_back(random() % SmallModel::kVocabulary);
    }
    const std::pair<InputType, Variant> models[] = {{FLOAT, Variant::PLAIN},
                                                    {DYNAMIC, Variant::PLAIN},
                                                    {STATIC, Variant::PLAIN},
                                                    {SMOOTH, Variant::PLAIN},
                                                    {BFLOAT16, Variant::PLAIN},
                                                    {FLOAT, Variant::PRIVATE_LAYER},
                                                    {SMOOTH, Variant::PRIVATE_LAYER},
                                                    {FLOAT, Variant::DISENTANGLED},
                                                    {STATIC, Variant::DISENTANGLED},
                                                    {DYNAMIC, Variant::DISENTANGLED},
                                                    {BFLOAT16, Variant::DISENTANGLED},
                                                    {FLOAT, Variant::PRE_NORM},
                                                    {DYNAMIC, Variant::PRE_NORM_PRIVATE},
                                                    {STATIC, Variant::PRE_NORM},
                                                    {SMOOTH, Variant::PRE_NORM_PRIVATE},
                                                    {BFLOAT16, Variant::PRE_NORM},
                                                    {FLOAT, Variant::PRE_NORM_MEAN},
                                                    {DYNAMIC, Variant::PRE_NORM_MEAN},
                                                    {STATIC, Variant::PRE_NORM_MEAN},
                                                    {FLOAT, Variant::RMS_LATE},
                                                    {STATIC, Variant::RMS_LATE}};
    for (const auto& [kind, variant] : models) {
        const std::string what =
            "model, input " + std::to_string(kind) + ", variant " + std::to_string(static_cast<int>(variant));
        const SmallModel model(kind, variant);
        const bool reads_long_texts = variant == Variant::DISENTANGLED || variant >= Variant::PRE_NORM;
        if (reads_long_texts && texts.back().size() < kLongText) {  // int16 attention
            texts.emplace_back(texts.back());
            while (texts.back().size() < kLongText) texts.back().push_back(random() % SmallModel::kVocabulary);
        }
        // Few contexts, since an emulated processor takes longer to pack weights than to compute with them.
        const auto make = [&](int threads) {
            return std::unique_ptr<sweet_context, decltype(engine.context_free)>(model.make(engine, threads),
                                                                                 engine.context_free);
        };
        const auto of_one_thread = make(1), of_two_threads = make(2);
        check(of_one_thread && of_two_threads, what + ": " + engine.error());
        if (!of_one_thread || !of_two_threads) continue;
        const std::vector<float> logits = model.run_on(engine, of_one_thread.get(), texts);
        check(!logits.empty(), what + ": " + engine.error());
        if (logits.empty()) continue;
        check(std::all_of(logits.begin(), logits.end(), [](float v) { return std::isfinite(v); }), what + ": not finite");
        const std::vector<float> threaded = model.run_on(engine, of_two_threads.get(), texts);
        check(threaded.size() == logits.size() && same_bits(threaded.data(), logits.data(), logits.size()),
              what + ": 1 and 2 threads differ");
        for (size_t text = 0; text < texts.size(); ++text) {
            const std::vector<float> single = model.run_on(engine, of_one_thread.get(), {texts[text]});
            bool same = !single.empty();
            for (size_t exit = 0; exit < SmallModel::kExits && same; ++exit)
                same = same_bits(single.data() + exit * SmallModel::kLabels,
                                 logits.data() + (exit * texts.size() + text) * SmallModel::kLabels, SmallModel::kLabels);
            check(same, what + ": text " + std::to_string(text) + " differs from a batch of one");
        }
        // All texts leave at the first exit, some, or none; which is decided by the same code for every model.
        const std::vector<float> thresholds = all.empty() ? std::vector{0.6f, 0.0f, 1.0f} : std::vector{0.6f};
        for (const float threshold : thresholds) {
            const auto [answers, exits] = model.answer_on(engine, of_two_threads.get(), texts, threshold);
            bool same = answers.size() == texts.size() * SmallModel::kLabels;
            for (size_t text = 0; text < texts.size() && same; ++text) {
                const bool is_valid_exit = threshold == 0.6f || exits[text] == (threshold == 0.0f ? 0 : 1);
                same = is_valid_exit && same_bits(answers.data() + text * SmallModel::kLabels,
                                                  logits.data() + (exits[text] * texts.size() + text) * SmallModel::kLabels,
                                                  SmallModel::kLabels);
            }
            check(same, what + ": sweet_answer differs, threshold " + std::to_string(threshold));
        }
        all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
}

// Runs all checks of this file on one instruction set.
inline Checks check_floats(const Engine& engine, std::vector<float>& logits) {
    Checks check(engine.isa());
    for (const LinearCase& shape : kLinearCases) check_linear(engine, shape, check);
    for (const bool use_int16 : {false, true}) {
        check_attention(engine, 3, 16, {1, 5, 33, 17}, use_int16, check);
        check_attention(engine, 2, 20, {25, 2}, use_int16, check);
        check_attention(engine, 2, 7, {3, 18}, use_int16, check);
        check_attention(engine, 1, 64, {49}, use_int16, check);
        for (const int window : {1, 7, 31}) check_attention(engine, 2, 20, {1, 40, 33, 7}, use_int16, check, window);
        check_attention(engine, 1, 4, {530}, use_int16, check);
        check_attention(engine, 1, 4, {600}, use_int16, check, 260);
    }
    check_activations(engine, check);
    logits = check_models(engine, check);
    return check;
}

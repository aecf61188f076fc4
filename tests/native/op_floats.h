// The engine's floating-point operations against plain double precision: linear layers, attention, activations, and a
// small model. Whatever the instruction set, a row's result is the same to the bit alone, among others, and on any number
// of threads; between instruction sets only rounding differs.
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "api.h"
#include "op_cases.h"

struct Random {
    uint32_t state = 2463534242u;
    uint32_t operator()() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        return state;
    }
    // Uniform in (-reach, reach).
    float real(float reach) { return (static_cast<float>((*this)() >> 8) / 8388608.0f - 1.0f) * reach; }
    std::vector<float> reals(size_t count, float reach, float around = 0.0f) {
        std::vector<float> drawn(count);
        for (float& value : drawn) value = around + real(reach);
        return drawn;
    }
};

// The functions of one library.
struct Engine {
    void* library;
    bool complete = true;

    explicit Engine(const std::string& path) : library(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
        if (!library) std::printf("FAIL %s\n", dlerror());
        complete = library != nullptr;
        find(isa, "sweet_isa");
        find(error, "sweet_error");
        find(gemm, "sweet_op_gemm_int32");
        find(linear, "sweet_op_linear");
        find(attention, "sweet_op_attention");
        find(activation, "sweet_op_activation");
        find(model_new, "sweet_model_new");
        find(model_free, "sweet_model_free");
        find(workspace_bytes, "sweet_workspace_bytes");
        find(embed, "sweet_embed");
        find(probe, "sweet_probe");
        find(advance, "sweet_advance");
        find(answer, "sweet_answer");
    }

    decltype(&sweet_isa) isa = nullptr;
    decltype(&sweet_error) error = nullptr;
    decltype(&sweet_op_gemm_int32) gemm = nullptr;
    decltype(&sweet_op_linear) linear = nullptr;
    decltype(&sweet_op_attention) attention = nullptr;
    decltype(&sweet_op_activation) activation = nullptr;
    decltype(&sweet_model_new) model_new = nullptr;
    decltype(&sweet_model_free) model_free = nullptr;
    decltype(&sweet_workspace_bytes) workspace_bytes = nullptr;
    decltype(&sweet_embed) embed = nullptr;
    decltype(&sweet_probe) probe = nullptr;
    decltype(&sweet_advance) advance = nullptr;
    decltype(&sweet_answer) answer = nullptr;

   private:
    template <class Function>
    void find(Function& function, const char* name) {
        if (!library) return;
        function = reinterpret_cast<Function>(dlsym(library, name));
        if (function) return;
        std::printf("FAIL %s\n", dlerror());
        complete = false;
    }
};

// Counts what holds and what does not.
class Checks {
   public:
    explicit Checks(std::string where) : where_(std::move(where)) {}
    void operator()(bool holds, const std::string& what) {
        ++made_;
        if (holds) return;
        ++failed_;
        std::printf("FAIL %s: %s\n", where_.c_str(), what.c_str());
    }
    int made() const { return made_; }
    int failed() const { return failed_; }

   private:
    std::string where_;
    int made_ = 0, failed_ = 0;
};

inline bool same_bits(const float* a, const float* b, size_t count) {
    return count == 0 || std::memcmp(a, b, count * sizeof(float)) == 0;
}

inline sweet_floats array(const std::vector<float>& numbers) {
    return {numbers.empty() ? nullptr : numbers.data(), static_cast<int64_t>(numbers.size())};
}

// A linear layer with the numbers that it points at.
struct Linear {
    std::vector<int8_t> integers;
    std::vector<float> floats, scale, bias, smoothing;
    sweet_linear layer{};

    Linear() = default;
    Linear(Random& random, int in, int out, Input kind) {
        const size_t count = static_cast<size_t>(in) * out;
        bias = random.reals(out, 1.0f);
        const bool is_float = kind == FLOAT || kind == BFLOAT;
        if (is_float) {
            floats = random.reals(count, 2.0f / std::sqrt(static_cast<float>(in)));
        } else {
            for (size_t i = 0; i < count; ++i) integers.push_back(static_cast<int8_t>(random() >> 11));
            scale = random.reals(out, 0.004f / std::sqrt(static_cast<float>(in)), 0.02f / std::sqrt(static_cast<float>(in)));
        }
        if (kind == SMOOTHED) smoothing = random.reals(in, 0.5f, 1.0f);
        layer.in_bfloat16 = kind == BFLOAT;
        layer.weight = is_float ? static_cast<const void*>(floats.data()) : integers.data();
        layer.weight_size = static_cast<int64_t>(count);
        layer.weight_scale = array(scale);
        layer.bias = array(bias);
        layer.smoothing = array(smoothing);
        layer.input_is_fixed = kind == FIXED;
        layer.input_scale = kind == FIXED ? 8.0f / 255.0f : 0.0f;
        layer.input_zero_point = kind == FIXED ? 128 : 0;
        layer.in = in;
        layer.out = out;
    }
    Linear(const Linear&) = delete;
    Linear(Linear&&) = default;  // a vector's numbers stay where they are
    Linear& operator=(Linear&&) = default;

    double weight(size_t row, size_t column) const {
        const size_t place = row * layer.in + column;
        return integers.empty() ? floats[place] : static_cast<double>(integers[place]) * scale[row];
    }
};

inline void check_linear(const Engine& engine, const LinearCase& shape, Checks& check) {
    Random random;
    const Linear linear(random, shape.in, shape.out, shape.input);
    const size_t m = shape.m, in = shape.in, out = shape.out;
    const std::vector<float> x = random.reals(m * in, 3.9f);
    std::vector<float> y(m * out, NAN), again(m * out, NAN);
    const std::string what = "linear " + std::to_string(m) + " x " + std::to_string(in) + " x " + std::to_string(out) +
                             ", input " + std::to_string(shape.input);
    check(engine.linear(&linear.layer, shape.m, x.data(), y.data(), 1) == 0, what + ": " + engine.error());
    check(engine.linear(&linear.layer, shape.m, x.data(), again.data(), 2) == 0, what + ", 2 threads: " + engine.error());
    check(same_bits(y.data(), again.data(), y.size()), what + ": 1 and 2 threads differ");
    if (m > 1) {
        const int32_t code = engine.linear(&linear.layer, 1, x.data() + (m - 1) * in, again.data(), 1);
        check(code == 0 && same_bits(y.data() + (m - 1) * out, again.data(), out), what + ": a row alone differs");
    }
    // Rounding an input to 8 bits moves it by up to a quantum, the zero point's rounding included; evenly spread, by
    // 1/√12 of it in the mean square. Rounding to bfloat16 moves a number by up to 1/512 of itself.
    constexpr double kBfloat = 1.0 / 512.0;
    const bool is_float = shape.input == FLOAT || shape.input == BFLOAT;
    double squared = 0.0, expected_squared = 0.0, worst = 0.0;
    for (size_t row = 0; row < m; ++row) {
        std::vector<double> inputs(in);
        double low = 0.0, high = 0.0;
        for (size_t j = 0; j < in; ++j) {
            inputs[j] = static_cast<double>(x[row * in + j]) * (linear.smoothing.empty() ? 1.0 : linear.smoothing[j]);
            low = std::min(low, inputs[j]);
            high = std::max(high, inputs[j]);
        }
        const double quantum = is_float ? 0.0 : shape.input == FIXED ? 8.0 / 255.0 : (high - low) / 255.0;
        for (size_t column = 0; column < out; ++column) {
            double expected = linear.bias[column], reach = 0.0, norm = 0.0, size = 1.0, products = 0.0;
            for (size_t j = 0; j < in; ++j) {
                const double weight = linear.weight(column, j);
                expected += weight * inputs[j];
                size += std::abs(weight * inputs[j]);
                reach += std::abs(weight);
                norm += weight * weight;
                products += weight * inputs[j] * weight * inputs[j];
            }
            const double error = std::abs(y[row * out + column] - expected);
            const double relative = shape.input == BFLOAT ? 2.1 * kBfloat : 0.0;
            worst = std::max(worst, error / (quantum * reach + (relative + 4e-6) * size));
            squared += error * error;
            expected_squared += quantum * quantum * norm / 12.0 + relative * relative * products / 6.0 + 1e-11 * size * size;
        }
    }
    check(m * out == 0 || worst <= 1.0, what + ": an error " + std::to_string(worst) + " times what rounding allows");
    check(m * out < 32 || squared <= 4.0 * expected_squared,
          what + ": mean square error " + std::to_string(squared / expected_squared) + " times what rounding makes");
}

// In 16-bit integers a query, a key and a weight are off by a few thousandths of a percent of the largest beside them.
inline void check_attention(const Engine& engine, int heads, int size, const std::vector<int64_t>& lengths, bool in_words,
                            Checks& check) {
    Random random;
    const size_t hidden = static_cast<size_t>(heads) * size;
    size_t tokens = 0;
    for (int64_t length : lengths) tokens += length;
    const std::vector<float> projected = random.reals(tokens * 3 * hidden, 2.0f);
    std::vector<float> context(tokens * hidden, NAN);
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    const int32_t rows = static_cast<int32_t>(lengths.size());
    const std::string what = "attention of " + std::to_string(heads) + " heads of " + std::to_string(size) +
                             (in_words ? " in words" : "");
    check(engine.attention(rows, lengths.data(), heads, size, scale, in_words, projected.data(), context.data()) == 0, what);
    double worst = 0.0;
    size_t start = 0;
    for (int64_t length : lengths) {
        for (int head = 0; head < heads; ++head)
            for (int64_t token = 0; token < length; ++token) {
                const float* query = projected.data() + (start + token) * 3 * hidden + head * size;
                const float* keys = projected.data() + start * 3 * hidden + hidden + head * size;
                std::vector<double> weights(length);
                double total = 0.0;
                for (int64_t other = 0; other < length; ++other) {
                    double score = 0.0;
                    for (int i = 0; i < size; ++i) score += static_cast<double>(query[i]) * keys[other * 3 * hidden + i];
                    total += weights[other] = std::exp(score * scale);
                }
                for (int i = 0; i < size; ++i) {
                    double expected = 0.0;
                    for (int64_t other = 0; other < length; ++other)
                        expected += weights[other] / total * keys[other * 3 * hidden + hidden + i];
                    const double found = context[(start + token) * hidden + head * size + i];
                    worst = std::isnan(found) ? INFINITY : std::max(worst, std::abs(found - expected));
                }
            }
        start += length;
    }
    check(worst < (in_words ? 1e-3 : 2e-5), what + ": error " + std::to_string(worst));
}

inline double activated(int32_t activation, double x) {
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
            const double expected = activated(activation, x[i]);
            const double error = std::abs(y[i] - expected) / std::max(1.0, std::abs(expected));
            worst = std::isnan(error) ? INFINITY : std::max(worst, error);
        }
        check(code == 0 && worst < 2e-6, "activation " + std::to_string(activation) + ": error " + std::to_string(worst));
    }
}

// A model of random weights: 3 layers, exits after 1 and 3 of them, sizes that fill no vector. The probe of the first exit
// runs the first layer, or a private one. Emulated processors need some 50 ns for a multiplication of floats: it is kept
// small.
class SmallModel {
   public:
    static constexpr int kWidth = 36, kHidden = 72, kInner = 100, kHeads = 3, kLabels = 3, kLayers = 3;
    static constexpr int kVocabulary = 40, kPositions = 40;
    static constexpr int kExits = 2, kFullLayers = 2;

    explicit SmallModel(Input kind, bool has_private_layer = false) {
        Random random;
        sweet_embeddings& embeddings = description_.embeddings;
        embeddings.words = keep(random.reals(kVocabulary * kWidth, 1.0f));
        embeddings.positions = keep(random.reals(kPositions * kWidth, 1.0f));
        embeddings.token_types = keep(random.reals(2 * kWidth, 1.0f));
        embeddings.vocabulary = kVocabulary;
        embeddings.num_positions = kPositions;
        embeddings.num_token_types = 2;
        embeddings.width = kWidth;
        embeddings.norm = norm(random, kWidth);
        embeddings.after_norm = linear(random, kWidth, kHidden, FLOAT);
        for (int index = 0; index < kLayers + has_private_layer; ++index) {
            sweet_layer layer{};
            layer.query = linear(random, kHidden, kHidden, kind);
            layer.key = linear(random, kHidden, kHidden, kind);
            layer.value = linear(random, kHidden, kHidden, kind);
            layer.attention_output = linear(random, kHidden, kHidden, kind);
            layer.up = linear(random, kHidden, kInner, kind);
            layer.down = linear(random, kInner, kHidden, kind);
            layer.attention_norm = norm(random, kHidden);
            layer.output_norm = norm(random, kHidden);
            layers_.push_back(layer);
        }
        for (int index = 0; index < kExits; ++index) {
            const sweet_linear dense = linear(random, kHidden, kHidden, FLOAT);
            exits_.push_back({{dense, linear(random, kHidden, kLabels, FLOAT), SWEET_TANH, 0}, 0, 0});
        }
        exits_[0].layer = has_private_layer ? kLayers : 0;
        exits_[1].full_layers = exits_[1].layer = kFullLayers;
        description_.layers = layers_.data();
        description_.exits = exits_.data();
        description_.num_layers = static_cast<int32_t>(layers_.size());
        description_.num_full_layers = kFullLayers;
        description_.num_exits = kExits;
        description_.num_attention_heads = kHeads;
        description_.activation = SWEET_GELU;
        description_.score_scale = std::sqrt(static_cast<float>(kHidden / kHeads));
        description_.hidden = kHidden;
    }

    // Packed; every call uses all threads, however short it is.
    sweet_model* make(const Engine& engine, int threads) const { return engine.model_new(&description_, threads, 0); }
    const sweet_description& description() const { return description_; }

    // Texts end to end, as the engine takes them.
    struct Packed {
        std::vector<int64_t> lengths, ids, types, positions;

        int64_t tokens() const { return static_cast<int64_t>(ids.size()); }

        explicit Packed(const std::vector<std::vector<int64_t>>& texts) {
            for (const std::vector<int64_t>& text : texts) {
                lengths.push_back(static_cast<int64_t>(text.size()));
                for (size_t place = 0; place < text.size(); ++place) {
                    ids.push_back(text[place]);
                    types.push_back(place > text.size() / 2);
                    positions.push_back(static_cast<int64_t>(place));
                }
            }
        }
    };

    // Logits (texts, labels) that texts leave with, and at which exit, under a threshold of the first.
    std::pair<std::vector<float>, std::vector<int64_t>> answer(
        const Engine& engine, const std::vector<std::vector<int64_t>>& texts, float threshold) const {
        sweet_model* const model = make(engine, 2);
        if (!model) return {};
        const auto answers = answer_on(engine, model, texts, threshold);
        engine.model_free(model);
        return answers;
    }

    // The same of a packed model.
    std::pair<std::vector<float>, std::vector<int64_t>> answer_on(
        const Engine& engine, sweet_model* model, const std::vector<std::vector<int64_t>>& texts, float threshold) const {
        const Packed packed(texts);
        const std::vector<float> temperatures(kExits, 1.0f);
        std::vector<float> logits(texts.size() * kLabels, NAN), confidences(texts.size(), NAN);
        std::vector<int64_t> exits(texts.size(), -1);
        const sweet_policy policy{temperatures.data(), &threshold, kExits, kLabels, kExits - 1, 0};
        const int32_t code = engine.answer(model, &policy, static_cast<int32_t>(texts.size()), packed.tokens(),
                                           packed.lengths.data(), packed.ids.data(), packed.types.data(),
                                           packed.positions.data(), logits.data(), exits.data(), confidences.data());
        if (code != 0) return {};
        return {logits, exits};
    }

    // Logits (exits, texts, labels), or nothing if a call failed.
    std::vector<float> run(const Engine& engine, const std::vector<std::vector<int64_t>>& texts, int threads) const {
        sweet_model* const model = make(engine, threads);
        if (!model) return {};
        const std::vector<float> logits = run_on(engine, model, texts);
        engine.model_free(model);
        return logits;
    }

    // The same of a packed model.
    std::vector<float> run_on(const Engine& engine, sweet_model* model,
                              const std::vector<std::vector<int64_t>>& texts) const {
        const auto [lengths, ids, types, positions] = Packed(texts);
        const int32_t rows = static_cast<int32_t>(texts.size());
        const size_t size = ids.size() * kHidden + SWEET_READ_BEYOND;
        std::vector<const float*> starts(texts.size()), next_starts(texts.size());
        std::vector<float> logits(size_t{kExits} * rows * kLabels, NAN), states(size), next(size);
        const auto states_size = static_cast<int64_t>(size);
        bool well = engine.embed(model, rows, static_cast<int64_t>(ids.size()), lengths.data(), ids.data(), types.data(),
                                 positions.data(), states.data(), states_size, starts.data()) == 0;
        for (int32_t exit = 0; exit < description_.num_exits && well; ++exit) {
            float* const answers = logits.data() + static_cast<size_t>(exit) * rows * kLabels;
            well = engine.probe(model, exit, rows, starts.data(), lengths.data(), answers, int64_t{rows} * kLabels) == 0;
            if (exit + 1 == description_.num_exits) break;
            well = well && engine.advance(model, exit, rows, starts.data(), lengths.data(), next.data(), states_size,
                                          next_starts.data()) == 0;
            states.swap(next);
            starts.swap(next_starts);
        }
        return well ? logits : std::vector<float>{};
    }

   private:
    sweet_floats keep(std::vector<float> numbers) {
        numbers_.push_back(std::move(numbers));
        return array(numbers_.back());
    }
    sweet_norm norm(Random& random, int size) {
        return {keep(random.reals(size, 0.3f, 1.0f)), keep(random.reals(size, 0.1f)), 1e-12f, size};
    }
    sweet_linear linear(Random& random, int in, int out, Input kind) {
        linears_.emplace_back(random, in, out, kind);
        return linears_.back().layer;
    }

    std::vector<std::vector<float>> numbers_;
    std::vector<Linear> linears_;
    std::vector<sweet_layer> layers_;
    std::vector<sweet_exit> exits_;
    sweet_description description_{};
};

// Logits of the small models, one after another, for comparison between instruction sets.
inline std::vector<float> check_models(const Engine& engine, Checks& check) {
    std::vector<float> all;
    Random random;
    std::vector<std::vector<int64_t>> texts;
    for (size_t length : {1, 2, 19, 35}) {
        texts.emplace_back();
        for (size_t place = 0; place < length; ++place) texts.back().push_back(random() % SmallModel::kVocabulary);
    }
    const std::pair<Input, bool> models[] = {{FLOAT, false},    {DYNAMIC, false}, {FIXED, false}, {SMOOTHED, false},
                                             {BFLOAT, false},   {FLOAT, true},    {FIXED, true},  {SMOOTHED, true}};
    for (const auto& [kind, has_private_layer] : models) {
        const std::string what =
            "model, input " + std::to_string(kind) + (has_private_layer ? ", an exit with a private layer" : "");
        const SmallModel model(kind, has_private_layer);
        const std::vector<float> logits = model.run(engine, texts, 1);
        check(!logits.empty(), what + ": " + engine.error());
        if (logits.empty()) continue;
        check(std::all_of(logits.begin(), logits.end(), [](float v) { return std::isfinite(v); }), what + ": not finite");
        const std::vector<float> threaded = model.run(engine, texts, 2);
        check(threaded.size() == logits.size() && same_bits(threaded.data(), logits.data(), logits.size()),
              what + ": 1 and 2 threads differ");
        for (size_t text = 0; text < texts.size(); ++text) {
            const std::vector<float> alone = model.run(engine, {texts[text]}, 1);
            bool same = !alone.empty();
            for (size_t exit = 0; exit < SmallModel::kExits && same; ++exit)
                same = same_bits(alone.data() + exit * SmallModel::kLabels,
                                 logits.data() + (exit * texts.size() + text) * SmallModel::kLabels, SmallModel::kLabels);
            check(same, what + ": text " + std::to_string(text) + " alone differs");
        }
        for (const float threshold : {0.0f, 0.6f, 1.0f}) {
            const auto [answers, exits] = model.answer(engine, texts, threshold);
            bool same = answers.size() == texts.size() * SmallModel::kLabels;
            for (size_t text = 0; text < texts.size() && same; ++text) {
                const bool possible = threshold == 0.6f || exits[text] == (threshold == 0.0f ? 0 : 1);
                same = possible && same_bits(answers.data() + text * SmallModel::kLabels,
                                             logits.data() + (exits[text] * texts.size() + text) * SmallModel::kLabels,
                                             SmallModel::kLabels);
            }
            check(same, what + ": answered in one call, threshold " + std::to_string(threshold));
        }
        all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
}

// Everything above on one instruction set; the logits go to `logits`.
inline Checks check_floats(const Engine& engine, std::vector<float>& logits) {
    Checks check(engine.isa());
    for (const LinearCase& shape : kLinearCases) check_linear(engine, shape, check);
    for (const bool in_words : {false, true}) {
        check_attention(engine, 3, 16, {1, 5, 33, 17}, in_words, check);
        check_attention(engine, 2, 20, {25, 2}, in_words, check);
        check_attention(engine, 2, 7, {3, 18}, in_words, check);
        check_attention(engine, 1, 64, {49}, in_words, check);
    }
    check_activations(engine, check);
    logits = check_models(engine, check);
    return check;
}

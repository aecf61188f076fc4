// Linear layers and a small encoder model with random weights.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine_under_test.h"
#include "op_cases.h"

// A linear layer that owns its arrays.
struct Linear {
    std::vector<int8_t> integers;
    std::vector<float> floats, scale, bias, smoothing;
    sweet_linear layer{};

    Linear() = default;
    Linear(Random& random, int in, int out, InputType kind) {
        const size_t count = static_cast<size_t>(in) * out;
        bias = random.reals(out, 1.0f);
        const bool is_float = kind == FLOAT || kind == BFLOAT16;
        if (is_float) {
            floats = random.reals(count, 2.0f / std::sqrt(static_cast<float>(in)));
        } else {
            for (size_t i = 0; i < count; ++i) integers.push_back(static_cast<int8_t>(random() >> 11));
            scale = random.reals(out, 0.004f / std::sqrt(static_cast<float>(in)), 0.02f / std::sqrt(static_cast<float>(in)));
        }
        if (kind == SMOOTH) smoothing = random.reals(in, 0.5f, 1.0f);
        layer.is_bfloat16 = kind == BFLOAT16;
        layer.weight = is_float ? static_cast<const void*>(floats.data()) : integers.data();
        layer.weight_size = static_cast<int64_t>(count);
        layer.weight_scale = array(scale);
        layer.bias = array(bias);
        layer.smoothing = array(smoothing);
        layer.is_static = kind == STATIC;
        layer.input_scale = kind == STATIC ? 8.0f / 255.0f : 0.0f;
        layer.input_zero_point = kind == STATIC ? 128 : 0;
        layer.in = in;
        layer.out = out;
    }
    Linear(const Linear&) = delete;
    Linear(Linear&&) = default;  // moving a vector keeps its data pointer valid
    Linear& operator=(Linear&&) = default;

    double weight(size_t row, size_t column) const {
        const size_t index = row * layer.in + column;
        return integers.empty() ? floats[index] : static_cast<double>(integers[index]) * scale[row];
    }
};

// PRIVATE_LAYER: the probe of the first exit runs a layer of its own. DISENTANGLED: after DeBERTa. PRE_NORM: after
// ModernBERT: gates, rotary positions, a window in the second layer, and no biases; PRE_NORM_PRIVATE: with a private layer
// too; PRE_NORM_MEAN: with mean pooling, and gates that are quantized unlike `up`; RMS_LATE: after EuroBERT, with RMSNorm and
// with late pooling over an intermediate size that is not the hidden size.
enum class Variant { PLAIN, PRIVATE_LAYER, DISENTANGLED, PRE_NORM, PRE_NORM_PRIVATE, PRE_NORM_MEAN, RMS_LATE };

// A model with random weights: 3 layers, exits after layers 1 and 3, sizes that are no multiples of the vector size. The
// probe of the first exit runs the first layer or a private one. `DISENTANGLED`: DeBERTa's attention, with buckets that are
// consecutive up to a distance of 19, in place of position embeddings, and a convolution beside the first layer. The model is
// small because an emulated processor takes about 50 ns per floating-point multiplication.
class SmallModel {
   public:
    static constexpr int kWidth = 36, kHidden = 72, kInner = 100, kHeads = 3, kLabels = 3, kLayers = 3;
    static constexpr int kVocabulary = 40, kPositions = 40;
    static constexpr int kExits = 2, kFullLayers = 2;
    static constexpr int kBuckets = 50, kDistances = 60, kWindow = 3;

    static constexpr int kReach = 5, kMaxLength = 90;

    explicit SmallModel(InputType kind, Variant variant = Variant::PLAIN)
        : is_pre_norm_(variant >= Variant::PRE_NORM), is_rms_(variant == Variant::RMS_LATE) {
        const bool has_private_layer = variant == Variant::PRIVATE_LAYER || variant == Variant::PRE_NORM_PRIVATE;
        Random random;
        sweet_embeddings& embeddings = description_.embeddings;
        const size_t num_words = kVocabulary * kWidth;
        embeddings.words_size = num_words;
        if (kind == FLOAT || kind == BFLOAT16) {
            embeddings.words = store(random.reals(num_words, 1.0f)).values;
        } else {
            for (size_t i = 0; i < num_words; ++i) words_.push_back(static_cast<int8_t>(random() >> 11));
            embeddings.words = words_.data();
            embeddings.word_scale = store(random.reals(kVocabulary, 0.004f, 0.008f));
        }
        embeddings.positions = store(random.reals(kPositions * kWidth, 1.0f));
        embeddings.token_types = store(random.reals(2 * kWidth, 1.0f));
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
            if (is_pre_norm_) {
                if (index == 0) layer.attention_norm = {};
                const InputType of_gate = kind == FLOAT ? BFLOAT16 : kind == STATIC ? DYNAMIC : FLOAT;
                layer.gate = linear(random, kHidden, kInner, variant == Variant::PRE_NORM_MEAN ? of_gate : kind);
                layer.rotary = {store(random.reals(kHidden / kHeads / 2, 0.5f, 0.5f)), 1.1f, 0};
                layer.window = index == 1 ? kReach : 0;
            }
            layers_.push_back(layer);
        }
        if (variant == Variant::DISENTANGLED) make_disentangled(random, kind == BFLOAT16 ? BFLOAT16 : FLOAT);
        for (int index = 0; index < kExits; ++index) {
            const int pooled = is_rms_ ? kInner : kHidden;
            const sweet_linear dense = linear(random, kHidden, pooled, FLOAT);
            exits_.push_back({{dense, linear(random, pooled, kLabels, FLOAT), {}, SWEET_TANH, SWEET_FIRST}, {}, 0, 0});
            if (!is_pre_norm_) continue;
            exits_.back().norm = norm(random, kHidden);
            exits_.back().head.norm = norm(random, pooled);
            if (variant == Variant::PRE_NORM_MEAN) exits_.back().head.pooling = SWEET_MEAN;
            if (is_rms_) exits_.back().head.pooling = SWEET_LATE;
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
        if (!is_pre_norm_) return;
        description_.embeddings.positions = {};
        description_.embeddings.num_positions = 0;
        description_.norm_first = 1;
        description_.max_length = kMaxLength;
    }

    // Returns a context of a model and of threads that nothing else uses. Every call uses all threads, regardless of its
    // size.
    sweet_context* make(const Engine& engine, int threads) const {
        sweet_model* const model = engine.model_new(&description_);
        sweet_threads* const of_context = engine.threads_new(threads);
        sweet_context* const context = model && of_context ? engine.context_new(model, of_context, 0) : nullptr;
        engine.model_free(model);
        engine.threads_free(of_context);
        return context;
    }
    const sweet_description& description() const { return description_; }

    // Texts packed without padding, as the engine reads them.
    struct PackedTexts {
        std::vector<int64_t> lengths, ids, types, positions;

        int64_t tokens() const { return static_cast<int64_t>(ids.size()); }

        explicit PackedTexts(const std::vector<std::vector<int64_t>>& texts) {
            for (const std::vector<int64_t>& text : texts) {
                lengths.push_back(static_cast<int64_t>(text.size()));
                for (size_t position = 0; position < text.size(); ++position) {
                    ids.push_back(text[position]);
                    types.push_back(position > text.size() / 2);
                    positions.push_back(static_cast<int64_t>(position));
                }
            }
        }
    };

    // Returns the logits (texts, labels) with early exit and the exit of each text; `threshold` applies to the first exit.
    std::pair<std::vector<float>, std::vector<int64_t>> answer(const Engine& engine,
                                                               const std::vector<std::vector<int64_t>>& texts,
                                                               float threshold) const {
        sweet_context* const context = make(engine, 2);
        if (!context) return {};
        const auto answers = answer_on(engine, context, texts, threshold);
        engine.context_free(context);
        return answers;
    }

    // The same for an existing context.
    std::pair<std::vector<float>, std::vector<int64_t>> answer_on(const Engine& engine, sweet_context* context,
                                                                  const std::vector<std::vector<int64_t>>& texts,
                                                                  float threshold) const {
        const PackedTexts packed(texts);
        const std::vector<float> temperatures(kExits, 1.0f);
        std::vector<float> logits(texts.size() * kLabels, NAN), confidences(texts.size(), NAN);
        std::vector<int64_t> exits(texts.size(), -1), best(texts.size(), -1);
        std::vector<float> probabilities(texts.size(), NAN);
        const sweet_policy policy{temperatures.data(), &threshold, kExits, kLabels, kExits - 1, 0, nullptr, -1, 0};
        const int32_t code =
            engine.answer(context, &policy, static_cast<int32_t>(texts.size()), packed.tokens(), packed.lengths.data(),
                          packed.ids.data(), packed.types.data(), packed.positions.data(), logits.data(), exits.data(),
                          confidences.data(), best.data(), probabilities.data());
        if (code != 0) return {};
        return {logits, exits};
    }

    // Returns the logits of all exits (exits, texts, labels), or an empty vector if a call fails.
    std::vector<float> run(const Engine& engine, const std::vector<std::vector<int64_t>>& texts, int threads) const {
        sweet_context* const context = make(engine, threads);
        if (!context) return {};
        const std::vector<float> logits = run_on(engine, context, texts);
        engine.context_free(context);
        return logits;
    }

    // The same for an existing context.
    std::vector<float> run_on(const Engine& engine, sweet_context* context,
                              const std::vector<std::vector<int64_t>>& texts) const {
        const auto [lengths, ids, types, positions] = PackedTexts(texts);
        const int32_t rows = static_cast<int32_t>(texts.size());
        const size_t size = ids.size() * kHidden + SWEET_READ_PADDING;
        std::vector<const float*> starts(texts.size()), next_starts(texts.size());
        std::vector<float> logits(size_t{kExits} * rows * kLabels, NAN), states(size), next(size);
        const auto states_size = static_cast<int64_t>(size);
        bool succeeded = engine.embed(context, rows, static_cast<int64_t>(ids.size()), lengths.data(), ids.data(),
                                      types.data(), positions.data(), states.data(), states_size, starts.data()) == 0;
        for (int32_t exit = 0; exit < description_.num_exits && succeeded; ++exit) {
            float* const answers = logits.data() + static_cast<size_t>(exit) * rows * kLabels;
            succeeded = engine.probe(context, exit, rows, starts.data(), lengths.data(), nullptr, answers,
                                     int64_t{rows} * kLabels) == 0;
            if (exit + 1 == description_.num_exits) break;
            succeeded = succeeded && engine.advance(context, exit, rows, starts.data(), lengths.data(), nullptr, next.data(),
                                                    states_size, next_starts.data()) == 0;
            states.swap(next);
            starts.swap(next_starts);
        }
        return succeeded ? logits : std::vector<float>{};
    }

   private:
    void make_disentangled(Random& random, InputType kind) {
        description_.embeddings.positions = {};
        description_.embeddings.num_positions = 0;
        for (int distance = -kDistances; distance <= kDistances; ++distance) {
            const int far = std::min(19 + (std::abs(distance) - 19) / 8, kBuckets / 2 - 1);
            const int magnitude = std::abs(distance) < 20 ? std::abs(distance) : far;
            relative_index_.push_back(kBuckets / 2 + (distance < 0 ? -magnitude : magnitude));
        }
        description_.relative_index = relative_index_.data();
        description_.relative_index_size = static_cast<int64_t>(relative_index_.size());
        description_.num_relative_buckets = kBuckets;
        for (sweet_layer& layer : layers_) {
            layer.relative_key = store(random.reals(kBuckets * kHidden, 0.5f));
            layer.relative_query = store(random.reals(kBuckets * kHidden, 0.5f));
        }
        layers_[0].convolution = linear(random, kWindow * kHidden, kHidden, kind);
        layers_[0].convolution_norm = norm(random, kHidden);
        layers_[0].convolution_activation = SWEET_TANH;
    }

    sweet_floats store(std::vector<float> values) {
        arrays_.push_back(std::move(values));
        return array(arrays_.back());
    }
    sweet_norm norm(Random& random, int size) {
        const sweet_floats weight = store(random.reals(size, 0.3f, 1.0f));
        return {weight, is_pre_norm_ ? sweet_floats{} : store(random.reals(size, 0.1f)), 1e-12f, size, is_rms_, 0};
    }
    sweet_linear linear(Random& random, int in, int out, InputType kind) {
        linears_.emplace_back(random, in, out, kind);
        if (is_pre_norm_ && out != kLabels) linears_.back().layer.bias = {};
        return linears_.back().layer;
    }

    bool is_pre_norm_, is_rms_;
    std::vector<int64_t> relative_index_;
    std::vector<int8_t> words_;
    std::vector<std::vector<float>> arrays_;
    std::vector<Linear> linears_;
    std::vector<sweet_layer> layers_;
    std::vector<sweet_exit> exits_;
    sweet_description description_{};
};

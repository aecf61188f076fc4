// Invalid descriptions and calls, which the engine must reject because they would access memory out of bounds: a valid model
// with one change at a time, and calls with one invalid argument.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "small_model.h"

// Changes a copy of a valid description, its layers and its exits.
using Change = std::function<void(sweet_description&, std::vector<sweet_layer>&, std::vector<sweet_exit>&)>;

// Checks that the engine rejects a valid model after a change.
inline void expect_rejected_change(const Engine& engine, Checks& check, const SmallModel& valid, const Change& change,
                                   const std::string& name) {
    sweet_description changed = valid.description();
    std::vector<sweet_layer> layers(changed.layers, changed.layers + changed.num_layers);
    std::vector<sweet_exit> exits(changed.exits, changed.exits + changed.num_exits);
    changed.layers = layers.data();
    changed.exits = exits.data();
    change(changed, layers, exits);
    sweet_model* const model = engine.model_new(&changed);
    check(model == nullptr, name + " was accepted");
    if (model) engine.model_free(model);
}

inline void check_invalid_models(const Engine& engine, Checks& check) {
    const SmallModel small(STATIC, Variant::PRIVATE_LAYER);
    constexpr int32_t kLayers = SmallModel::kLayers + 1, kHidden = SmallModel::kHidden;
    int number = 0;
    const auto expect_rejected_of = [&](const SmallModel& valid, const Change& change) {
        expect_rejected_change(engine, check, valid, change, "invalid model " + std::to_string(number++));
    };
    const auto expect_rejected = [&](const Change& change) { expect_rejected_of(small, change); };
    const int32_t sizes[] = {0, -1, -4, 1, 5, 48, kHidden - 1, kHidden + 1, 1 << 20, 2147483647, -2147483647 - 1};
    for (const int32_t size : sizes) {
        expect_rejected([=](auto& model, auto&, auto&) { model.hidden = size; });
        if (kHidden % std::max(size, 1) != 0 || size < 1)
            expect_rejected([=](auto& model, auto&, auto&) { model.num_attention_heads = size; });
        if (size != kLayers)
            expect_rejected([=](auto& model, auto&, auto&) { model.num_layers = size < kLayers ? size : -size; });
        expect_rejected([=](auto& model, auto&, auto&) { model.embeddings.width = size; });
        expect_rejected([=](auto& model, auto&, auto&) { model.embeddings.vocabulary = size; });
        expect_rejected([=](auto& model, auto&, auto&) { model.embeddings.num_positions = size; });
        expect_rejected([=](auto& model, auto&, auto&) { model.embeddings.num_token_types = size; });
        if (size != 0)  // which means that there is none
            expect_rejected([=](auto& model, auto&, auto&) { model.embeddings.norm.size = size; });
        for (int32_t sweet_linear::*const side : {&sweet_linear::in, &sweet_linear::out}) {
            expect_rejected([=](auto& model, auto&, auto&) { model.embeddings.after_norm.*side = size; });
            for (sweet_linear sweet_layer::*const part :
                 {&sweet_layer::query, &sweet_layer::key, &sweet_layer::value, &sweet_layer::attention_output,
                  &sweet_layer::up, &sweet_layer::down})
                for (const size_t index : {1, 3})
                    expect_rejected([=](auto&, auto& layers, auto&) { layers[index].*part.*side = size; });
            for (sweet_linear sweet_head::*const part : {&sweet_head::dense, &sweet_head::classifier})
                expect_rejected([=](auto&, auto&, auto& exits) { exits[1].head.*part.*side = size; });
        }
        for (sweet_norm sweet_layer::*const norm : {&sweet_layer::attention_norm, &sweet_layer::output_norm})
            for (const size_t index : {2, 3})
                expect_rejected([=](auto&, auto& layers, auto&) { (layers[index].*norm).size = size; });
    }
    // Layers that do not fit the hidden size, arrays that are too short, and missing arrays.
    for (sweet_linear sweet_layer::*const part : {&sweet_layer::query, &sweet_layer::key, &sweet_layer::value,
                                                  &sweet_layer::attention_output, &sweet_layer::up, &sweet_layer::down}) {
        expect_rejected([=](auto&, auto& layers, auto&) { layers[0].*part = {}; });
        expect_rejected([=](auto&, auto& layers, auto&) { (layers[0].*part).weight = nullptr; });
        expect_rejected([=](auto&, auto& layers, auto&) { --(layers[0].*part).weight_size; });
        expect_rejected([=](auto&, auto& layers, auto&) { --(layers[0].*part).bias.size; });
        expect_rejected([=](auto&, auto& layers, auto&) { --(layers[0].*part).weight_scale.size; });
        expect_rejected([=](auto&, auto& layers, auto&) { (layers[0].*part).smoothing = {layers[0].query.bias.values, 1}; });
        expect_rejected([=](auto&, auto& layers, auto&) { (layers[0].*part).is_bfloat16 = 1; });
        for (const int32_t zero_point : {-1, 256, 300, 2147483647, -2147483647 - 1})
            expect_rejected([=](auto&, auto& layers, auto&) { (layers[0].*part).input_zero_point = zero_point; });
        for (const float scale : {0.0f, -1.0f, NAN, INFINITY, -INFINITY})
            expect_rejected([=](auto&, auto& layers, auto&) { (layers[0].*part).input_scale = scale; });
    }
    for (const float scale : {0.0f, -1.0f, NAN, INFINITY}) {
        std::vector<float> scales(kHidden, 0.01f);
        scales.back() = scale;
        expect_rejected([&](auto&, auto& layers, auto&) { layers[0].key.weight_scale.values = scales.data(); });
        expect_rejected([=](auto& model, auto&, auto&) { model.score_scale = scale; });
    }
    expect_rejected([](auto&, auto& layers, auto&) { layers[0].up.out = layers[0].down.in = 1 << 17; });
    expect_rejected([](auto&, auto& layers, auto& exits) { exits[0].head.dense = layers[0].query; });
    expect_rejected([](auto&, auto&, auto& exits) { exits[0].head.dense.is_bfloat16 = 1; });
    expect_rejected([](auto&, auto&, auto& exits) { exits[1].head.classifier = exits[1].head.dense; });
    expect_rejected([](auto& model, auto&, auto&) { model.embeddings.before_norm = model.embeddings.after_norm; });
    expect_rejected([](auto& model, auto&, auto&) { model.embeddings.after_norm = {}; });
    expect_rejected([](auto& model, auto&, auto&) { model.embeddings.after_norm.is_bfloat16 = 1; });
    expect_rejected([](auto& model, auto&, auto&) { model.embeddings.words = nullptr; });
    expect_rejected([](auto& model, auto&, auto&) { --model.embeddings.words_size; });
    expect_rejected([](auto& model, auto&, auto&) { --model.embeddings.word_scale.size; });
    for (const float scale : {0.0f, -1.0f, NAN, INFINITY}) {
        std::vector<float> scales(SmallModel::kVocabulary, 0.01f);
        scales.back() = scale;
        expect_rejected([&](auto& model, auto&, auto&) { model.embeddings.word_scale.values = scales.data(); });
    }
    for (const int32_t offset : {-1, SmallModel::kPositions + 1, 2147483647})
        expect_rejected([=](auto& model, auto&, auto&) { model.embeddings.position_offset = offset; });
    for (const int32_t activation : {-1, 5, 2147483647}) {
        expect_rejected([=](auto& model, auto&, auto&) { model.activation = activation; });
        expect_rejected([=](auto&, auto&, auto& exits) { exits[0].head.activation = activation; });
    }
    for (const auto& [first, second] : {std::array{-1, 2}, {2, 0}, {2, 2}, {0, 1}, {0, 3}, {2147483647, 2}, {0, 2147483647}})
        expect_rejected([=](auto&, auto&, auto& exits) {
            exits[0].full_layers = first;
            exits[1].full_layers = second;
        });
    for (const int32_t layer : {-1, 1, 4, 2147483647, -2147483647 - 1})
        expect_rejected([=](auto&, auto&, auto& exits) { exits[0].layer = layer; });
    for (const int32_t count : {-1, 0, 1, 3, 4, 5, 2147483647})
        expect_rejected([=](auto& model, auto&, auto&) { model.num_full_layers = count; });
    for (const int32_t count : {0, -1, 4, 2147483647})
        expect_rejected([=](auto& model, auto&, auto&) { model.num_exits = count; });
    expect_rejected([](auto& model, auto&, auto&) { model.layers = nullptr; });
    expect_rejected([](auto& model, auto&, auto&) { model.exits = nullptr; });
    // Disentangled attention and the convolution.
    const SmallModel disentangled(STATIC, Variant::DISENTANGLED);
    const auto expect_rejected_terms = [&](const Change& change) { expect_rejected_of(disentangled, change); };
    sweet_model* const valid = engine.model_new(&disentangled.description());
    check(valid != nullptr, engine.error());
    if (valid) engine.model_free(valid);
    for (const int32_t count : {0, -1, 1, 49, 51, 2147483647, -2147483647 - 1})
        expect_rejected_terms([=](auto& model, auto&, auto&) { model.num_relative_buckets = count; });
    for (const int64_t size : {int64_t{0}, int64_t{-1}, int64_t{2}, int64_t{120}, int64_t{1} << 40, INT64_MAX, INT64_MIN})
        expect_rejected_terms([=](auto& model, auto&, auto&) { model.relative_index_size = size; });
    for (const int64_t bucket : {int64_t{-1}, int64_t{50}, int64_t{1} << 32, INT64_MAX, INT64_MIN}) {
        std::vector<int64_t> index(3, 0);
        index[1] = bucket;
        expect_rejected_terms([&](auto& model, auto&, auto&) {
            model.relative_index = index.data();
            model.relative_index_size = 3;
        });
    }
    expect_rejected_terms([](auto& model, auto&, auto&) { model.relative_index = nullptr; });
    for (sweet_floats sweet_layer::*const table : {&sweet_layer::relative_key, &sweet_layer::relative_query}) {
        expect_rejected_terms([=](auto&, auto& layers, auto&) { --(layers[1].*table).size; });
        expect_rejected_terms([=](auto&, auto& layers, auto&) { (layers[1].*table).values = nullptr; });
        expect_rejected([=](auto&, auto& layers, auto&) { layers[1].*table = {layers[0].query.bias.values, kHidden}; });
    }
    for (const int32_t in : {kHidden - 1, 2 * kHidden, 4 * kHidden, 1 << 20, -kHidden, 2147483647})
        expect_rejected_terms([=](auto&, auto& layers, auto&) { layers[0].convolution.in = in; });
    for (const int32_t out : {kHidden - 1, 2 * kHidden, 2147483647, -1})
        expect_rejected_terms([=](auto&, auto& layers, auto&) { layers[0].convolution.out = out; });
    expect_rejected_terms([](auto&, auto& layers, auto&) { layers[0].convolution = layers[0].query; });
    expect_rejected_terms([](auto&, auto& layers, auto&) { layers[0].convolution.weight = nullptr; });
    expect_rejected_terms([](auto&, auto& layers, auto&) { --layers[0].convolution.weight_size; });
    expect_rejected_terms([](auto&, auto& layers, auto&) { --layers[0].convolution_norm.size; });
    expect_rejected_terms([](auto&, auto& layers, auto&) { layers[0].convolution_norm.weight = {}; });
    expect_rejected_terms([](auto&, auto& layers, auto&) { layers[0].convolution_activation = 5; });
    check(engine.model_new(nullptr) == nullptr, "no description");
    check(engine.model_bytes(nullptr) < 0, "bytes of no model");
}

inline void check_invalid_contexts(const Engine& engine, Checks& check) {
    const SmallModel small(STATIC);
    sweet_model* const model = engine.model_new(&small.description());
    sweet_threads* const threads = engine.threads_new(2);
    for (const int32_t count : {0, -1, 1025, 2147483647})
        check(engine.threads_new(count) == nullptr, std::to_string(count) + " threads");
    check(engine.context_new(model, threads, -2) == nullptr, "min_macs_per_thread below -1");
    check(engine.context_new(nullptr, threads, 0) == nullptr, "no model");
    check(engine.context_new(model, nullptr, 0) == nullptr, "no threads");
    check(engine.context_bytes(nullptr) < 0, "bytes of no context");
    int64_t counts[SWEET_NUM_COUNTS] = {-1, -1, -1, -1};
    check(engine.threads_count(nullptr, counts) < 0, "counts of no threads");
    check(engine.threads_count(threads, nullptr) < 0, "no counts");
    check(engine.threads_wake(nullptr) < 0, "wake of no threads");
    check(engine.threads_wake(threads) == 0, "wake of unused threads");
    check(engine.threads_yield(nullptr, 1) < 0, "yield of no threads");
    check(engine.threads_yield(threads, 1) == 0 && engine.threads_yield(threads, 0) == 0, "yield");
    check(engine.threads_count(threads, counts) == 0 && counts[SWEET_CALLS] == 0 && counts[SWEET_MOST_THREADS] == 0,
          "counts of unused threads");
    sweet_context* const context = engine.context_new(model, threads, 0);
    const int64_t bytes = engine.model_bytes(model);
    engine.model_free(model);
    const std::vector<std::vector<int64_t>> texts{{1, 2, 3}, {4}};
    const std::vector<float> logits = small.run_on(engine, context, texts), expected = small.run(engine, texts, 1);
    check(bytes > 0 && !logits.empty() && same_bits(logits.data(), expected.data(), logits.size()),
          "a context whose model was freed by its creator");
    check(engine.threads_count(threads, counts) == 0 && counts[SWEET_CALLS] == 0 && counts[SWEET_THREADS] == 0 &&
              counts[SWEET_MOST_CALLS] == 1 && counts[SWEET_MOST_THREADS] >= 1 && counts[SWEET_MOST_THREADS] <= 2,
          "counts after calls");
    engine.threads_free(threads);
    check(engine.context_bytes(context) > 0, "bytes of a context");
    engine.context_free(context);
}

// The parts of pre-norm models.
inline void check_invalid_pre_norm_models(const Engine& engine, Checks& check) {
    const SmallModel small(STATIC, Variant::PRE_NORM_PRIVATE);
    int number = 0;
    const auto expect_rejected = [&](const Change& change) {
        expect_rejected_change(engine, check, small, change, "invalid pre-norm model " + std::to_string(number++));
    };
    for (const int32_t size : {-1, 1, 48, SmallModel::kInner - 1, SmallModel::kInner + 1, 1 << 20, 2147483647}) {
        for (int32_t sweet_linear::*const side : {&sweet_linear::in, &sweet_linear::out})
            for (const size_t index : {0, 3})
                expect_rejected([=](auto&, auto& layers, auto&) { layers[index].gate.*side = size; });
        for (const size_t index : {1, 3}) {
            expect_rejected([=](auto&, auto& layers, auto&) { layers[index].attention_norm.size = size; });
            expect_rejected([=](auto&, auto& layers, auto&) { layers[index].rotary.inverse_frequencies.size = size; });
        }
        expect_rejected([=](auto&, auto&, auto& exits) { exits[1].norm.size = size; });
        expect_rejected([=](auto&, auto&, auto& exits) { exits[0].head.norm.size = size; });
    }
    for (const float value : {NAN, INFINITY, -INFINITY}) {
        const std::vector<float> frequencies(SmallModel::kHidden / SmallModel::kHeads / 2, value);
        expect_rejected(
            [&](auto&, auto& layers, auto&) { layers[3].rotary.inverse_frequencies.values = frequencies.data(); });
        expect_rejected([=](auto&, auto& layers, auto&) { layers[1].rotary.scaling = value; });
    }
    expect_rejected([](auto&, auto& layers, auto&) { layers[1].rotary.scaling = 0.0f; });
    expect_rejected([](auto&, auto& layers, auto&) { layers[1].rotary.inverse_frequencies.values = nullptr; });
    expect_rejected([](auto&, auto& layers, auto&) { layers[0].output_norm = {}; });
    expect_rejected([](auto&, auto& layers, auto&) { layers[2].gate.weight = nullptr; });
    expect_rejected([](auto&, auto& layers, auto&) { --layers[2].gate.weight_size; });
    expect_rejected([](auto&, auto& layers, auto&) { layers[2].gate.weight_scale.size = 3; });
    expect_rejected([](auto& model, auto&, auto&) { model.norm_first = 0; });  // the first layer has no attention norm
    expect_rejected([](auto& model, auto&, auto&) { model.num_attention_heads = 8; });  // heads of 9 have no halves
    expect_rejected([](auto&, auto&, auto& exits) { exits[0].head.pooling = SWEET_LATE + 1; });
    for (const int32_t number_of : {-1, 2, 2147483647, -2147483647 - 1}) {
        expect_rejected([=](auto& model, auto&, auto&) { model.norm_first = number_of; });
        expect_rejected([=](auto&, auto&, auto& exits) { exits[1].norm.is_rms = number_of; });
        if (number_of != 2) {
            expect_rejected([=](auto&, auto&, auto& exits) { exits[1].head.pooling = number_of; });
            expect_rejected([=](auto&, auto& layers, auto&) { layers[1].window = number_of; });
            expect_rejected([=](auto& model, auto&, auto&) { model.max_length = number_of; });
        }
    }
    expect_rejected([](auto& model, auto&, auto&) { model.max_length = 0; });
}

// Rows that are longer than the table of rotary positions.
inline void check_too_long_rows(const Engine& engine, Checks& check) {
    const SmallModel small(FLOAT, Variant::PRE_NORM);
    sweet_context* const context = small.make(engine, 2);
    if (!context) return check(false, engine.error());
    constexpr int64_t kTokens = SmallModel::kMaxLength + 1, kSize = kTokens * SmallModel::kHidden + SWEET_READ_PADDING;
    const int64_t lengths[] = {kTokens};
    const std::vector<int64_t> zeros(kTokens, 0);
    std::vector<float> states(kSize), next(kSize), logits(SmallModel::kLabels), confidences(1);
    std::vector<int64_t> exits(1);
    const float *starts[] = {states.data()}, *next_starts[1];
    check(engine.embed(context, 1, kTokens, lengths, zeros.data(), zeros.data(), zeros.data(), states.data(), kSize,
                       next_starts) < 0,
          "embed: a long row");
    check(engine.probe(context, 0, 1, starts, lengths, nullptr, logits.data(), SmallModel::kLabels) < 0, "probe: a long row");
    check(engine.advance(context, 0, 1, starts, lengths, nullptr, next.data(), kSize, next_starts) < 0,
          "advance: a long row");
    const float temperatures[] = {1.0f, 1.0f}, thresholds[] = {0.5f};
    const sweet_policy policy{temperatures, thresholds, 2, SmallModel::kLabels, 1, 0, nullptr, -1, 0};
    check(engine.answer(context, &policy, 1, kTokens, lengths, zeros.data(), zeros.data(), zeros.data(), logits.data(),
                        exits.data(), confidences.data(), nullptr, nullptr) < 0,
          "answer: a long row");
    // Rows with gaps.
    const int64_t three[] = {3};
    for (const int64_t last : {int64_t{SmallModel::kMaxLength} - 1, int64_t{SmallModel::kMaxLength}, int64_t{1} << 40}) {
        const int64_t positions[] = {0, 3, last}, *rows[] = {positions};
        const bool is_valid = last < SmallModel::kMaxLength;
        check((engine.embed(context, 1, 3, three, zeros.data(), zeros.data(), positions, states.data(), kSize, next_starts) ==
               0) == is_valid,
              "embed: a position");
        check((engine.probe(context, 0, 1, starts, three, rows, logits.data(), SmallModel::kLabels) == 0) == is_valid,
              "probe: a position");
        check((engine.advance(context, 0, 1, starts, three, rows, next.data(), kSize, next_starts) == 0) == is_valid,
              "advance: a position");
    }
    const int64_t negative[] = {-1, 0, 3}, *negative_rows[] = {negative};
    check(engine.probe(context, 0, 1, starts, three, negative_rows, logits.data(), SmallModel::kLabels) < 0,
          "probe: a negative position");
    engine.context_free(context);
}

// Positions of rows with gaps, which disentangled attention reads.
inline void check_positions(const Engine& engine, Checks& check) {
    const SmallModel small(FLOAT, Variant::DISENTANGLED);
    sweet_context* const context = small.make(engine, 2);
    if (!context) return check(false, engine.error());
    constexpr int64_t kTokens = 5, kSize = kTokens * SmallModel::kHidden + SWEET_READ_PADDING;
    const std::vector<int64_t> lengths{2, 3}, zeros(kTokens, 0);
    std::vector<float> states(kSize), next(kSize), logits(2 * SmallModel::kLabels);
    std::vector<const float*> starts(2), next_starts(2);
    const auto succeeds = [&](const std::vector<int64_t>& positions) {
        const int64_t* const rows[] = {nullptr, positions.data() + 2};
        const bool embeds = engine.embed(context, 2, kTokens, lengths.data(), zeros.data(), zeros.data(), positions.data(),
                                         states.data(), kSize, starts.data()) == 0;
        const bool probes =
            engine.probe(context, 0, 2, starts.data(), lengths.data(), rows, logits.data(), 2 * SmallModel::kLabels) == 0;
        const bool advances =
            engine.advance(context, 0, 2, starts.data(), lengths.data(), rows, next.data(), kSize, next_starts.data()) == 0;
        check(probes == advances && embeds == probes, "positions are accepted by some calls only");
        return probes;
    };
    check(succeeds({0, 1, 0, 1, 2}), engine.error());
    check(succeeds({0, 1, 7, 9, int64_t{1} << 40}), engine.error());
    check(succeeds({0, 1, -(int64_t{1} << 40), 0, int64_t{1} << 40}), engine.error());
    for (const int64_t position : {int64_t{7}, int64_t{6}, (int64_t{1} << 40) + 1, INT64_MAX, INT64_MIN})
        check(!succeeds({0, 1, 7, position, position}), "position " + std::to_string(position));
    engine.context_free(context);
}

inline void check_invalid_calls(const Engine& engine, Checks& check) {
    const SmallModel small(FLOAT);
    sweet_context* const context = small.make(engine, 2);
    if (!context) return check(false, engine.error());
    constexpr int64_t kTokens = 5, kSize = kTokens * SmallModel::kHidden + SWEET_READ_PADDING;
    const std::vector<int64_t> good_lengths{2, 3}, zeros(kTokens, 0), positions{0, 1, 0, 1, 2};
    std::vector<float> states(kSize), next(kSize), logits(2 * SmallModel::kLabels), confidences(2);
    std::vector<const float*> starts(2), next_starts(2);
    std::vector<int64_t> exits(2);
    const auto embed = [&](int32_t rows, int64_t tokens, const int64_t* lengths, const int64_t* ids, const int64_t* types,
                           const int64_t* position_ids, int64_t size) {
        return engine.embed(context, rows, tokens, lengths, ids, types, position_ids, states.data(), size, starts.data());
    };
    const int64_t *lengths = good_lengths.data(), *zero_ids = zeros.data(), *position_ids = positions.data();
    check(embed(2, kTokens, lengths, zero_ids, zero_ids, position_ids, kSize) == 0, engine.error());
    check(embed(0, 0, nullptr, nullptr, nullptr, nullptr, 0) == 0, engine.error());
    for (const int64_t length : {int64_t{0}, int64_t{-1}, int64_t{1} << 40, INT64_MAX, INT64_MIN, INT64_MAX - 1}) {
        const std::vector<int64_t> invalid{2, length};
        check(embed(2, kTokens, invalid.data(), zero_ids, zero_ids, position_ids, kSize) < 0, "embed: a length");
        check(embed(2, 2 + static_cast<int64_t>(static_cast<uint64_t>(length) % (1u << 30)), invalid.data(), zero_ids,
                    zero_ids, position_ids, kSize) < 0,
              "embed: a length and tokens");
        check(engine.probe(context, 0, 2, starts.data(), invalid.data(), nullptr, logits.data(), 6) < 0, "probe: a length");
        check(
            engine.advance(context, 0, 2, starts.data(), invalid.data(), nullptr, next.data(), kSize, next_starts.data()) < 0,
            "advance: a length");
    }
    check(embed(-1, kTokens, lengths, zero_ids, zero_ids, position_ids, kSize) < 0, "embed: rows");
    check(embed(2, kTokens - 1, lengths, zero_ids, zero_ids, position_ids, kSize) < 0, "embed: tokens");
    check(embed(2, kTokens, lengths, zero_ids, zero_ids, position_ids, kSize - 1) < 0, "embed: states_size");
    check(embed(2, kTokens, lengths, nullptr, zero_ids, position_ids, kSize) < 0, "embed: no ids");
    check(embed(2, kTokens, lengths, zero_ids, nullptr, position_ids, kSize) < 0, "embed: no types");
    check(embed(2, kTokens, lengths, zero_ids, zero_ids, nullptr, kSize) < 0, "embed: no positions");
    check(embed(2, kTokens, nullptr, zero_ids, zero_ids, position_ids, kSize) < 0, "embed: no lengths");
    for (const int64_t id : {int64_t{-1}, int64_t{40}, INT64_MAX, INT64_MIN}) {
        std::vector<int64_t> invalid(kTokens, 0);
        invalid[3] = id;
        check(embed(2, kTokens, lengths, invalid.data(), zero_ids, position_ids, kSize) < 0, "embed: an id");
        check(embed(2, kTokens, lengths, zero_ids, invalid.data(), position_ids, kSize) < 0, "embed: a type");
        check(embed(2, kTokens, lengths, zero_ids, zero_ids, invalid.data(), kSize) < 0, "embed: a position");
    }
    for (const int32_t exit : {-1, 2, 2147483647, -2147483647 - 1})
        check(engine.probe(context, exit, 2, starts.data(), lengths, nullptr, logits.data(), 6) < 0, "probe: an exit");
    for (const int32_t exit : {-1, 1, 2, 2147483647})
        check(engine.advance(context, exit, 2, starts.data(), lengths, nullptr, next.data(), kSize, next_starts.data()) < 0,
              "advance: an exit");
    check(engine.probe(context, 0, 2, starts.data(), lengths, nullptr, logits.data(), 5) < 0, "probe: logits_size");
    check(engine.probe(context, 0, 2, nullptr, lengths, nullptr, logits.data(), 6) < 0, "probe: no starts");
    check(engine.advance(context, 0, 2, starts.data(), lengths, nullptr, next.data(), kSize - 1, next_starts.data()) < 0,
          "advance: states_size");
    starts[1] = nullptr;
    check(engine.probe(context, 0, 2, starts.data(), lengths, nullptr, logits.data(), 6) < 0, "probe: no start");

    const std::vector<float> temperatures{1.0f, 1.0f}, thresholds{0.5f};
    const sweet_policy good{temperatures.data(), thresholds.data(), 2, SmallModel::kLabels, 1, 0, nullptr, -1, 0};
    const auto answer = [&](const sweet_policy* policy) {
        return engine.answer(context, policy, 2, kTokens, lengths, zero_ids, zero_ids, position_ids, logits.data(),
                             exits.data(), confidences.data(), nullptr, nullptr);
    };
    check(answer(&good) == 0, engine.error());
    check(answer(nullptr) < 0, "no policy");
    for (const int32_t number : {-1, 0, 3, 4, 2147483647}) {
        sweet_policy policy = good;
        policy.num_exits = number;
        check(answer(&policy) < 0, "policy: exits");
        policy = good;
        policy.labels = number == 3 ? -3 : number;
        check(answer(&policy) < 0, "policy: labels");
        policy = good;
        policy.max_exit_index = number == 0 ? -2 : number;
        check(answer(&policy) < 0, "policy: max_exit_index");
        policy = good;
        policy.learned = number == 0 ? 2 : number;
        check(answer(&policy) < 0, "policy: learned");
        policy = good;
        policy.target_label = number == 0 ? -2 : number == -1 ? SmallModel::kLabels : number;
        check(answer(&policy) < 0, "policy: target_label");
    }
    for (const float temperature : {0.0f, -1.0f, NAN, INFINITY}) {
        const std::vector<float> invalid{1.0f, temperature};
        sweet_policy policy = good;
        policy.temperatures = invalid.data();
        check(answer(&policy) < 0, "policy: a temperature");
    }
    engine.context_free(context);
}

inline void check_invalid_operations(const Engine& engine, Checks& check) {
    Random random;
    const Linear linear(random, 8, 4, STATIC);
    const std::vector<float> x(8, 1.0f);
    std::vector<float> y(8);
    check(engine.linear(nullptr, 1, x.data(), y.data(), 1) < 0, "no layer");
    for (const int32_t number : {-1, 0, 1025, 2147483647}) {
        if (number != 0) check(engine.linear(&linear.layer, number == 1025 ? -5 : number, nullptr, nullptr, 1) < 0, "rows");
        check(engine.linear(&linear.layer, 1, x.data(), y.data(), number) < 0, "threads");
    }
    sweet_linear invalid = linear.layer;
    invalid.weight_size = 31;
    check(engine.linear(&invalid, 1, x.data(), y.data(), 1) < 0, "a short weight");
    uint8_t a[4] = {};
    int8_t w[4] = {};
    int32_t c[4];
    for (const auto& [m, n, k] : {std::array{-1, 1, 1},
                                  {1, 0, 1},
                                  {1, 1, 0},
                                  {1, -1, 1},
                                  {2147483647, 1, 1},
                                  {1, 2147483647, 1},
                                  {1, 1, 2147483647},
                                  {1, 1, 65537}})
        check(engine.gemm(m, n, k, a, w, c) < 0, "a shape");
    check(engine.gemm(1, 1, 1, nullptr, w, c) < 0, "no operand");
    const int64_t lengths[] = {1};
    for (const auto& [heads, size] : {std::array{0, 1}, {1, 0}, {-1, 1}, {2147483647, 2}, {65536, 65536}})
        check(engine.attention(1, lengths, heads, size, 1.0f, 0, 0, x.data(), y.data()) < 0, "heads");
    for (const int32_t window : {-1, 2147483647})
        check(engine.attention(1, lengths, 1, 1, 1.0f, 0, window, x.data(), y.data()) < 0, "a window");
    check(engine.attention(1, nullptr, 1, 1, 1.0f, 0, 0, x.data(), y.data()) < 0, "no lengths");
    for (const int32_t activation : {-1, 5}) check(engine.activation(activation, 1, x.data(), y.data()) < 0, "an activation");
    check(engine.activation(0, -1, x.data(), y.data()) < 0, "a count");
    check(engine.activation(0, 2147483647, x.data(), y.data()) < 0, "a large count");
}

inline Checks check_validation(const Engine& engine) {
    Checks check(engine.isa());
    check_invalid_models(engine, check);
    check_invalid_contexts(engine, check);
    check_invalid_pre_norm_models(engine, check);
    check_too_long_rows(engine, check);
    check_positions(engine, check);
    check_invalid_calls(engine, check);
    check_invalid_operations(engine, check);
    return check;
}

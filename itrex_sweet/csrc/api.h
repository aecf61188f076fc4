// The flat C interface of the native engine. One shared object per instruction set implements all of it.
//
// Nothing here keeps a pointer it is given: weights are copied (and packed) when a model is made. Functions that can
// fail return 0 if all went well and else a negative code; `sweet_error` says it in words, per thread.
#pragma once

#include <cstdint>

#define SWEET_API extern "C" __attribute__((visibility("default")))

enum sweet_activation { SWEET_GELU = 0, SWEET_GELU_TANH = 1, SWEET_RELU = 2, SWEET_TANH = 3, SWEET_SILU = 4 };

// y = x Wᵀ + b. Weights are int8 where there are scales, else float32. `in` = 0: there is no such layer. A float layer may
// be computed in bfloat16: weights and input are rounded to it, products are added in float32.
struct sweet_linear {
    const void* weight;         // (out, in), row by row
    const float* weight_scale;  // (out,), or null: float weights
    const float* bias;          // (out,), or null
    const float* smoothing;     // (in,), what the input is multiplied by before it is quantized, or null
    float input_scale;          // of every row, fixed at calibration; 0: each row gets its own
    int32_t input_zero_point;
    int32_t in;
    int32_t out;
    int32_t in_bfloat16;
    int32_t unused;
};

struct sweet_norm {
    const float* weight;
    const float* bias;
    float eps;
    int32_t size;
};

struct sweet_layer {
    sweet_linear query, key, value, attention_output, up, down;
    sweet_norm attention_norm, output_norm;
};

struct sweet_head {
    sweet_linear dense, classifier;
    int32_t activation;
    int32_t unused;
};

struct sweet_embeddings {
    const float* words;        // (vocabulary, width)
    const float* positions;    // (num_positions, width), or null
    const float* token_types;  // (num_token_types, width), or null
    int32_t vocabulary, num_positions, num_token_types, width;
    int32_t position_offset;  // added to position ids
    int32_t unused;
    sweet_norm norm;
    sweet_linear before_norm, after_norm;  // projections to the hidden size
};

struct sweet_description {
    sweet_embeddings embeddings;
    const sweet_layer* layers;
    const sweet_head* heads;  // one per exit
    const int32_t* exits;     // counts of layers
    int32_t num_layers, num_exits, num_attention_heads, activation;
    float score_scale;  // the attention scores' divisor
    int32_t hidden;
};

// When a row may leave. An exit whose threshold is 1 or more lets nobody go, and is not probed.
struct sweet_policy {
    const float* temperatures;  // one per exit
    const float* thresholds;    // one for each exit but the last
    int32_t labels;             // a head's first outputs are their logits
    int32_t deepest;            // the exit, from 0, that answers whoever reaches it
    int32_t learned;            // confidence: 0: `sweet_confidence`; 1: `sweet_logistic` of a head's last output, at the model's
    int32_t unused;             // last exit as with 0
};

struct sweet_model;

// Packs a model; null if it cannot be (see `sweet_error`). `threads` ≥ 1 is what every call on it uses.
SWEET_API sweet_model* sweet_model_new(const sweet_description* description, int32_t threads);
SWEET_API void sweet_model_free(sweet_model* model);
// Bytes held at rest: packed weights and tables; and bytes of the workspace, which only ever grows.
SWEET_API int64_t sweet_model_bytes(const sweet_model* model);
SWEET_API int64_t sweet_workspace_bytes(const sweet_model* model);

// Tokens to states before the last layer of the first exit. Token ids, types and positions are (tokens,) int64, rows
// packed end to end, lengths (rows,); states (tokens, hidden) are written, and to `starts` (rows,) where each row's begin.
SWEET_API int32_t sweet_embed(sweet_model* model, int32_t rows, const int64_t* lengths, const int64_t* ids,
                              const int64_t* token_types, const int64_t* positions, float* states, const float** starts);
// `starts[r]` points at the states of row r, `lengths[r]` tokens. Writes logits (rows, labels) of one exit.
SWEET_API int32_t sweet_probe(sweet_model* model, int32_t exit, int32_t rows, const float* const* starts,
                              const int64_t* lengths, float* logits);
// From before the last layer of one exit to before the last layer of the next; writes states (tokens, hidden) packed
// end to end, to memory that holds none of the rows, and to `next_starts` where each row's begin.
SWEET_API int32_t sweet_advance(sweet_model* model, int32_t exit, int32_t rows, const float* const* starts,
                                const int64_t* lengths, float* states, const float** next_starts);

// The largest softmax probability of each row of logits (rows, labels) divided by a temperature, what a row is let go by;
// not a number where a logit is not finite.
SWEET_API int32_t sweet_confidence(int32_t rows, int32_t labels, const float* logits, float temperature, float* confidences);
// The logistic function of `count` values: what exits say of being right, as a share.
SWEET_API int32_t sweet_logistic(int32_t count, const float* values, float* shares);
// A batch through the exits, rows leaving when their confidence exceeds the exit's threshold: one call for what `embed`,
// `probe` and `advance` do in many. Writes for every row the logits (rows, labels) that answered, at which exit, from 0,
// and the confidence.
SWEET_API int32_t sweet_answer(sweet_model* model, const sweet_policy* policy, int32_t rows, const int64_t* lengths,
                               const int64_t* ids, const int64_t* token_types, const int64_t* positions, float* logits,
                               int64_t* exits, float* confidences);

// Name of the instruction set this object was built for: "portable", "avx2", "avx512_vnni", "avx512_bf16" or "amx".
SWEET_API const char* sweet_isa();
// What went wrong in the last call of this thread that failed.
SWEET_API const char* sweet_error();

// Single operations, for tests and micro-benchmarks. Row-major, packed afresh in every call.
// c (m, n) int32 = a (m, k) uint8 times w (n, k) int8 transposed.
SWEET_API int32_t sweet_op_gemm_int32(int32_t m, int32_t n, int32_t k, const uint8_t* a, const int8_t* w, int32_t* c);
// y (m, out) float32 = one linear layer of x (m, in) float32; `threads` as in a model.
SWEET_API int32_t sweet_op_linear(const sweet_linear* layer, int32_t m, const float* x, float* y, int32_t threads);
// Milliseconds that one call of the packed layer takes, the median of `repeats`; or a negative code.
SWEET_API double sweet_op_time(const sweet_linear* layer, int32_t m, int32_t threads, int32_t repeats);
// Multiply-adds per second that `vpdpbusd` (or what stands for it) reaches on `threads` threads, out of registers.
SWEET_API double sweet_op_peak(int32_t threads);
// context (tokens, heads · size) of projected (tokens, 3 · heads · size), rows of `lengths`; products of floats, or of
// 16-bit integers.
SWEET_API int32_t sweet_op_attention(int32_t rows, const int64_t* lengths, int32_t heads, int32_t size, float scale,
                                     int32_t in_words, const float* projected, float* context);
// y = act(x), elementwise.
SWEET_API int32_t sweet_op_activation(int32_t activation, int32_t count, const float* x, float* y);

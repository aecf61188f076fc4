// The flat C interface of the native engine. One shared object per instruction set implements all of it.
//
// Nothing here keeps a pointer it is given: weights are copied (and packed) when a model is made. Functions that can
// fail return a negative code then; `sweet_error` says it in words, per thread. No exception leaves this interface.
//
// Every size that a caller gives is checked before it is used: dimensions against one another and against the lengths of
// the arrays that come with them. What cannot be checked is that an array is as long as its caller says.
#pragma once

#include <cstdint>

#define SWEET_API extern "C" __attribute__((visibility("default")))

enum sweet_activation { SWEET_GELU = 0, SWEET_GELU_TANH = 1, SWEET_RELU = 2, SWEET_TANH = 3, SWEET_SILU = 4 };

// Numbers of float32, `size` of them. Null with size 0: there is no such array.
struct sweet_floats {
    const float* values;
    int64_t size;
};

// y = x Wᵀ + b. Weights are int8 where there are scales, else float32. `in` = `out` = 0: there is no such layer. A float
// layer may be computed in bfloat16: weights and input are rounded to it, products are added in float32.
struct sweet_linear {
    const void* weight;         // (out, in), row by row
    int64_t weight_size;        // in elements: out · in
    sweet_floats weight_scale;  // (out,), or none: float weights
    sweet_floats bias;          // (out,), or none
    sweet_floats smoothing;     // (in,), what the input is multiplied by before it is quantized, or none
    float input_scale;          // of every row, fixed at calibration
    int32_t input_zero_point;   // from 0 to 255
    int32_t in;
    int32_t out;
    int32_t in_bfloat16;
    int32_t input_is_fixed;  // 0: each row gets a scale and a zero point of its own, and those here are not read
};

struct sweet_norm {
    sweet_floats weight, bias;  // (size,)
    float eps;
    int32_t size;
};

struct sweet_layer {
    sweet_linear query, key, value, attention_output, up, down;
    sweet_norm attention_norm, output_norm;
};

struct sweet_head {
    sweet_linear dense, classifier;  // in float
    int32_t activation;
    int32_t unused;
};

struct sweet_embeddings {
    sweet_floats words;        // (vocabulary, width)
    sweet_floats positions;    // (num_positions, width), or none
    sweet_floats token_types;  // (num_token_types, width), or none
    int32_t vocabulary, num_positions, num_token_types, width;
    int32_t position_offset;  // added to position ids
    int32_t unused;
    sweet_norm norm;
    sweet_linear before_norm, after_norm;  // projections to the hidden size, in float; one at most
};

// An exit's probe runs one layer for the first token alone, then the head.
struct sweet_exit {
    sweet_head head;
    int32_t full_layers;  // run in full before the probe; more at every exit, at the last one all of them
    int32_t layer;        // that the probe runs: the one after these, which is shared, or one that only probes run
};

struct sweet_description {
    sweet_embeddings embeddings;
    const sweet_layer* layers;  // those that are run in full, in order, then those that only probes run
    const sweet_exit* exits;
    int32_t num_layers, num_full_layers, num_exits, num_attention_heads, activation;
    float score_scale;  // the attention scores' divisor
    int32_t hidden;
    int32_t unused;
};

// When a row may leave. An exit whose threshold is 1 or more lets nobody go, and is not probed.
struct sweet_policy {
    const float* temperatures;  // one per exit
    const float* thresholds;    // one for each exit but the last
    int32_t num_exits;          // of the model
    int32_t labels;             // a head's first outputs are their logits
    int32_t deepest;            // the exit, from 0, that answers whoever reaches it
    int32_t learned;            // confidence: 0: `sweet_confidence`; 1: `sweet_logistic` of a head's last output, and at
};                              // the model's last exit as with 0

struct sweet_model;

// Grows when a structure, a function or its meaning changes.
constexpr int32_t kSweetInterface = 3;
// `kSweetInterface` of the built object, and the bytes of a structure named as above, -1 if it has none: a caller made for
// another interface must not go on.
SWEET_API int32_t sweet_interface();
SWEET_API int64_t sweet_size_of(const char* structure);

// Packs a model; null if it cannot be (see `sweet_error`). A call uses up to `threads` threads, from 1 to 1024: as many as
// get `least_work` multiply-adds each, from 0; -1 takes what pays where cores are free.
SWEET_API sweet_model* sweet_model_new(const sweet_description* description, int32_t threads, int64_t least_work);
// Nothing may be calling the model.
SWEET_API void sweet_model_free(sweet_model* model);
// Bytes held at rest: packed weights and tables; and bytes of the workspace, which only ever grows.
SWEET_API int64_t sweet_model_bytes(const sweet_model* model);
SWEET_API int64_t sweet_workspace_bytes(const sweet_model* model);

// The calls of a model: `sweet_embed`, `sweet_probe`, `sweet_advance` and `sweet_answer`. Calls from several threads wait
// for one another. They return 0, or `SWEET_SHORT_OF_THREADS` where all went well on fewer threads than wanted, because
// the system did not start more. A child after a fork, whatever the parent was doing then, may call a model too.
enum sweet_result { SWEET_DONE = 0, SWEET_SHORT_OF_THREADS = 1 };

// Tokens to states before the last layer of the first exit. Token ids, types and positions are (tokens,) int64, rows
// packed end to end, lengths (rows,); states (tokens, hidden) are written, and to `starts` (rows,) where each row's begin.
// `states` has room for `states_size` numbers: `SWEET_READ_BEYOND` more than are written, which kernels may read.
enum sweet_margin { SWEET_READ_BEYOND = 16 };
SWEET_API int32_t sweet_embed(sweet_model* model, int32_t rows, int64_t tokens, const int64_t* lengths, const int64_t* ids,
                              const int64_t* token_types, const int64_t* positions, float* states, int64_t states_size,
                              const float** starts);
// `starts[r]` points at the states of row r, `lengths[r]` tokens. Writes logits (rows, outputs) of one exit,
// `logits_size` numbers.
SWEET_API int32_t sweet_probe(sweet_model* model, int32_t exit, int32_t rows, const float* const* starts,
                              const int64_t* lengths, float* logits, int64_t logits_size);
// From before the last layer of one exit to before the last layer of the next; writes states (tokens, hidden) packed
// end to end, to memory that holds none of the rows, and to `next_starts` where each row's begin.
SWEET_API int32_t sweet_advance(sweet_model* model, int32_t exit, int32_t rows, const float* const* starts,
                                const int64_t* lengths, float* states, int64_t states_size, const float** next_starts);

// The largest softmax probability of each row of logits (rows, labels) divided by a temperature, what a row is let go by;
// not a number where a logit is not finite.
SWEET_API int32_t sweet_confidence(int32_t rows, int32_t labels, const float* logits, float temperature, float* confidences);
// The logistic function of `count` values: what exits say of being right, as a share.
SWEET_API int32_t sweet_logistic(int32_t count, const float* values, float* shares);
// A batch through the exits, rows leaving when their confidence exceeds the exit's threshold: one call for what `embed`,
// `probe` and `advance` do in many. Writes for every row the logits (rows, labels) that answered, at which exit, from 0,
// and the confidence.
SWEET_API int32_t sweet_answer(sweet_model* model, const sweet_policy* policy, int32_t rows, int64_t tokens,
                               const int64_t* lengths, const int64_t* ids, const int64_t* token_types,
                               const int64_t* positions, float* logits, int64_t* exits, float* confidences);

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

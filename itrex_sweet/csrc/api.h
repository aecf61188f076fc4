// C interface of the native engine. Each instruction set has its own shared object, which implements all of it.
//
// The engine keeps none of the pointers that it is given: weights are copied and packed when a model is created. Functions
// that can fail return a negative code; `sweet_error` returns the message of the calling thread. Exceptions do not leave
// this interface.
//
// All sizes are checked before use: dimensions against one another and against the lengths of the arrays. The engine
// cannot check that an array is as long as its caller says.
#pragma once

#include <cstdint>

#define SWEET_API extern "C" __attribute__((visibility("default")))

enum sweet_activation { SWEET_GELU = 0, SWEET_GELU_TANH = 1, SWEET_RELU = 2, SWEET_TANH = 3, SWEET_SILU = 4 };

// An array of `size` float32. Optional arrays may be null with size 0.
struct sweet_floats {
    const float* values;
    int64_t size;
};

// y = x Wᵀ + b. Weights are int8 if `weight_scale` is given, else float32. `in` = `out` = 0 means that the layer is absent.
// A float layer may be computed in bfloat16: weights and input are rounded to it, products are accumulated in float32.
struct sweet_linear {
    const void* weight;         // (out, in), row-major
    int64_t weight_size;        // in elements: out · in
    sweet_floats weight_scale;  // (out,); absent: float weights
    sweet_floats bias;          // (out,), optional
    sweet_floats smoothing;     // (in,), optional: multiplied with the input before quantization (SmoothQuant)
    float input_scale;          // static quantization
    int32_t input_zero_point;   // static quantization, from 0 to 255
    int32_t in;
    int32_t out;
    int32_t is_bfloat16;
    int32_t is_static;  // 0: dynamic quantization, a scale and a zero point per row; the two above are not read
};

// Layer norm, or RMSNorm (arXiv 1910.07467), which does not subtract the mean. `size` = 0 means that it is absent.
struct sweet_norm {
    sweet_floats weight, bias;  // (size,); the bias is optional
    float eps;
    int32_t size;
    int32_t is_rms;
    int32_t unused;
};

// Rotary position embeddings (arXiv 2104.09864) of queries and keys, whose halves are the coordinates of the rotated pairs:
// pair i of the token at position p is rotated by the angle p · inverse_frequencies[i]. Without frequencies: absent.
struct sweet_rotary {
    sweet_floats inverse_frequencies;  // (head size / 2,)
    float scaling;                     // multiplies cosines and sines
    int32_t unused;
};

// Feed-forward part: down(activation(up(x))), or with a gate down(activation(up(x)) · gate(x)).
struct sweet_layer {
    sweet_linear query, key, value, attention_output, up, down;
    sweet_norm attention_norm, output_norm;  // with `norm_first`, the first may be absent
    sweet_linear gate;                       // optional
    sweet_rotary rotary;
    // Disentangled attention: position keys and queries by bucket, (heads, num_relative_buckets, hidden / heads), optional.
    sweet_floats relative_key, relative_query;
    // A convolution of the layer's input over an odd number of positions, whose activated outputs are added to those of the
    // layer and normalized; float. Inputs are the states of neighbouring tokens, concatenated in their order. Optional.
    sweet_linear convolution;
    sweet_norm convolution_norm;
    int32_t convolution_activation;
    int32_t window;  // a token attends only to tokens at most `window` positions away; 0: to all
};

// classifier(norm(activation(dense(x)))). With SWEET_FIRST, x is the state of the first token; with SWEET_MEAN, the mean of
// all tokens' states; with SWEET_LATE, the state of every token, and `classifier` reads the mean of what precedes it.
enum sweet_pooling { SWEET_FIRST = 0, SWEET_MEAN = 1, SWEET_LATE = 2 };
struct sweet_head {
    sweet_linear dense, classifier;  // float32
    sweet_norm norm;                 // optional
    int32_t activation;
    int32_t pooling;
};

struct sweet_embeddings {
    const void* words;         // (vocabulary, width), row-major: int8 if `word_scale` is given, else float32
    int64_t words_size;        // in elements: vocabulary · width
    sweet_floats word_scale;   // (vocabulary,), optional
    sweet_floats positions;    // (num_positions, width), optional
    sweet_floats token_types;  // (num_token_types, width), optional
    int32_t vocabulary, num_positions, num_token_types, width;
    int32_t position_offset;  // added to position ids
    int32_t unused;
    sweet_norm norm;                       // optional
    sweet_linear before_norm, after_norm;  // projections to the hidden size, float32; at most one is present
};

// The probe of an exit runs one layer, for the first token only unless the head pools all tokens, then the head.
struct sweet_exit {
    sweet_head head;
    sweet_norm norm;      // of the states between the layer and the head, optional
    int32_t full_layers;  // layers run in full before the probe; increases from exit to exit, all of them at the last
    int32_t layer;        // layer that the probe runs: layers[full_layers], or one that is used by probes only
};

struct sweet_description {
    sweet_embeddings embeddings;
    const sweet_layer* layers;  // layers that are run in full, in order, then those that are used by probes only
    const sweet_exit* exits;
    int32_t num_layers, num_full_layers, num_exits, num_attention_heads, activation;
    float score_scale;  // divisor of the attention scores
    int32_t hidden;
    int32_t num_relative_buckets;  // 0 without disentangled attention
    // Bucket of every distance between two positions, query minus key, from -(size - 1) / 2 to (size - 1) / 2; greater ones
    // count as the greatest.
    const int64_t* relative_index;
    int64_t relative_index_size;
    int32_t norm_first;  // norms before the attention and feed-forward parts instead of after their residual connections
    int32_t max_length;  // tokens per row, required by rotary position embeddings; 0: unlimited
    // Added to the scores, after their division, of every layer: (num_attention_heads, distances) for the distances of a
    // key's position and a query's from -(distances - 1) / 2 to (distances - 1) / 2; greater ones count as the greatest.
    // Optional.
    sweet_floats position_bias;
};

// Early-exit policy: a row exits if its confidence exceeds the threshold. An exit with a threshold of 1 or more is not
// probed.
struct sweet_policy {
    const float* temperatures;   // one per exit
    const float* thresholds;     // one per exit but the last
    int32_t num_exits;           // of the model
    int32_t labels;              // the first outputs of a head are their logits
    int32_t max_exit_index;      // exit, from 0, at which all remaining rows are answered
    int32_t learned;             // confidence: 0: `sweet_confidence` of the logits; 1: `sweet_logistic` of the last output
                                 // of the head, except at the last exit of the model, which uses the logits
    const float* label_offsets;  // (labels,) of a multi-label model, else null; see `sweet_confidence`
    int32_t target_label;        // -1: none; see `sweet_confidence`
    int32_t unused;
};

struct sweet_model;
struct sweet_threads;
struct sweet_context;

// Version of the interface; increases when a structure, a function or its meaning changes.
constexpr int32_t kSweetInterface = 10;
// Return the version that the library was built with, and the size in bytes of a structure by its name, -1 if unknown. A
// caller compares them with its own before it calls anything else.
SWEET_API int32_t sweet_interface();
SWEET_API int64_t sweet_size_of(const char* structure);

// Packs a model; returns null on failure. A model is immutable: it has the weights and tables, which all its contexts share.
SWEET_API sweet_model* sweet_model_new(const sweet_description* description);
// Contexts keep what they use: the memory of a model, or of threads, is freed with the last context.
SWEET_API void sweet_model_free(sweet_model* model);
// Returns the bytes of packed weights and tables.
SWEET_API int64_t sweet_model_bytes(const sweet_model* model);

// Creates threads for the calls of any number of contexts; returns null on failure. At most `threads` of them run at the same
// time, from 1 to 1024, the calling threads included. A call alone uses all of them, several calls share them evenly, and if
// there are more calls than threads, they take turns. Shares change between the jobs of a call, of about a millisecond each.
SWEET_API sweet_threads* sweet_threads_new(int32_t threads);
SWEET_API void sweet_threads_free(sweet_threads* threads);
// Writes `SWEET_NUM_COUNTS` numbers.
enum sweet_count {
    SWEET_CALLS = 0,         // calls in progress, of which some may wait for a thread
    SWEET_THREADS = 1,       // threads that calls hold
    SWEET_MOST_CALLS = 2,    // greatest number of calls that held a thread at the same time
    SWEET_MOST_THREADS = 3,  // greatest number of threads that calls held at the same time
    SWEET_NUM_COUNTS = 4
};
SWEET_API int32_t sweet_threads_count(const sweet_threads* threads, int64_t* counts);
// Wakes sleeping threads, as many as the last call used, for a call that follows within some 100 microseconds. Returns at
// once; without effect while calls run.
SWEET_API int32_t sweet_threads_wake(const sweet_threads* threads);

// Calls use fewer threads while other threads use their processors. With `yields` not 0 they do so sooner: the others do as
// useful work there, such as an event loop with many requests.
SWEET_API int32_t sweet_threads_yield(const sweet_threads* threads, int32_t yields);

// Creates a context, the mutable state of calls of a model; returns null on failure. A call uses as many threads as get at
// least `min_macs_per_thread` multiply-accumulates each; 0 uses all threads for every call, -1 selects a default.
SWEET_API sweet_context* sweet_context_new(const sweet_model* model, const sweet_threads* threads,
                                           int64_t min_macs_per_thread);
// No call of the context may be running.
SWEET_API void sweet_context_free(sweet_context* context);
// Returns the bytes of the workspaces, which grow to the largest call and never shrink. Waits for a running call.
SWEET_API int64_t sweet_context_bytes(const sweet_context* context);

// `sweet_embed`, `sweet_probe`, `sweet_advance` and `sweet_answer` run a model. Calls of several contexts run at the same
// time; concurrent calls of one context are serialized. The results do not depend on the context or the number of threads,
// and the states that one context computes may be given to another one of the same model. They return SWEET_OK, or
// SWEET_FEWER_THREADS if they succeeded on fewer threads than wanted because the system did not start more. A forked child
// may call a context whatever the parent's threads were doing at the fork.
enum sweet_result { SWEET_OK = 0, SWEET_FEWER_THREADS = 1 };

// Computes the states before the last layer of the first exit. Token ids, types and positions are (tokens,) int64, the
// rows packed without padding; lengths are (rows,). Writes states (tokens, hidden) and the address of each row's states to
// `starts` (rows,). `states` holds `states_size` floats: SWEET_READ_PADDING more than are written, since kernels load whole
// vectors.
enum sweet_padding { SWEET_READ_PADDING = 16 };
SWEET_API int32_t sweet_embed(sweet_context* context, int32_t rows, int64_t tokens, const int64_t* lengths,
                              const int64_t* ids, const int64_t* token_types, const int64_t* positions, float* states,
                              int64_t states_size, const float** starts);
// Computes the outputs of one exit: `logits` (rows, outputs), `logits_size` floats. `starts[r]` points to the states of row
// r, `lengths[r]` tokens. `positions[r]` points to the positions of its tokens, which must increase if the model has
// disentangled attention or a convolution; null, as `positions` may be, means that they are consecutive.
SWEET_API int32_t sweet_probe(sweet_context* context, int32_t exit, int32_t rows, const float* const* starts,
                              const int64_t* lengths, const int64_t* const* positions, float* logits, int64_t logits_size);
// Runs the layers from before the last layer of an exit to before the last layer of the next one. Writes packed states
// (tokens, hidden), which must not overlap the input, and the address of each row's states to `next_starts`.
SWEET_API int32_t sweet_advance(sweet_context* context, int32_t exit, int32_t rows, const float* const* starts,
                                const int64_t* lengths, const int64_t* const* positions, float* states, int64_t states_size,
                                const float** next_starts);

// Computes the confidence of each row of logits (rows, labels) divided by a temperature; NaN if a logit is not finite:
// - with `label_offsets` (labels,), of a multi-label model: logistic(min |logit - offset|);
// - else with a `target_label` from 0: max(p, 1 - p) of its softmax probability;
// - else the maximum softmax probability.
SWEET_API int32_t sweet_confidence(int32_t rows, int32_t labels, const float* logits, float temperature,
                                   const float* label_offsets, int32_t target_label, float* confidences);
// Computes the logistic function of `count` values: the learned confidence from its logit.
SWEET_API int32_t sweet_logistic(int32_t count, const float* values, float* probabilities);
// Computes the most probable label of each row of logits (rows, labels) divided by the row's temperature, the first of
// equally probable ones, and its softmax probability; -1 and NaN if a logit is NaN or
// infinite, or all are minus infinity.
SWEET_API int32_t sweet_best_label(int32_t rows, int32_t labels, const float* logits, const float* temperatures,
                                   int64_t* best, float* probabilities);
// Computes the softmax probabilities (rows, labels) of logits divided by the row's temperature. That of the label of
// `sweet_best_label` is equal to its result; all of a row are NaN where it finds none.
SWEET_API int32_t sweet_probabilities(int32_t rows, int32_t labels, const float* logits, const float* temperatures,
                                      float* probabilities);
// Runs a batch through all exits with early exit, in one call instead of one per `embed`, `probe` and `advance`. Token types
// may be null: all are 0; positions too: those of every row are consecutive from 0. Writes for each row the logits (rows,
// labels) of the exit that answered, its index from 0, and the confidence; and if `best` is not null, what `sweet_best_label`
// computes of the logits.
SWEET_API int32_t sweet_answer(sweet_context* context, const sweet_policy* policy, int32_t rows, int64_t tokens,
                               const int64_t* lengths, const int64_t* ids, const int64_t* token_types,
                               const int64_t* positions, float* logits, int64_t* exits, float* confidences, int64_t* best,
                               float* probabilities);

// Returns the instruction set of this library: "portable", "avx2", "avx512", "avx_vnni", "avx512_vnni", "avx512_bf16" or
// "amx".
SWEET_API const char* sweet_isa();
// Returns the message of the calling thread's last failed call.
SWEET_API const char* sweet_error();

// Single operations for tests and micro-benchmarks. Matrices are row-major; every call packs its weights.
// c (m, n) int32 = a (m, k) uint8 · wᵀ, w (n, k) int8.
SWEET_API int32_t sweet_op_gemm_int32(int32_t m, int32_t n, int32_t k, const uint8_t* a, const int8_t* w, int32_t* c);
// y (m, out) = layer(x), x (m, in) float32.
SWEET_API int32_t sweet_op_linear(const sweet_linear* layer, int32_t m, const float* x, float* y, int32_t threads);
// Returns the median time of a call of the packed layer in milliseconds, of `repeats`; or a negative code.
SWEET_API double sweet_op_time(const sweet_linear* layer, int32_t m, int32_t threads, int32_t repeats);
// Returns the peak rate of int8 multiply-accumulates per second on `threads` threads, operands in registers.
SWEET_API double sweet_op_peak(int32_t threads);
// context (tokens, heads · size) = self-attention of qkv (tokens, 3 · heads · size), rows of `lengths`; products in float32,
// or in int16 if `use_int16`; within a window, see `sweet_layer`, if `window` is not 0.
SWEET_API int32_t sweet_op_attention(int32_t rows, const int64_t* lengths, int32_t heads, int32_t size, float scale,
                                     int32_t use_int16, int32_t window, const float* qkv, float* context);
// y = activation(x), elementwise.
SWEET_API int32_t sweet_op_activation(int32_t activation, int32_t count, const float* x, float* y);

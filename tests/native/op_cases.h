// Test cases of the int8 product (m, n, k, values), read by op_table.cpp and by the Python tests.
//
//   RANDOM       the full ranges of uint8 and int8
//   MINIMUM      255 × -128 everywhere: the most negative sums
//   MAXIMUM      255 × 127 everywhere: the most positive sums
//   ALTERNATING  255 × (127, 127, -128, -128, ...): sums of two products overflow int16
//   ZERO         0 × random
#pragma once

enum Values { RANDOM, MINIMUM, MAXIMUM, ALTERNATING, ZERO };

struct Case {
    int m, n, k;
    Values values;
};

// clang-format off
static const Case kCases[] = {
    // smallest sizes
    {0, 1, 1, RANDOM},
    {0, 48, 64, RANDOM},
    {1, 1, 1, RANDOM},
    {1, 1, 4, RANDOM},
    {2, 3, 5, RANDOM},
    // a single row or column
    {1, 384, 384, RANDOM},
    {1, 17, 63, RANDOM},
    {1, 64, 65, RANDOM},
    {33, 1, 384, RANDOM},
    {16, 1, 64, RANDOM},
    {17, 2, 1, RANDOM},
    // k is no multiple of the group, vector or tile size
    {7, 15, 2, RANDOM},
    {7, 15, 3, RANDOM},
    {5, 16, 63, RANDOM},
    {5, 16, 66, RANDOM},
    {9, 33, 127, RANDOM},
    {12, 31, 129, RANDOM},
    {13, 47, 191, RANDOM},
    {16, 48, 253, RANDOM},
    // rows and columns around the tile sizes
    {3, 16, 64, RANDOM},
    {4, 32, 64, RANDOM},
    {5, 48, 64, RANDOM},
    {6, 64, 128, RANDOM},
    {8, 65, 64, RANDOM},
    {11, 79, 64, RANDOM},
    {15, 16, 64, RANDOM},
    {16, 16, 64, RANDOM},
    {17, 17, 64, RANDOM},
    {31, 33, 64, RANDOM},
    {32, 32, 128, RANDOM},
    {33, 31, 192, RANDOM},
    {48, 48, 64, RANDOM},
    {63, 9, 68, RANDOM},
    {65, 63, 100, RANDOM},
    {129, 5, 72, RANDOM},
    // layers of encoders: self-attention, feed-forward, classifiers
    {33, 384, 384, RANDOM},
    {5, 1536, 384, RANDOM},
    {6, 96, 1536, RANDOM},
    {3, 48, 3072, RANDOM},
    {2, 768, 768, RANDOM},
    {7, 3, 768, RANDOM},
    // extreme values
    {5, 19, 3072, MINIMUM},
    {17, 33, 3072, MINIMUM},
    {5, 19, 3072, MAXIMUM},
    {17, 33, 1027, MAXIMUM},
    {19, 35, 770, ALTERNATING},
    {16, 64, 3072, ALTERNATING},
    {9, 17, 130, ZERO},
};
// clang-format on

// Linear layers with float32 inputs and outputs.
//
//   FLOAT     float32 weights
//   DYNAMIC   int8 weights, dynamic input quantization per row
//   STATIC    int8 weights, static input quantization
//   SMOOTH    as DYNAMIC, with smoothing of the inputs
//   BFLOAT16  bfloat16 weights and inputs
enum InputType { FLOAT, DYNAMIC, STATIC, SMOOTH, BFLOAT16 };

struct LinearCase {
    int m, in, out;
    InputType input_type;
};

// clang-format off
static const LinearCase kLinearCases[] = {
    {1, 1, 1, FLOAT},
    {5, 37, 19, FLOAT},
    {33, 96, 130, FLOAT},
    {1, 384, 48, FLOAT},
    {1, 1, 1, DYNAMIC},
    {5, 37, 19, DYNAMIC},
    {17, 65, 33, DYNAMIC},
    {33, 384, 96, DYNAMIC},
    {1, 384, 384, DYNAMIC},
    {70, 64, 48, DYNAMIC},
    {5, 37, 19, STATIC},
    {33, 384, 96, STATIC},
    {17, 65, 33, STATIC},
    {5, 37, 19, SMOOTH},
    {19, 100, 70, SMOOTH},
    {1, 2, 1, BFLOAT16},
    {5, 38, 19, BFLOAT16},
    {33, 96, 130, BFLOAT16},
    {1, 384, 48, BFLOAT16},
    {3, 37, 20, BFLOAT16},  // an odd number of inputs falls back to float32
};
// clang-format on

// What the integer product is tried on, read by op_table.cpp and by the Python tests: m, n, k and the values.
//
//   RANDOM       all of both ranges
//   LARGEST      255 × -128 everywhere: the most negative sums
//   POSITIVE     255 × 127 everywhere: the most positive ones
//   ALTERNATING  255 × (127, 127, -128, -128, ...): sums of two products that do not fit 16 bits
//   ZERO         0 × random
enum Values { RANDOM, LARGEST, POSITIVE, ALTERNATING, ZERO };

struct Case {
    int m, n, k;
    Values values;
};

static const Case kCases[] = {
    // the smallest
    {0, 1, 1, RANDOM},
    {0, 48, 64, RANDOM},
    {1, 1, 1, RANDOM},
    {1, 1, 4, RANDOM},
    {2, 3, 5, RANDOM},
    // one row, one column
    {1, 384, 384, RANDOM},
    {1, 17, 63, RANDOM},
    {1, 64, 65, RANDOM},
    {33, 1, 384, RANDOM},
    {16, 1, 64, RANDOM},
    {17, 2, 1, RANDOM},
    // k that fills no group of 4, no vector and no tile
    {7, 15, 2, RANDOM},
    {7, 15, 3, RANDOM},
    {5, 16, 63, RANDOM},
    {5, 16, 66, RANDOM},
    {9, 33, 127, RANDOM},
    {12, 31, 129, RANDOM},
    {13, 47, 191, RANDOM},
    {16, 48, 253, RANDOM},
    // around the sizes of tiles: rows, columns
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
    // extremes
    {5, 19, 3072, LARGEST},
    {17, 33, 3072, LARGEST},
    {5, 19, 3072, POSITIVE},
    {17, 33, 1027, POSITIVE},
    {19, 35, 770, ALTERNATING},
    {16, 64, 3072, ALTERNATING},
    {9, 17, 130, ZERO},
};

// Linear layers with floating-point inputs and outputs.
//
//   FLOAT     float weights
//   DYNAMIC   int8 weights, a scale for each row of the input
//   FIXED     int8 weights, one scale for all inputs
//   SMOOTHED  as DYNAMIC, inputs multiplied first
//   BFLOAT    float weights, rounded to bfloat16 as the input is
enum Input { FLOAT, DYNAMIC, FIXED, SMOOTHED, BFLOAT };

struct LinearCase {
    int m, in, out;
    Input input;
};

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
    {5, 37, 19, FIXED},
    {33, 384, 96, FIXED},
    {17, 65, 33, FIXED},
    {5, 37, 19, SMOOTHED},
    {19, 100, 70, SMOOTHED},
    {1, 2, 1, BFLOAT},
    {5, 38, 19, BFLOAT},
    {33, 96, 130, BFLOAT},
    {1, 384, 48, BFLOAT},
    {3, 37, 20, BFLOAT},  // an odd number of inputs makes no pairs: in float
};

// The limit of an instruction set whose multiplier is not reached by a single instruction: its own tile, out of the cache.
// Included behind `integer_tile`.
#pragma once

// Multiply-adds of `turns` tiles whose inputs and weights stay in the first cache.
inline int64_t peak_turns(int64_t turns) {
    alignas(64) static const uint8_t inputs[kTileRows * 128] = {};
    alignas(64) static const int8_t weights[32 * 128] = {};
    alignas(64) int32_t sums[kTileRows * 32];
    for (int64_t turn = 0; turn < turns; ++turn) {
        integer_tile(inputs, 128, kTileRows, weights, 128 / kGroup, sums);
        asm volatile("" ::"r"(sums) : "memory");
    }
    return turns * kTileRows * 32 * 128;
}

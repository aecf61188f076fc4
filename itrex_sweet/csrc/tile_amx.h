// int8 kernel for AMX: `tdpbusd` multiplies 16 × 64 uint8 by 64 × 16 int8.
//
// 2 × 2 register blocking: two tiles of rows (0, 1) and two of columns (2, 3) give four products (4 to 7), so four tile loads
// feed four multiplications. Theoretical rates: a Sapphire Rapids core multiplies a pair of tiles in 16 cycles and loads a
// tile from L1 in 8 (two 64-byte lines per cycle), so a step of 64 inputs takes 64 cycles of multiplications and 32 of loads:
// it is compute-bound, at 1024 multiply-accumulates per cycle. Storing four sums takes about 64 cycles; with 768 inputs (12
// steps, 768 cycles) this leaves 92 % of the peak, with 3072 inputs 98 %. Fewer than 8 rows are faster with `vpdpbusd`, whose
// tile takes 2 cycles per row and group of 4 inputs on 2 ports.
//
// All products use the same tile configuration, so it is loaded once per call and thread (`TileSession`).
#pragma once

#include "tile_vnni.h"

constexpr char kInstructionSet[] = "amx";
constexpr int kTileRows = 32;
constexpr int kMinAmxRows = 8;

// The tile intrinsics of gcc 12 do not declare the memory that they access: a compiler barrier prevents reordering.
#define SWEET_TILE_BARRIER() asm volatile("" ::: "memory")

class TileSession {
   public:
    TileSession() {
        struct __attribute__((packed, aligned(64))) {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t bytes_per_row[16] = {};
            uint8_t rows[16] = {};
        } configuration;
        for (int tile = 0; tile < 8; ++tile) {
            configuration.bytes_per_row[tile] = 64;
            configuration.rows[tile] = 16;
        }
        SWEET_TILE_BARRIER();
        _tile_loadconfig(&configuration);
        SWEET_TILE_BARRIER();
    }
    ~TileSession() { _tile_release(); }
    TileSession(const TileSession&) = delete;
    TileSession& operator=(const TileSession&) = delete;
};

// Reads whole tiles: 32 rows of `a` and inputs up to a multiple of 64 must be readable. Padding inputs are multiplied by
// weights of zero; padding rows write rows of `c` that are not used.
inline void integer_tile(const uint8_t* a, int64_t stride, int rows, const int8_t* panel, int groups, int32_t* c) {
    if (rows < kMinAmxRows) return vnni_tile(a, stride, rows, panel, groups, c);
    const bool has_two_row_tiles = rows > 16;
    SWEET_TILE_BARRIER();
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int group = 0; group < groups; group += 16) {
        const uint8_t* inputs = a + int64_t{group} * 4;
        const int8_t* weights = panel + int64_t{group} * 128;
        _tile_loadd(2, weights, 128);
        _tile_loadd(3, weights + 64, 128);
        _tile_loadd(0, inputs, stride);
        _tile_dpbusd(4, 0, 2);
        _tile_dpbusd(5, 0, 3);
        if (has_two_row_tiles) {
            _tile_loadd(1, inputs + 16 * stride, stride);
            _tile_dpbusd(6, 1, 2);
            _tile_dpbusd(7, 1, 3);
        }
    }
    _tile_stored(4, c, 128);
    _tile_stored(5, c + 16, 128);
    if (has_two_row_tiles) {
        _tile_stored(6, c + 16 * 32, 128);
        _tile_stored(7, c + 16 * 32 + 16, 128);
    }
    SWEET_TILE_BARRIER();
}

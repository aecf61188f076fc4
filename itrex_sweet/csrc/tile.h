// The kernels of the instruction set that the library is compiled for (SWEET_ISA_*).
#pragma once

#if defined(SWEET_ISA_AMX)
#include "tile_amx.h"
#elif defined(SWEET_ISA_AVX512_BF16) || defined(SWEET_ISA_AVX512_VNNI) || defined(SWEET_ISA_AVX_VNNI)
#include "tile_vnni.h"
#elif defined(SWEET_ISA_AVX512) || defined(SWEET_ISA_AVX2)
#include "tile_madd.h"
#elif defined(SWEET_ISA_PORTABLE)
#include "tile_portable.h"
#else
#error "define SWEET_ISA_ followed by AMX, AVX512_BF16, AVX512_VNNI, AVX_VNNI, AVX512, AVX2 or PORTABLE"
#endif

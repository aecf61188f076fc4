// The kernels of the instruction set that the library is compiled for (SWEET_ISA_*).
#pragma once

#if defined(SWEET_ISA_AMX)
#include "tile_amx.h"
#elif defined(SWEET_ISA_AVX512_BF16) || defined(SWEET_ISA_AVX512_VNNI)
#include "tile_vnni.h"
#elif defined(SWEET_ISA_AVX2)
#include "tile_avx2.h"
#elif defined(SWEET_ISA_PORTABLE)
#include "tile_portable.h"
#else
#error "define one of SWEET_ISA_AMX, SWEET_ISA_AVX512_BF16, SWEET_ISA_AVX512_VNNI, SWEET_ISA_AVX2, SWEET_ISA_PORTABLE"
#endif

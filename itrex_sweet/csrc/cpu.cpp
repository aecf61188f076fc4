// Detects the instruction sets that the processor has and the operating system enables.
//
// A separate library compiled for the baseline instruction set, so that it runs on any processor before kernels are selected.
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define SWEET_API extern "C" __attribute__((visibility("default")))

namespace {

#if defined(__x86_64__)

// Bit positions: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2A, CPUID.
struct Registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Returns zeros if the processor does not support the leaf.
Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
    Registers registers;
    if (!__get_cpuid_count(leaf, subleaf, &registers.eax, &registers.ebx, &registers.ecx, &registers.edx)) return {};
    return registers;
}

bool has_bits(uint64_t value, uint64_t bits) { return (value & bits) == bits; }

constexpr uint64_t bit(int position) { return uint64_t{1} << position; }

// Reads XCR0: the register states that the operating system saves at context switches.
uint64_t saved_states() {
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
}

constexpr uint64_t kYmm = bit(1) | bit(2);                  // both halves of ymm
constexpr uint64_t kZmm = kYmm | bit(5) | bit(6) | bit(7);  // opmask, upper halves of zmm, zmm16 to zmm31
constexpr uint64_t kTiles = bit(17) | bit(18);              // XTILECFG and XTILEDATA

// Requests permission to use AMX tile data, which Linux grants per process.
bool tiles_permitted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
    constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

struct Support {
    bool avx2 = false, avx512 = false, avx_vnni = false, avx512_vnni = false, avx512_bf16 = false, amx = false;
};

Support detect() {
    Support support;
    const Registers basic = cpuid(1), extended = cpuid(7), more = cpuid(7, 1);
    if (!has_bits(basic.ecx, bit(27))) return support;  // OSXSAVE: required by xgetbv
    const uint64_t saved = saved_states();

    const bool avx_fma = has_bits(basic.ecx, bit(28) | bit(12));
    support.avx2 = avx_fma && has_bits(extended.ebx, bit(5)) && has_bits(saved, kYmm);

    const uint64_t f_dq_bw_vl = bit(16) | bit(17) | bit(30) | bit(31);
    support.avx512 = support.avx2 && has_bits(extended.ebx, f_dq_bw_vl) && has_bits(saved, kZmm);

    support.avx_vnni = support.avx2 && has_bits(more.eax, bit(4));
    support.avx512_vnni = support.avx512 && has_bits(extended.ecx, bit(11));

    support.avx512_bf16 = support.avx512_vnni && has_bits(more.eax, bit(5));

    const bool tiles_and_int8 = has_bits(extended.edx, bit(24) | bit(25));
    support.amx = support.avx512_bf16 && tiles_and_int8 && has_bits(saved, kTiles) && tiles_permitted();
    return support;
}

#endif

}  // namespace

// Returns 1 if kernels for an instruction set can run in this process, else 0; for unknown names as well. On a processor with
// AMX, the first call requests permission for it.
SWEET_API int32_t sweet_cpu_supports(const char* isa) {
    if (isa == nullptr) return 0;
    if (std::strcmp(isa, "portable") == 0) return 1;
#if defined(__x86_64__)
    static const Support support = detect();
    if (std::strcmp(isa, "avx2") == 0) return support.avx2;
    if (std::strcmp(isa, "avx512") == 0) return support.avx512;
    if (std::strcmp(isa, "avx_vnni") == 0) return support.avx_vnni;
    if (std::strcmp(isa, "avx512_vnni") == 0) return support.avx512_vnni;
    if (std::strcmp(isa, "avx512_bf16") == 0) return support.avx512_bf16;
    if (std::strcmp(isa, "amx") == 0) return support.amx;
#endif
    return 0;
}

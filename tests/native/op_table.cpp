// Runs the engine's operations on tables of cases, on every instruction set that this machine supports: integer products
// against a plain loop, to the last bit, and what computes in floating point against double precision. Needs nothing but
// the libraries, so that emulated processors can run it.
//
//   op_table DIRECTORY BEST [ISA...]
//
// DIRECTORY holds the libraries. BEST is the instruction set that must come out as the best one supported, or "any".
// Of those supported, ISA... alone are run, if given. The last line is a checksum over all integer results, the same for
// every instruction set. Exits 0 if all went well.
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "refusals.h"

namespace {

const char* const kIsas[] = {"amx", "avx512_bf16", "avx512_vnni", "avx2", "portable"};  // best first

struct Operands {
    // Arrays without a byte to spare, so that a sanitizer sees what is read beyond them.
    std::unique_ptr<uint8_t[]> a;
    std::unique_ptr<int8_t[]> w;
    std::vector<int32_t> expected;
};

Operands operands(const Case& shape) {
    const size_t m = shape.m, n = shape.n, k = shape.k;
    Operands made{std::make_unique<uint8_t[]>(m * k), std::make_unique<int8_t[]>(n * k), std::vector<int32_t>(m * n)};
    Random random;
    for (size_t i = 0; i < m * k; ++i) {
        const uint8_t drawn = static_cast<uint8_t>(random() >> 11);
        made.a[i] = shape.values == RANDOM ? drawn : shape.values == ZERO ? 0 : 255;
    }
    for (size_t i = 0; i < n * k; ++i) {
        const int8_t drawn = static_cast<int8_t>(random() >> 11);
        switch (shape.values) {
            case LARGEST: made.w[i] = -128; break;
            case POSITIVE: made.w[i] = 127; break;
            case ALTERNATING: made.w[i] = i % k / 2 % 2 ? -128 : 127; break;
            default: made.w[i] = drawn;
        }
    }
    for (size_t row = 0; row < m; ++row)
        for (size_t column = 0; column < n; ++column) {
            int32_t sum = 0;
            for (size_t i = 0; i < k; ++i) sum += made.a[row * k + i] * made.w[column * k + i];
            made.expected[row * n + column] = sum;
        }
    return made;
}

// Between instruction sets: another order of additions may round an input to the next of its 256 levels.
constexpr float kLogitsDiffer = 0.05f;

constexpr int kGuards = 64;
constexpr int32_t kGuard = 0x5ca1ab1e;

// Number of cases that failed; the checksum is FNV-1a's.
int check_integers(const Engine& engine, const std::vector<Operands>& table, uint64_t& checksum) {
    int failures = 0;
    checksum = 14695981039346656037u;
    for (size_t index = 0; index < table.size(); ++index) {
        const Case& shape = kCases[index];
        const Operands& given = table[index];
        const size_t count = given.expected.size();
        std::vector<int32_t> guarded(count + 2 * kGuards, kGuard);
        int32_t* const result = guarded.data() + kGuards;
        const int32_t code = engine.gemm(shape.m, shape.n, shape.k, given.a.get(), given.w.get(), result);
        size_t wrong = 0, first = 0;
        for (size_t i = count; i-- > 0;)
            if (result[i] != given.expected[i]) ++wrong, first = i;
        bool beyond = false;
        for (int i = 0; i < kGuards; ++i) beyond |= guarded[i] != kGuard || result[count + i] != kGuard;
        if (code != 0 || wrong || beyond) {
            ++failures;
            std::printf("FAIL %s: %d x %d x %d, values %d: code %d, %zu of %zu wrong%s\n", engine.isa(), shape.m, shape.n,
                        shape.k, shape.values, code, wrong, count, beyond ? ", wrote beyond the result" : "");
            if (wrong)
                std::printf("     first at row %zu, column %zu: %d, expected %d\n", first / shape.n, first % shape.n,
                            result[first], given.expected[first]);
        }
        for (size_t i = 0; i < count; ++i)
            for (int byte = 0; byte < 4; ++byte) {
                checksum ^= static_cast<uint32_t>(result[i]) >> (8 * byte) & 255;
                checksum *= 1099511628211u;
            }
    }
    return failures;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::printf("usage: op_table DIRECTORY BEST [ISA...]\n");
        return 2;
    }
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    const std::string directory = std::string(argv[1]) + "/libsweet_";
    const std::vector<std::string> only(argv + 3, argv + argc);
    void* const detector = dlopen((directory + "cpu.so").c_str(), RTLD_NOW | RTLD_LOCAL);
    const auto supports =
        reinterpret_cast<int32_t (*)(const char*)>(detector ? dlsym(detector, "sweet_cpu_supports") : nullptr);
    if (!supports) {
        std::printf("FAIL %s\n", dlerror());
        return 1;
    }

    std::vector<Operands> table;
    for (const Case& shape : kCases) table.push_back(operands(shape));

    int failures = 0;
    std::string best = "none";
    std::vector<uint64_t> checksums;
    std::vector<float> best_logits;
    for (const char* isa : kIsas) {
        if (!supports(isa)) {
            std::printf("%s: not supported\n", isa);
            continue;
        }
        if (best == "none") best = isa;
        if (!only.empty() && std::find(only.begin(), only.end(), isa) == only.end()) {
            std::printf("%s: supported, not run\n", isa);
            continue;
        }
        const Engine engine(directory + isa + ".so");
        if (!engine.complete || std::strcmp(engine.isa(), isa) != 0) {
            std::printf("FAIL %s: no such library\n", isa);
            ++failures;
            continue;
        }
        uint64_t checksum;
        const int failed = check_integers(engine, table, checksum);
        checksums.push_back(checksum);
        std::printf("%s: %zu of %zu cases right, checksum %016llx\n", isa, table.size() - failed, table.size(),
                    static_cast<unsigned long long>(checksum));
        std::vector<float> logits;
        const Checks floats = check_floats(engine, logits);
        float difference = 0.0f;
        if (best_logits.empty()) best_logits = logits;
        for (size_t i = 0; i < std::min(logits.size(), best_logits.size()); ++i)
            difference = std::max(difference, std::abs(logits[i] - best_logits[i]));
        std::printf("%s: %d of %d checks of floating point hold, logits within %.2g\n", isa,
                    floats.made() - floats.failed(), floats.made(), static_cast<double>(difference));
        const Checks refusals = check_refusals(engine);
        std::printf("%s: %d of %d refusals\n", isa, refusals.made() - refusals.failed(), refusals.made());
        failures += failed + floats.failed() + refusals.failed() + !(difference < kLogitsDiffer);
    }
    for (uint64_t checksum : checksums)
        if (checksum != checksums[0]) {
            std::printf("FAIL the instruction sets differ\n");
            ++failures;
            break;
        }
    if (checksums.empty()) {
        std::printf("FAIL nothing was run\n");
        ++failures;
    }
    std::printf("best: %s\n", best.c_str());
    if (std::strcmp(argv[2], "any") != 0 && best != argv[2]) {
        std::printf("FAIL expected %s\n", argv[2]);
        ++failures;
    }
    if (!checksums.empty()) std::printf("checksum %016llx\n", static_cast<unsigned long long>(checksums[0]));
    return failures ? 1 : 0;
}

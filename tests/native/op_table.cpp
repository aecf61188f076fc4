// Tests the engine's operations on a table of cases, on every instruction set that this machine supports: int8 products
// against a scalar loop (exact), floating-point operations against double precision. It depends only on the libraries, so
// that it can run on emulated processors.
//
//   op_table DIRECTORY BEST [ISA...]
//
// DIRECTORY contains the libraries. BEST is the expected best supported instruction set, or "any". ISA... restricts the
// instruction sets that are tested. The last line is a checksum of all integer results, which is the same for every
// instruction set. The exit status is 0 if all tests pass.
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "numeric_checks.h"
#include "validation_checks.h"

namespace {

const char* const kIsas[] = {"amx",    "avx512_bf16", "avx512_vnni", "avx_vnni",
                             "avx512", "avx2",        "portable"};  // best first

struct Operands {
    // Arrays of exact size, so that sanitizers detect reads out_of_bounds the end.
    std::unique_ptr<uint8_t[]> a;
    std::unique_ptr<int8_t[]> w;
    std::vector<int32_t> expected;
};

Operands make_operands(const Case& shape) {
    const size_t m = shape.m, n = shape.n, k = shape.k;
    Operands operands{std::make_unique<uint8_t[]>(m * k), std::make_unique<int8_t[]>(n * k), std::vector<int32_t>(m * n)};
    Random random;
    for (size_t i = 0; i < m * k; ++i) {
        const uint8_t value = static_cast<uint8_t>(random() >> 11);
        operands.a[i] = shape.values == RANDOM ? value : shape.values == ZERO ? 0 : 255;
    }
    for (size_t i = 0; i < n * k; ++i) {
        const int8_t value = static_cast<int8_t>(random() >> 11);
        switch (shape.values) {
            case MINIMUM: operands.w[i] = -128; break;
            case MAXIMUM: operands.w[i] = 127; break;
            case ALTERNATING: operands.w[i] = i % k / 2 % 2 ? -128 : 127; break;
            default: operands.w[i] = value;
        }
    }
    for (size_t row = 0; row < m; ++row)
        for (size_t column = 0; column < n; ++column) {
            int32_t sum = 0;
            for (size_t i = 0; i < k; ++i) sum += operands.a[row * k + i] * operands.w[column * k + i];
            operands.expected[row * n + column] = sum;
        }
    return operands;
}

// Between instruction sets, a different order of additions may quantize an input to an adjacent level.
constexpr float kMaxLogitDifference = 0.05f;

constexpr int kGuardSize = 64;
constexpr int32_t kGuard = 0x5ca1ab1e;

// Returns the number of failed cases; the checksum is FNV-1a.
int check_integers(const Engine& engine, const std::vector<Operands>& table, uint64_t& checksum) {
    int failures = 0;
    checksum = 14695981039346656037u;
    for (size_t index = 0; index < table.size(); ++index) {
        const Case& shape = kCases[index];
        const Operands& operands = table[index];
        const size_t count = operands.expected.size();
        std::vector<int32_t> guarded(count + 2 * kGuardSize, kGuard);
        int32_t* const result = guarded.data() + kGuardSize;
        const int32_t code = engine.gemm(shape.m, shape.n, shape.k, operands.a.get(), operands.w.get(), result);
        size_t wrong = 0, first = 0;
        for (size_t i = count; i-- > 0;)
            if (result[i] != operands.expected[i]) ++wrong, first = i;
        bool out_of_bounds = false;
        for (int i = 0; i < kGuardSize; ++i) out_of_bounds |= guarded[i] != kGuard || result[count + i] != kGuard;
        if (code != 0 || wrong || out_of_bounds) {
            ++failures;
            std::printf("FAIL %s: %d x %d x %d, values %d: code %d, %zu of %zu wrong%s\n", engine.isa(), shape.m, shape.n,
                        shape.k, shape.values, code, wrong, count, out_of_bounds ? ", out-of-bounds write" : "");
            if (wrong)
                std::printf("     first at row %zu, column %zu: %d, expected %d\n", first / shape.n, first % shape.n,
                            result[first], operands.expected[first]);
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
        std::printf("usage: op_table DIRECTORY BEST [ISA... | none]\n");
        return 2;
    }
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    const std::string directory = std::string(argv[1]) + "/libsweet_";
    const std::vector<std::string> selected(argv + 3, argv + argc);
    void* const detector = dlopen((directory + "cpu.so").c_str(), RTLD_NOW | RTLD_LOCAL);
    const auto supports =
        reinterpret_cast<int32_t (*)(const char*)>(detector ? dlsym(detector, "sweet_cpu_supports") : nullptr);
    if (!supports) {
        std::printf("FAIL %s\n", dlerror());
        return 1;
    }

    const bool tests_none = selected == std::vector<std::string>{"none"};
    std::vector<Operands> table;
    for (const Case& shape : kCases)
        if (!tests_none) table.push_back(make_operands(shape));

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
        if (!selected.empty() && std::find(selected.begin(), selected.end(), isa) == selected.end()) {
            std::printf("%s: supported, not tested\n", isa);
            continue;
        }
        const Engine engine(directory + isa + ".so");
        if (!engine.complete || std::strcmp(engine.isa(), isa) != 0) {
            std::printf("FAIL %s: the library is missing or incomplete\n", isa);
            ++failures;
            continue;
        }
        uint64_t checksum;
        const int failed = check_integers(engine, table, checksum);
        checksums.push_back(checksum);
        std::printf("%s: %zu of %zu int8 products exact, checksum %016llx\n", isa, table.size() - failed, table.size(),
                    static_cast<unsigned long long>(checksum));
        std::vector<float> logits;
        const Checks floats = check_floats(engine, logits);
        float difference = 0.0f;
        if (best_logits.empty()) best_logits = logits;
        for (size_t i = 0; i < std::min(logits.size(), best_logits.size()); ++i)
            difference = std::max(difference, std::abs(logits[i] - best_logits[i]));
        std::printf("%s: %d of %d floating-point checks passed, logits within %.2g\n", isa, floats.total() - floats.failed(),
                    floats.total(), static_cast<double>(difference));
        const Checks validation = check_validation(engine);
        std::printf("%s: %d of %d validation checks passed\n", isa, validation.total() - validation.failed(),
                    validation.total());
        failures += failed + floats.failed() + validation.failed() + !(difference < kMaxLogitDifference);
    }
    for (uint64_t checksum : checksums)
        if (checksum != checksums[0]) {
            std::printf("FAIL the checksums of the instruction sets differ\n");
            ++failures;
            break;
        }
    if (checksums.empty() && !tests_none) {
        std::printf("FAIL no instruction set was tested\n");
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

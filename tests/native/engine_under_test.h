// Loads an engine library, counts checks, and generates random numbers.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "api.h"

struct Random {
    uint32_t state = 2463534242u;
    uint32_t operator()() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        return state;
    }
    // Uniform in (-limit, limit).
    float real(float limit) { return (static_cast<float>((*this)() >> 8) / 8388608.0f - 1.0f) * limit; }
    std::vector<float> reals(size_t count, float limit, float center = 0.0f) {
        std::vector<float> values(count);
        for (float& value : values) value = center + real(limit);
        return values;
    }
};

// The functions of a loaded library.
struct Engine {
    void* library;
    bool complete = true;

    explicit Engine(const std::string& path) : library(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
        if (!library) std::printf("FAIL %s\n", dlerror());
        complete = library != nullptr;
        resolve(isa, "sweet_isa");
        resolve(error, "sweet_error");
        resolve(gemm, "sweet_op_gemm_int32");
        resolve(linear, "sweet_op_linear");
        resolve(attention, "sweet_op_attention");
        resolve(activation, "sweet_op_activation");
        resolve(model_new, "sweet_model_new");
        resolve(model_free, "sweet_model_free");
        resolve(model_bytes, "sweet_model_bytes");
        resolve(threads_new, "sweet_threads_new");
        resolve(threads_free, "sweet_threads_free");
        resolve(threads_count, "sweet_threads_count");
        resolve(threads_wake, "sweet_threads_wake");
        resolve(threads_yield, "sweet_threads_yield");
        resolve(context_new, "sweet_context_new");
        resolve(context_free, "sweet_context_free");
        resolve(context_bytes, "sweet_context_bytes");
        resolve(embed, "sweet_embed");
        resolve(probe, "sweet_probe");
        resolve(advance, "sweet_advance");
        resolve(answer, "sweet_answer");
    }

    decltype(&sweet_isa) isa = nullptr;
    decltype(&sweet_error) error = nullptr;
    decltype(&sweet_op_gemm_int32) gemm = nullptr;
    decltype(&sweet_op_linear) linear = nullptr;
    decltype(&sweet_op_attention) attention = nullptr;
    decltype(&sweet_op_activation) activation = nullptr;
    decltype(&sweet_model_new) model_new = nullptr;
    decltype(&sweet_model_free) model_free = nullptr;
    decltype(&sweet_model_bytes) model_bytes = nullptr;
    decltype(&sweet_threads_new) threads_new = nullptr;
    decltype(&sweet_threads_free) threads_free = nullptr;
    decltype(&sweet_threads_count) threads_count = nullptr;
    decltype(&sweet_threads_wake) threads_wake = nullptr;
    decltype(&sweet_threads_yield) threads_yield = nullptr;
    decltype(&sweet_context_new) context_new = nullptr;
    decltype(&sweet_context_free) context_free = nullptr;
    decltype(&sweet_context_bytes) context_bytes = nullptr;
    decltype(&sweet_embed) embed = nullptr;
    decltype(&sweet_probe) probe = nullptr;
    decltype(&sweet_advance) advance = nullptr;
    decltype(&sweet_answer) answer = nullptr;

   private:
    template <class Function>
    void resolve(Function& function, const char* name) {
        if (!library) return;
        function = reinterpret_cast<Function>(dlsym(library, name));
        if (function) return;
        std::printf("FAIL %s\n", dlerror());
        complete = false;
    }
};

// Counts passed and failed checks.
class Checks {
   public:
    explicit Checks(std::string where) : where_(std::move(where)) {}
    void operator()(bool passed, const std::string& what) {
        ++total_;
        if (passed) return;
        ++failed_;
        std::printf("FAIL %s: %s\n", where_.c_str(), what.c_str());
    }
    int total() const { return total_; }
    int failed() const { return failed_; }

   private:
    std::string where_;
    int total_ = 0, failed_ = 0;
};

inline bool same_bits(const float* a, const float* b, size_t count) {
    return count == 0 || std::memcmp(a, b, count * sizeof(float)) == 0;
}

inline sweet_floats array(const std::vector<float>& values) {
    return {values.empty() ? nullptr : values.data(), static_cast<int64_t>(values.size())};
}

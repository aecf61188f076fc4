// Strings that a description holds.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "api.h"

inline size_t size_of(const sweet_strings& given) {
    if (given.size < 0 || given.count < 0 || (given.size > 0 && given.bytes[given.size - 1] != '\0'))
        throw std::invalid_argument("strings");
    return static_cast<size_t>(given.size);
}

// Calls `use` with the index, the start and the size of each string; `bytes`: those of `given`, or a copy.
template <class Use>
void each_string(const char* bytes, const sweet_strings& given, Use use) {
    const char* const end = bytes + size_of(given);
    int64_t place = 0;
    for (; bytes < end; ++place) {
        const auto* stop = static_cast<const char*>(std::memchr(bytes, 0, static_cast<size_t>(end - bytes)));
        if (place == given.count) throw std::invalid_argument("strings");
        use(place, bytes, static_cast<int64_t>(stop - bytes));
        bytes = stop + 1;
    }
    if (place != given.count) throw std::invalid_argument("strings");
}

inline std::vector<std::string> strings(const sweet_strings& given) {
    std::vector<std::string> found;
    each_string(given.bytes, given, [&](int64_t, const char* bytes, int64_t size) {
        found.emplace_back(bytes, static_cast<size_t>(size));
    });
    return found;
}

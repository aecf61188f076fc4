// The state that changes while a model is called: its threads, the memory they work in, and who may call.
#pragma once

#include <mutex>
#include <vector>

#include "batch.h"
#include "layers.h"
#include "threads.h"

struct Session {
    std::mutex calls;  // held by a caller for as long as it uses the rest
    Pool pool;
    std::vector<Workspace> work;  // one per thread; a team of all uses the first
    Buffer<int64_t> starts;
    Batch batch;

    explicit Session(int threads) : pool(threads), work(static_cast<size_t>(threads)) {
        for (Workspace& one : work) one.threads.resize(1);
        work[0].threads.resize(static_cast<size_t>(threads));
    }

    int64_t memory() const {
        int64_t total = starts.bytes() + batch.memory();
        for (const Workspace& one : work) total += one.memory();
        return total;
    }
};

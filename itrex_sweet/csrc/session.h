// The mutable state of a context: workspaces, and the lock that serializes its calls.
#pragma once

#include <mutex>
#include <vector>

#include "active_rows.h"
#include "layers.h"
#include "shared_query.h"
#include "threads.h"

struct Session {
    std::mutex mutex;  // held during a call
    Backoff backoff;
    ThreadPool::Call* call = nullptr;   // the threads of the call in progress
    std::vector<Workspace> workspaces;  // one per thread; a team of several threads shares the first
    Buffer<int64_t> starts;
    Buffer<int64_t> token_types, position_ids;  // of a call that gives none
    std::vector<const int64_t*> positions;      // of the rows of a call; empty if all are consecutive
    ActiveRows active;
    SharedQuery shared_query;  // of the first exit, if no layer precedes its probe

    explicit Session(int threads) : workspaces(static_cast<size_t>(threads)) {
        for (Workspace& workspace : workspaces) workspace.threads.resize(1);
        workspaces[0].threads.resize(static_cast<size_t>(threads));
    }

    int64_t bytes() const {
        int64_t total = starts.bytes() + token_types.bytes() + position_ids.bytes() + active.bytes() + shared_query.bytes();
        for (const Workspace& workspace : workspaces) total += workspace.bytes();
        return total;
    }
};

// Distribution of sequences among threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "sequences.h"
#include "session.h"
#include "threads.h"

class Parallelizer {
   public:
    // Multiply-accumulates that make another thread worthwhile: about 20 microseconds of int8 products, the time to wake a
    // thread; a quarter of it while all threads spin (measured by `benchmarks/threads.py`).
    static constexpr int64_t kMinMacsPerThread = int64_t{1} << 20, kSpinningDivisor = 4;

    Parallelizer(int threads, int64_t min_macs_per_thread)
        : threads_(threads), min_macs_per_thread_(min_macs_per_thread < 0 ? kMinMacsPerThread : min_macs_per_thread) {}

    // Runs a job of `macs` multiply-accumulates on as many threads as it is worth. Each thread gets a part of the sequences
    // and a workspace, so that threads do not wait for each other; if there are fewer than `min_sequences` per thread, all
    // threads form one team. Calls reserve(workspace, sequences, threads) before threads run, where an allocation may fail,
    // and then job(workspace, sequences, team). The pool may run fewer threads than are reserved for.
    template <class Reserve, class Job>
    void run(Session& session, const Sequences& sequences, int64_t min_sequences, int64_t macs, Reserve reserve,
             Job job) const {
        if (sequences.count == 0) return;
        const int threads = threads_for(session.pool, macs), running = session.pool.available_threads(threads);
        if (threads == 1 || sequences.count < min_sequences * threads || sequences.tokens() < kMinTokens * threads) {
            reserve(session.workspaces[0], sequences, threads);
            session.pool.run(running, [&](const Team& team) { job(session.workspaces[0], sequences, team); });
            return;
        }
        std::vector<Sequences> parts(static_cast<size_t>(threads));
        int64_t next = 0;
        for (int64_t index = 0; index < threads; ++index) {
            const int64_t first = next, goal = sequences.tokens() * (index + 1) / threads;
            const int64_t end = sequences.count - (threads - 1 - index);  // leaves at least one for each of the others
            do {
                ++next;
            } while (next < end && sequences.starts[next] + sequences.lengths[next] / 2 < goal);
            parts[static_cast<size_t>(index)] = sequences.slice(first, next - first);
            reserve(session.workspaces[static_cast<size_t>(index)], parts[static_cast<size_t>(index)], 1);
        }
        session.pool.run(running, [&](const Team& team) {
            for (auto index = static_cast<size_t>(team.index); index < parts.size(); index += static_cast<size_t>(team.size))
                job(session.workspaces[index], parts[index], Team{0, 1, team.shared_barrier, nullptr});
        });
    }

   private:
    static constexpr int kMinTokens = 16;  // per thread, if each gets sequences of its own

    int threads_for(const ThreadPool& pool, int64_t macs) const {
        if (min_macs_per_thread_ == 0) return threads_;
        const int64_t per_thread = pool.all_spinning(threads_) ? std::max<int64_t>(min_macs_per_thread_ / kSpinningDivisor, 1)
                                                               : min_macs_per_thread_;
        return static_cast<int>(std::clamp<int64_t>(macs / per_thread, 1, threads_));
    }

    int threads_;
    int64_t min_macs_per_thread_;
};

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

    // Runs a job of `macs` multiply-accumulates on as many threads of the session's call as it is worth. Each thread gets a
    // part of the sequences and a workspace, so that threads do not wait for each other; if there are fewer than
    // `min_sequences` per thread, all threads form one team. Calls reserve(workspace, sequences, threads) before threads run,
    // where an allocation may fail, and then job(workspace, sequences, team). Fewer threads may run than are reserved for.
    template <class Reserve, class RunPart>
    void run(Session& session, const Sequences& sequences, int64_t min_sequences, int64_t macs, Reserve reserve,
             RunPart job) const {
        if (sequences.count == 0) return;
        const int threads = session.call->prepare(threads_for(macs, min_macs_per_thread_),
                                                  threads_for(macs, min_macs_per_thread_ / kSpinningDivisor));
        if (threads == 1 || sequences.count < min_sequences * threads || sequences.tokens() < kMinTokens * threads) {
            reserve(session.workspaces[0], sequences, threads);
            session.call->run([&](const Team& team) { job(session.workspaces[0], sequences, team); });
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
        session.call->run([&](const Team& team) {
            for (auto index = static_cast<size_t>(team.index); index < parts.size(); index += static_cast<size_t>(team.size))
                job(session.workspaces[index], parts[index], Team{0, 1, team.shared_barrier, nullptr});
        });
    }

    // Calls each(first, last) for consecutive layers of [first, last), at least once. Other calls get threads between two
    // jobs, so layers with many multiply-accumulates run in several jobs.
    template <class Macs, class Each>
    void for_each_job(int first, int last, Macs macs_of, Each each) const {
        const int64_t jobs =
            std::min<int64_t>(macs_of(first, last) / (kMaxMacsPerJob * threads_) + 1, std::max(last - first, 1));
        for (int64_t job = 0; job < jobs; ++job)
            each(first + static_cast<int>((last - first) * job / jobs),
                 first + static_cast<int>((last - first) * (job + 1) / jobs));
    }

   private:
    static constexpr int kMinTokens = 16;  // per thread, if each gets sequences of its own
    // Multiply-accumulates per thread of a job: about a millisecond of int8 products.
    static constexpr int64_t kMaxMacsPerJob = int64_t{1} << 29;

    int threads_for(int64_t macs, int64_t per_thread) const {
        if (min_macs_per_thread_ == 0) return threads_;
        return static_cast<int>(std::clamp<int64_t>(macs / std::max<int64_t>(per_thread, 1), 1, threads_));
    }

    int threads_;
    int64_t min_macs_per_thread_;
};

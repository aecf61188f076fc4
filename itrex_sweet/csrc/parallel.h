// Distribution of sequences among threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "encoder.h"
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

    // Runs a job of `macs` multiply-accumulates on as many threads of the session's call as it is worth. Each thread gets
    // parts of the sequences and a workspace, and steals parts of the others when it has finished its own, so that a thread
    // that is kept from running delays the job by one part at most; if there are fewer than `min_sequences` per thread, all
    // threads form one team. Calls reserve(workspace, sequences, threads) before threads run, where an allocation may fail,
    // and then job(workspace, sequences, team). Fewer threads may run than are reserved for.
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
        const std::vector<Sequences> parts = divide(sequences, threads);
        std::vector<Queue> queues(static_cast<size_t>(threads));
        for (int64_t index = 0; index < threads; ++index) {
            Queue& queue = queues[static_cast<size_t>(index)];
            queue.next = static_cast<int64_t>(parts.size()) * index / threads;
            queue.end = static_cast<int64_t>(parts.size()) * (index + 1) / threads;
            for (const Sequences& part : parts) reserve(session.workspaces[static_cast<size_t>(index)], part, 1);
        }
        session.call->run_stealing([&](const Team& team) {
            for (int turn = 0; turn < threads; ++turn) {
                Queue& queue = queues[static_cast<size_t>((team.index + turn) % threads)];
                for (int64_t part = queue.next++; part < queue.end; part = queue.next++)
                    job(session.workspaces[static_cast<size_t>(team.index)], parts[static_cast<size_t>(part)],
                        Team{0, 1, team.shared_barrier, nullptr});
            }
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
    // The parts of one thread that no thread has begun, [next, end).
    struct alignas(64) Queue {
        std::atomic<int64_t> next{0};
        int64_t end = 0;
    };

    // Divides sequences into parts of nearly equal numbers of tokens, as many for each thread, of about `kChunkTokens` tokens
    // at most: a layer runs them in one chunk.
    static std::vector<Sequences> divide(const Sequences& sequences, int threads) {
        const int64_t tokens = sequences.tokens(), per_round = kChunkTokens * threads;
        const int64_t count = std::min<int64_t>(threads * ((tokens + per_round - 1) / per_round), sequences.count);
        std::vector<Sequences> parts(static_cast<size_t>(count));
        int64_t next = 0;
        for (int64_t index = 0; index < count; ++index) {
            const int64_t first = next, goal = tokens * (index + 1) / count;
            const int64_t end = sequences.count - (count - 1 - index);  // leaves at least one for each of the others
            do {
                ++next;
            } while (next < end && sequences.starts[next] - sequences.starts[0] + sequences.lengths[next] / 2 < goal);
            parts[static_cast<size_t>(index)] = sequences.slice(first, next - first);
        }
        return parts;
    }

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

// Runs jobs whose threads steal parts of each other: every part is run once, also where a thread has not begun when the
// others have finished, and such a thread keeps its processor affinity. Intended for ThreadSanitizer too.
#include <cstdio>

#include "threads.h"

namespace {

int failures = 0;

void check(bool is_true, const char* description) {
    if (is_true) return;
    std::printf("FAIL %s\n", description);
    ++failures;
}

cpu_set_t affinity() {
    cpu_set_t processors;
    CPU_ZERO(&processors);
    pthread_getaffinity_np(pthread_self(), sizeof processors, &processors);
    return processors;
}

// Runs parts on two threads; returns the number of threads that began.
int run_parts(ThreadPool::Call& call, std::vector<std::atomic<int>>& runs) {
    std::atomic<size_t> next{0};
    std::atomic<int> begun{0};
    for (auto& each : runs) each.store(0);
    call.run_stealing([&](const Team&) {
        ++begun;
        for (size_t part = next++; part < runs.size(); part = next++) ++runs[part];
    });
    for (const auto& each : runs) check(each.load() == 1, "every part is run once");
    return begun.load();
}

}  // namespace

int main() {
    const cpu_set_t all = affinity();
    ThreadPool pool(2);
    Backoff backoff;
    std::vector<std::atomic<int>> runs(5);
    int jobs = 0, begun = 0;
    for (int round = 0; round < 300; ++round) {
        ThreadPool::Call call(pool, backoff);
        if (call.prepare(2, 2) == 1) continue;
        for (int job = 0; job < 3; ++job, ++jobs) begun += run_parts(call, runs);
        if (round % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the worker sleeps meanwhile
    }
    check(jobs > 100, "teams of two have run");
    check(begun >= jobs, "the calling thread runs every job");
    check(begun < 2 * jobs, "some jobs end without a thread that has not begun");
    for (int job = 0; job < 20; ++job) {
        Backoff fresh;
        ThreadPool::Call call(pool, fresh);
        const int threads = call.prepare(2, 2);
        std::atomic<int> equal{0};
        call.run([&](const Team& team) {
            const cpu_set_t own = affinity();
            equal += CPU_EQUAL(&own, &all) != 0;
            team.barrier();
        });
        check(equal.load() == threads, "threads keep their affinity");
    }

    return failures > 0;
}

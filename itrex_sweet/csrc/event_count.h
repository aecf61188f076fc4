// A counter that threads wait on: spin first, then sleep.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

using Clock = std::chrono::steady_clock;
using Duration = Clock::duration;

inline void pause_processor() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// An event count: waiters block until the counter advances.
//
// A waiting thread spins for a limited time and then sleeps, since the thread that it waits for may need its core. The limit
// adapts: it halves after each wait in which spinning did not suffice and doubles after each in which it did. Every
// `kMaxSpinInterval` waits the maximum is tried, because a limit that has become too short would never succeed.
class EventCount {
   public:
    explicit EventCount(std::chrono::nanoseconds max_spin) : max_spin_(max_spin.count()), spin_limit_(max_spin.count()) {}

    uint32_t value() const { return value_.load(std::memory_order_acquire); }

    void advance() {
        value_.fetch_add(1);
        // Sequential consistency: either this thread sees the waiter, or the waiter sees the new value.
        if (waiters_.load() == 0) return;
        { const std::lock_guard<std::mutex> guard(mutex_); }
        advanced_.notify_all();
    }

    bool has_waiters() const { return waiters_.load(std::memory_order_relaxed) > 0; }

    // Returns once the value differs from `seen`; the result is the time that the thread slept. It spins only as long as
    // may_spin() is true. With `is_soon` the value is expected to change soon, whatever earlier waits took: the thread spins
    // for the maximum, and the limit stays as it is.
    template <class Predicate>
    Duration wait(uint32_t seen, Predicate may_spin, bool is_soon = false) {
        if (is_soon ? spin_for(max_spin_, seen, may_spin) : spin(seen, may_spin)) return {};
        const auto start = Clock::now();
        std::unique_lock<std::mutex> guard(mutex_);
        waiters_.fetch_add(1);
        advanced_.wait(guard, [&] { return value_.load() != seen; });
        waiters_.fetch_sub(1);
        return Clock::now() - start;
    }
    Duration wait(uint32_t seen) {
        return wait(seen, [] { return true; });
    }

   private:
    static constexpr int64_t kMinSpin = 500;  // nanoseconds
    static constexpr uint32_t kMaxSpinInterval = 16;

    template <class Predicate>
    bool spin(uint32_t seen, Predicate may_spin) {
        if (poll(seen)) return true;
        if (!may_spin()) return false;
        const int64_t limit = spin_limit_.load(std::memory_order_relaxed);
        const bool tries_max = waits_.fetch_add(1, std::memory_order_relaxed) % kMaxSpinInterval == 0;
        if (spin_for(tries_max ? max_spin_ : limit, seen, may_spin)) {
            spin_limit_.store(tries_max ? max_spin_ : std::min(2 * limit, max_spin_), std::memory_order_relaxed);
            return true;
        }
        if (may_spin()) spin_limit_.store(std::max(limit / 2, kMinSpin), std::memory_order_relaxed);
        return false;
    }

    // Returns true if the value differs from `seen` within these nanoseconds.
    template <class Predicate>
    bool spin_for(int64_t limit, uint32_t seen, Predicate may_spin) const {
        const auto until = Clock::now() + std::chrono::nanoseconds(limit);
        do {
            if (poll(seen)) return true;
        } while (may_spin() && Clock::now() < until);
        return false;
    }

    bool poll(uint32_t seen) const {
        for (int turn = 0; turn < 16; ++turn) {
            if (value() != seen) return true;
            pause_processor();
        }
        return false;
    }

    alignas(64) std::atomic<uint32_t> value_{0};
    std::atomic<int> waiters_{0};
    alignas(64) std::atomic<uint32_t> waits_{0};  // on another cache line than what the other threads read
    const int64_t max_spin_;
    std::atomic<int64_t> spin_limit_;
    std::mutex mutex_;
    std::condition_variable advanced_;
};

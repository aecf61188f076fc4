// A pool of threads that run one function together, and the barrier they meet at.
#pragma once

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

inline void pause_processor() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Waits for a condition: spinning while that is likely to be short, then giving the processor away in between.
template <class Condition>
void spin_until(Condition is_met) {
    for (int turn = 0; !is_met(); ++turn) {
        if (turn < 4096) {
            pause_processor();
        } else {
            std::this_thread::yield();
        }
    }
}

class Barrier {
   public:
    explicit Barrier(int size) : size_(size) {}
    void wait() {
        if (size_ == 1) return;
        const uint32_t round = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
        } else {
            spin_until([&] { return round_.load(std::memory_order_acquire) != round; });
        }
    }

   private:
    const int size_;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint32_t> round_{0};
};

// The threads that share one piece of work, as one of them sees it.
struct Team {
    int index;
    int size;
    Barrier* barrier;

    void meet() const { barrier->wait(); }
    // This thread's part of `count` things, as [first, last).
    std::pair<int64_t, int64_t> part(int64_t count) const {
        return {count * index / size, count * (index + 1) / size};
    }
};

// `threads` - 1 workers beside the caller. Between calls they look for work for a while and then sleep. Calls from
// several threads wait for one another. After a fork the child starts workers of its own.
class Pool {
   public:
    explicit Pool(int threads) : threads_(threads) {}
    ~Pool() {
        if (state_ && state_->owner == getpid()) stop();
    }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return threads_; }

    // Runs job(index) for every index below `threads`, one per thread; returns when all have.
    void run(const std::function<void(int)>& job) {
        start_if_needed();
        State& state = *state_;
        if (threads_ > 1) {
            state.job = &job;
            state.running.store(threads_ - 1, std::memory_order_relaxed);
            {
                std::lock_guard<std::mutex> guard(state.mutex);
                state.round.fetch_add(1, std::memory_order_release);
            }
            if (state.asleep.load(std::memory_order_acquire) > 0) state.wake.notify_all();
        }
        job(0);
        spin_until([&] { return state.running.load(std::memory_order_acquire) == 0; });
    }

    // Held by a caller for as long as it uses the pool and what belongs to it.
    std::unique_lock<std::mutex> lock() {
        forget_if_forked();
        return std::unique_lock<std::mutex>(*calls_);
    }

   private:
    static constexpr auto kLooking = std::chrono::microseconds(200);

    struct State {
        std::mutex mutex;
        std::condition_variable wake;
        std::atomic<uint64_t> round{0};
        std::atomic<int> running{0}, asleep{0};
        std::atomic<bool> ending{false};
        const std::function<void(int)>* job = nullptr;
        std::vector<std::thread> workers;
        pid_t owner = getpid();
    };

    void start_if_needed() {
        if (state_) return;
        state_ = new State;
        for (int index = 1; index < threads_; ++index) {
            state_->workers.emplace_back([state = state_, index] { work(*state, index); });
        }
    }

    // The parent's workers are not in the child; its locks may be held for ever. Both are left behind.
    void forget_if_forked() {
        if (getpid() == owner_) return;
        owner_ = getpid();
        state_ = nullptr;
        calls_ = new std::mutex;
    }

    void stop() {
        {
            std::lock_guard<std::mutex> guard(state_->mutex);
            state_->ending.store(true);
            state_->round.fetch_add(1, std::memory_order_release);
        }
        state_->wake.notify_all();
        for (std::thread& worker : state_->workers) worker.join();
        delete state_;
        delete calls_;
    }

    static void work(State& state, int index) {
        uint64_t seen = 0;
        for (;;) {
            const auto new_round = [&] { return state.round.load(std::memory_order_acquire) != seen; };
            const auto until = std::chrono::steady_clock::now() + kLooking;
            while (!new_round() && std::chrono::steady_clock::now() < until) pause_processor();
            if (!new_round()) {
                std::unique_lock<std::mutex> guard(state.mutex);
                state.asleep.fetch_add(1);
                state.wake.wait(guard, new_round);
                state.asleep.fetch_sub(1);
            }
            seen = state.round.load(std::memory_order_acquire);
            if (state.ending.load()) return;
            (*state.job)(index);
            state.running.fetch_sub(1, std::memory_order_acq_rel);
        }
    }

    const int threads_;
    pid_t owner_ = getpid();
    State* state_ = nullptr;
    std::mutex* calls_ = new std::mutex;
};

// A pool of threads that run one function together, and the barrier they meet at.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "placement.h"

inline void pause_processor() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

using Clock = std::chrono::steady_clock;
using Duration = Clock::duration;

// A counter that threads wait for to advance.
//
// A waiting thread spins at first, for a limited time, and then sleeps: the thread that it waits for may need its core.
// Each time that spinning did not suffice, it spins half as long the next time, and twice as long each time that it did.
// Now and then it tries the full time again, and returns to it if that suffices: a shorter one may never do.
class EventCount {
   public:
    explicit EventCount(std::chrono::nanoseconds most) : most_spin_(most.count()), spin_(most.count()) {}

    uint32_t value() const { return value_.load(std::memory_order_acquire); }

    void advance() {
        value_.fetch_add(1);
        // Either this sees the sleeper, or the sleeper sees the new value: both are sequentially consistent.
        if (asleep_.load() == 0) return;
        { const std::lock_guard<std::mutex> guard(mutex_); }
        advanced_.notify_all();
    }

    bool has_sleeper() const { return asleep_.load(std::memory_order_relaxed) > 0; }

    // Returns once the value is not `seen` any more, and how long it slept for that.
    Duration wait(uint32_t seen) {
        if (spin(seen)) return {};
        const auto start = Clock::now();
        std::unique_lock<std::mutex> guard(mutex_);
        asleep_.fetch_add(1);
        advanced_.wait(guard, [&] { return value_.load() != seen; });
        asleep_.fetch_sub(1);
        return Clock::now() - start;
    }

   private:
    static constexpr int64_t kLeastSpin = 500;  // nanoseconds
    static constexpr uint32_t kFullSpinEvery = 16;

    bool spin(uint32_t seen) {
        if (has_passed(seen)) return true;
        const int64_t usual = spin_.load(std::memory_order_relaxed);
        const bool in_full = waits_.fetch_add(1, std::memory_order_relaxed) % kFullSpinEvery == 0;
        const auto until = Clock::now() + std::chrono::nanoseconds(in_full ? most_spin_ : usual);
        do {
            if (has_passed(seen)) {
                spin_.store(in_full ? most_spin_ : std::min(2 * usual, most_spin_), std::memory_order_relaxed);
                return true;
            }
        } while (Clock::now() < until);
        spin_.store(std::max(usual / 2, kLeastSpin), std::memory_order_relaxed);
        return false;
    }

    bool has_passed(uint32_t seen) const {
        for (int turn = 0; turn < 16; ++turn) {
            if (value() != seen) return true;
            pause_processor();
        }
        return false;
    }

    alignas(64) std::atomic<uint32_t> value_{0};
    std::atomic<int> asleep_{0};
    alignas(64) std::atomic<uint32_t> waits_{0};  // apart from what other threads look at
    const int64_t most_spin_;
    std::atomic<int64_t> spin_;
    std::mutex mutex_;
    std::condition_variable advanced_;
};

// A worker takes up to 100 microseconds to wake on an idle core of a virtual machine, and the threads of a team wait for it.
// A worker waits for the next piece of work as long as a program may take between two calls.
constexpr std::chrono::microseconds kSpinForTeam{200}, kSpinForWork{200};

class Barrier {
   public:
    // Returns once `size` threads have come, and how long this one slept for that.
    Duration wait(int size) {
        if (size == 1) return {};
        const uint32_t round = round_.value();
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.advance();
            return {};
        }
        return round_.wait(round);
    }

   private:
    EventCount round_{kSpinForTeam};
    alignas(64) std::atomic<int> arrived_{0};
};

// The threads that share one piece of work, as one of them sees it.
struct Team {
    int index;
    int size;
    Barrier* barrier;
    Duration* slept;  // at the barrier, by this thread; or null

    void meet() const {
        const Duration time = barrier->wait(size);
        if (slept != nullptr) *slept += time;
    }
    // This thread's part of `count` things, as [first, last).
    std::pair<int64_t, int64_t> part(int64_t count) const {
        return {count * index / size, count * (index + 1) / size};
    }
};

// Up to `threads` - 1 workers beside the caller, started when they are needed first. For one caller at a time, in the
// process that made it.
class Pool {
   public:
    explicit Pool(int threads) : threads_(threads) { workers_.reserve(static_cast<size_t>(threads - 1)); }
    ~Pool() {
        for (const auto& worker : workers_) {
            worker->job = nullptr;
            worker->rounds.advance();
        }
        for (const auto& worker : workers_) worker->thread.join();
    }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    // Threads that a piece of work gets, from 1: those that `wanted` asks for and the system starts, the caller included;
    // 1 as long as a team had to wait for its threads to get a core.
    int size_for(int wanted) {
        const int size = std::min(wanted, threads_);
        if (size > 1 && alone_for_ > 0) {
            --alone_for_;
            return 1;
        }
        while (static_cast<int>(workers_.size()) + 1 < size && start_one()) {
        }
        return std::min(size, static_cast<int>(workers_.size()) + 1);
    }

    // True if `size` threads are there and none of them sleeps: to run a job on them costs little more than a barrier.
    bool is_awake(int size) const {
        if (size > static_cast<int>(workers_.size()) + 1 || alone_for_ > 0) return false;
        for (int index = 1; index < size; ++index) {
            if (workers_[static_cast<size_t>(index - 1)]->rounds.has_sleeper()) return false;
        }
        return true;
    }

    // True if a thread could not be started since the last call.
    bool was_short_of_threads() { return std::exchange(was_short_, false); }

    // Runs job(team) on `size` threads, as many as `size_for` gave; returns when all have finished.
    void run(int size, const std::function<void(const Team&)>& job) {
        if (size == 1) return job(Team{0, 1, &barrier_, nullptr});
        const auto start = Clock::now();
        Duration slept{};
        const uint32_t round = done_.value();
        running_.store(size - 1, std::memory_order_relaxed);
        std::optional<Placement> placement;  // if somebody sleeps
        for (int index = 1; index < size; ++index) {
            Worker& worker = *workers_[static_cast<size_t>(index - 1)];
            worker.job = &job;
            worker.team = Team{index, size, &barrier_, nullptr};
            worker.is_restricted = false;
            if (worker.rounds.has_sleeper()) {
                if (!placement) placement.emplace();
                worker.is_restricted =
                    placement->restrict(worker.thread.native_handle(), worker.last_processor, worker.affinity);
            }
            worker.rounds.advance();
        }
        job(Team{0, size, &barrier_, &slept});
        slept += done_.wait(round);
        judge(slept, Clock::now() - start);
    }

   private:
    static constexpr int kMostAlone = 64;  // pieces of work
    static constexpr std::chrono::microseconds kWakes{300};

    struct Worker {
        EventCount rounds{kSpinForWork};
        const std::function<void(const Team&)>* job = nullptr;  // null: to end
        Team team{};
        std::atomic<int> last_processor{-1};
        bool is_restricted = false;  // to processors that its team does not use, as long as it wakes
        cpu_set_t affinity;          // before that
        std::thread thread;
    };

    bool start_one() {
        workers_.push_back(std::make_unique<Worker>());
        Worker& worker = *workers_.back();
        // Signals are for the program's own threads.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        try {
            worker.thread = std::thread([this, &worker] { work(worker); });
        } catch (const std::exception&) {  // no thread, or no memory for one
            workers_.pop_back();
            was_short_ = true;
            pthread_sigmask(SIG_SETMASK, &before, nullptr);
            return false;
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return true;
    }

    void work(Worker& worker) {
        for (uint32_t seen = 0;; ++seen) {
            worker.rounds.wait(seen);
            if (worker.job == nullptr) return;
            if (worker.is_restricted) pthread_setaffinity_np(pthread_self(), sizeof worker.affinity, &worker.affinity);
            worker.last_processor.store(sched_getcpu(), std::memory_order_relaxed);
            (*worker.job)(worker.team);
            if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) done_.advance();
        }
    }

    // A caller that slept for most of its time, and longer than a sleeping worker takes to wake, had workers without a core,
    // because other programs or threads have them: the next pieces of work run without workers, more of them each time that
    // it happens again.
    void judge(Duration slept, Duration all) {
        const bool lacks_cores = slept > kWakes && 2 * slept > all;
        alone_ = lacks_cores ? std::clamp(2 * alone_, 1, kMostAlone) : alone_ / 2;
        alone_for_ = lacks_cores ? alone_ : 0;
    }

    const int threads_;
    std::vector<std::unique_ptr<Worker>> workers_;
    Barrier barrier_;
    EventCount done_{kSpinForTeam};
    alignas(64) std::atomic<int> running_{0};
    int alone_ = 0, alone_for_ = 0;
    bool was_short_ = false;
};

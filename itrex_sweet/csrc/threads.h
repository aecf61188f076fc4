// Thread pool: runs one function on several threads, which synchronize at a barrier.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "event_count.h"
#include "placement.h"

// On an idle core of a virtual machine a worker takes up to 100 microseconds to wake, and its team waits for it. Workers
// therefore spin for the time that a program typically takes between two calls.
constexpr std::chrono::microseconds kSpinForTeam{200}, kSpinForJob{200};

class Barrier {
   public:
    // Returns once `size` threads have arrived; the result is the time that this thread slept.
    Duration wait(int size) {
        if (size == 1) return {};
        const uint32_t generation = generation_.value();
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            arrived_.store(0, std::memory_order_relaxed);
            generation_.advance();
            return {};
        }
        return generation_.wait(generation);
    }

   private:
    EventCount generation_{kSpinForTeam};
    alignas(64) std::atomic<int> arrived_{0};
};

// The threads that run one job together, as seen by one of them.
struct Team {
    int index;
    int size;
    Barrier* shared_barrier;
    Duration* slept;  // time that this thread slept at the barrier; may be null

    void barrier() const {
        const Duration time = shared_barrier->wait(size);
        if (slept != nullptr) *slept += time;
    }
    // Returns this thread's share of `count` items as [first, last).
    std::pair<int64_t, int64_t> range(int64_t count) const { return {count * index / size, count * (index + 1) / size}; }
};

// Up to `threads` - 1 workers and the calling thread. Workers are started on first use. One caller at a time, in the process
// that created the pool.
class ThreadPool {
   public:
    explicit ThreadPool(int threads) : threads_(threads) { workers_.reserve(static_cast<size_t>(threads - 1)); }
    ~ThreadPool() {
        for (const auto& worker : workers_) {
            worker->job = nullptr;
            worker->jobs.advance();
        }
        for (const auto& worker : workers_) worker->thread.join();
    }
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    // Returns the number of threads for a job, from 1 to `wanted`, the caller included: fewer if the system does not start
    // them, and 1 during a backoff (see `update_backoff`).
    int available_threads(int wanted) {
        const int size = std::min(wanted, threads_);
        if (size > 1 && backoff_left_ > 0) {
            --backoff_left_;
            return 1;
        }
        while (static_cast<int>(workers_.size()) + 1 < size && start_worker()) {
        }
        return std::min(size, static_cast<int>(workers_.size()) + 1);
    }

    // Returns true if `size` threads are running and none of them sleeps: starting a job costs little more than a barrier.
    bool all_spinning(int size) const {
        if (size > static_cast<int>(workers_.size()) + 1 || backoff_left_ > 0) return false;
        for (int index = 1; index < size; ++index) {
            if (workers_[static_cast<size_t>(index - 1)]->jobs.has_waiters()) return false;
        }
        return true;
    }

    // Returns true if a thread could not be started since the last call of this function.
    bool take_thread_shortage() { return std::exchange(has_thread_shortage_, false); }

    // Runs job(team) on `size` threads, a result of `available_threads`, and returns when all have finished.
    void run(int size, const std::function<void(const Team&)>& job) {
        if (size == 1) return job(Team{0, 1, &barrier_, nullptr});
        const auto start = Clock::now();
        Duration slept{};
        const uint32_t finished = finished_.value();
        running_.store(size - 1, std::memory_order_relaxed);
        std::optional<Placement> placement;  // only if a worker sleeps
        for (int index = 1; index < size; ++index) {
            Worker& worker = *workers_[static_cast<size_t>(index - 1)];
            worker.job = &job;
            worker.team = Team{index, size, &barrier_, nullptr};
            worker.is_restricted = false;
            if (worker.jobs.has_waiters()) {
                if (!placement) placement.emplace();
                worker.is_restricted =
                    placement->restrict(worker.thread.native_handle(), worker.last_processor, worker.affinity);
            }
            worker.jobs.advance();
        }
        job(Team{0, size, &barrier_, &slept});
        slept += finished_.wait(finished);
        update_backoff(slept, Clock::now() - start);
    }

   private:
    static constexpr int kMaxBackoff = 64;  // jobs
    static constexpr std::chrono::microseconds kWakeLatency{300};

    struct Worker {
        EventCount jobs{kSpinForJob};
        const std::function<void(const Team&)>* job = nullptr;  // null: terminate
        Team team{};
        std::atomic<int> last_processor{-1};
        bool is_restricted = false;  // while it wakes, see `Placement`
        cpu_set_t affinity;          // to restore, if restricted
        std::thread thread;
    };

    bool start_worker() {
        workers_.push_back(std::make_unique<Worker>());
        Worker& worker = *workers_.back();
        // Workers block all signals, so that the program's own threads handle them.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        try {
            worker.thread = std::thread([this, &worker] { work(worker); });
        } catch (const std::exception&) {  // the limit of threads, or out of memory
            workers_.pop_back();
            has_thread_shortage_ = true;
            pthread_sigmask(SIG_SETMASK, &before, nullptr);
            return false;
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return true;
    }

    void work(Worker& worker) {
        for (uint32_t seen = 0;; ++seen) {
            worker.jobs.wait(seen);
            if (worker.job == nullptr) return;
            if (worker.is_restricted) pthread_setaffinity_np(pthread_self(), sizeof worker.affinity, &worker.affinity);
            worker.last_processor.store(sched_getcpu(), std::memory_order_relaxed);
            (*worker.job)(worker.team);
            if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) finished_.advance();
        }
    }

    // Exponential backoff from oversubscribed cores. If the caller slept for more than half of a job, and longer than a
    // worker takes to wake, then other programs or threads occupy the workers' cores: the next jobs run on the calling thread
    // alone, twice as many after each repetition.
    void update_backoff(Duration slept, Duration elapsed) {
        const bool is_oversubscribed = slept > kWakeLatency && 2 * slept > elapsed;
        backoff_ = is_oversubscribed ? std::clamp(2 * backoff_, 1, kMaxBackoff) : backoff_ / 2;
        backoff_left_ = is_oversubscribed ? backoff_ : 0;
    }

    const int threads_;
    std::vector<std::unique_ptr<Worker>> workers_;
    Barrier barrier_;
    EventCount finished_{kSpinForTeam};
    alignas(64) std::atomic<int> running_{0};
    int backoff_ = 0, backoff_left_ = 0;
    bool has_thread_shortage_ = false;
};

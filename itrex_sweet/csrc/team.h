// Threads that run one job together and synchronize at a barrier.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

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

using Job = std::function<void(const Team&)>;

// Synchronizes the threads of one team.
struct TeamState {
    Barrier barrier;
    EventCount finished{kSpinForTeam};
    alignas(64) std::atomic<int> running{0};  // workers that have not finished the job
};

// A thread that runs one job after the other, each in a team of its caller.
class Worker {
   public:
    // Starts the thread, which spins between two jobs as long as `unused_threads` is positive or a call holds the worker.
    //
    // Throws std::system_error or std::bad_alloc if the system does not start it.
    explicit Worker(const std::atomic<int>& unused_threads) : unused_threads_(unused_threads) {
        // Workers block all signals, so that the program's own threads handle them.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        try {
            thread_ = std::thread([this] { work(); });
        } catch (...) {
            pthread_sigmask(SIG_SETMASK, &before, nullptr);
            throw;
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }
    // Ends the thread after its last job. All workers that have worked in a team must have ended before one is destroyed.
    void join() {
        job_ = nullptr;
        offer_.store(kOffered, std::memory_order_release);
        jobs_.advance();
        thread_.join();
    }
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    // Called when a call takes the worker and when it gives it back.
    void set_held(bool is_held) { is_held_.store(is_held, std::memory_order_relaxed); }

    bool sleeps() const { return jobs_.has_waiters(); }

    int last_processor() const { return last_processor_.load(std::memory_order_relaxed); }

    // Runs job(team), and then reduces `state.running` by one. `placement` is created if the worker sleeps.
    void start(const Job& job, const Team& team, TeamState& state, std::optional<Placement>& placement) {
        job_ = &job;
        team_ = team;
        state_ = &state;
        is_restricted_ = false;
        if (sleeps()) {
            if (!placement) placement.emplace().use(sched_getcpu());
            is_restricted_ = placement->restrict(thread_.native_handle(), affinity_);
            if (is_restricted_) placement->use(last_processor());
        }
        offer_.store(kOffered, std::memory_order_release);
        jobs_.advance();
    }

    // Wakes the worker if it sleeps, away from the processors in use; it spins for its next job. No call may hold it.
    void wake(const Placement& placement) {
        if (!sleeps()) return;
        cpu_set_t affinity;
        const bool is_restricted = placement.restrict(thread_.native_handle(), affinity);
        offer_.store(kExpected, std::memory_order_release);
        jobs_.advance();
        if (is_restricted) pthread_setaffinity_np(thread_.native_handle(), sizeof affinity, &affinity);
    }

    // Withdraws the last job if the worker has not begun it; returns whether it did.
    bool cancel() {
        int expected = kOffered;
        if (!offer_.compare_exchange_strong(expected, kNone, std::memory_order_acq_rel)) return false;
        if (is_restricted_) pthread_setaffinity_np(thread_.native_handle(), sizeof affinity_, &affinity_);
        return true;
    }

    // Synchronizes a team that this worker is the first of. It belongs to the worker because the last thread to finish a job
    // uses it for a moment after the caller has returned.
    TeamState& team_state() { return own_state_; }

   private:
    void work() {
        const auto may_spin = [this] {
            return is_held_.load(std::memory_order_relaxed) || unused_threads_.load(std::memory_order_relaxed) > 0;
        };
        bool is_soon = false;
        for (uint32_t seen = 0;; ++seen) {
            jobs_.wait(seen, may_spin, is_soon);
            int expected = kOffered;
            const bool has_job = offer_.compare_exchange_strong(expected, kBegun, std::memory_order_acq_rel);
            is_soon = expected == kExpected;
            if (!has_job) continue;  // cancelled, or only woken
            if (job_ == nullptr) return;
            if (is_restricted_) pthread_setaffinity_np(pthread_self(), sizeof affinity_, &affinity_);
            last_processor_.store(sched_getcpu(), std::memory_order_relaxed);
            TeamState& state = *state_;
            (*job_)(team_);
            if (state.running.fetch_sub(1, std::memory_order_acq_rel) == 1) state.finished.advance();
        }
    }

    const std::atomic<int>& unused_threads_;
    std::atomic<bool> is_held_{false};
    EventCount jobs_{kSpinForJob};
    // The other members below belong to the caller until the worker changes `offer_` to `kBegun`.
    static constexpr int kNone = 0, kOffered = 1, kBegun = 2, kExpected = 3;  // the last: no job yet, see `wake`
    std::atomic<int> offer_{kNone};
    const Job* job_ = nullptr;  // null: terminate
    Team team_{};
    TeamState* state_ = nullptr;
    std::atomic<int> last_processor_{-1};
    bool is_restricted_ = false;  // while it wakes, see `Placement`
    cpu_set_t affinity_;          // to restore, if restricted
    TeamState own_state_;
    std::thread thread_;
};

// Thread pool: the threads that the calls of several contexts share.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "backoff.h"
#include "team.h"

// At most `threads` threads run the calls of all contexts of the pool, the calling threads included. A call alone may use all
// of them. Several calls share them evenly: the shares are computed again before every job, so a call gives threads to the
// others when its next job begins. If there are more calls than threads, the calls take turns. Workers are started on first
// use, in the process that created the pool.
class ThreadPool {
   public:
    struct Counts {
        int calls = 0;         // in progress, of which some may wait for a thread
        int threads = 0;       // that calls hold
        int most_running = 0;  // greatest number of calls that held a thread at the same time
        int most_threads = 0;  // greatest number of threads that calls held at the same time
    };

    // The threads of one call, including the calling thread.
    class Call {
       public:
        // Waits until a thread is unused. `backoff` belongs to the caller's context.
        Call(ThreadPool& pool, Backoff& backoff) : pool_(pool), backoff_(backoff) {
            std::unique_lock<std::mutex> lock(pool_.mutex_);
            ++pool_.counts_.calls;
            pool_.wait_for_thread(*this, lock);
        }
        ~Call() {
            const std::lock_guard<std::mutex> lock(pool_.mutex_);
            stop_running();
            --pool_.counts_.calls;
        }
        Call(const Call&) = delete;
        Call& operator=(const Call&) = delete;

        // Prepares the threads of the next job: at most `wanted`, or `wanted_if_spinning` if the workers are awake. Waits if
        // it is the turn of other calls. Returns the number of threads that the job may be divided among; fewer may run it,
        // if the system does not start them.
        int prepare(int wanted, int wanted_if_spinning) {
            std::unique_lock<std::mutex> lock(pool_.mutex_);
            const auto now = Clock::now();
            processor_ = sched_getcpu();
            int share = pool_.share(now);
            give_back_workers(share - 1);
            if (pool_.first_waiting_ != nullptr && now - turn_began_ >= kTurn) {
                stop_running();
                pool_.wait_for_thread(*this, lock);
                share = pool_.share(turn_began_);
            }
            const int awake = std::min(share, wanted_if_spinning);
            const int goal = are_spinning(awake - 1) ? awake : std::min(share, wanted);
            const int granted = std::min(goal, size() + pool_.unused_.load(std::memory_order_relaxed));
            const int running = granted > 1 ? backoff_.limit(granted, now) : 1;
            give_back_workers(running - 1);
            while (size() < running && take_worker()) {
            }
            pool_.last_running_ = running;
            return running;
        }

        // Runs job(team) on the prepared threads, and returns when all have finished.
        void run(const Job& job) { run(job, false); }

        // The same for a job whose threads steal work of each other and do not wait for each other: it ends without threads
        // that have not begun when the calling thread has finished.
        void run_stealing(const Job& job) { run(job, true); }

        // True if the system did not start a thread.
        bool has_thread_shortage() const { return has_thread_shortage_; }

       private:
        friend class ThreadPool;

        void run(const Job& job, bool steals) {
            if (workers_.empty()) {
                Barrier barrier;
                return job(Team{0, 1, &barrier, nullptr});
            }
            const auto start = Clock::now();
            StolenTime stolen(start);
            const Job measured = [&](const Team& team) { stolen.run(job, team); };
            const bool is_measured = backoff_.measures_next_job();
            const Job& chosen = is_measured ? measured : job;
            TeamState& state = workers_.front()->team_state();
            Duration slept{};
            const uint32_t finished = state.finished.value();
            state.running.store(size() - 1, std::memory_order_relaxed);
            std::optional<Placement> placement;
            for (int index = 1; index < size(); ++index) {
                workers_[static_cast<size_t>(index - 1)]->start(chosen, Team{index, size(), &state.barrier, nullptr}, state,
                                                                placement);
            }
            chosen(Team{0, size(), &state.barrier, &slept});
            const auto waiting = Clock::now();
            if (steals) {
                int cancelled = 0;
                for (Worker* worker : workers_) cancelled += worker->cancel();
                if (cancelled > 0 && state.running.fetch_sub(cancelled, std::memory_order_acq_rel) == cancelled)
                    state.finished.advance();
            }
            slept += state.finished.wait(finished);
            const auto end = Clock::now();
            Backoff::Times times{end - start, end - waiting, slept, std::nullopt};
            if (is_measured) times.stolen = stolen.longest();
            if (steals) times.limit_to_waiting();
            backoff_.update(size(), times, end, pool_.yields_.load(std::memory_order_relaxed));
        }

        // A call that has run for this long lets waiting calls run, before its next job.
        static constexpr std::chrono::milliseconds kTurn{2};

        int size() const { return static_cast<int>(workers_.size()) + 1; }

        // Gives back all threads of the call, its own included.
        void stop_running() {
            auto& running = pool_.running_;
            running.erase(std::find(running.begin(), running.end(), this));
            give_back_workers(0);
            pool_.release(1);
        }

        void give_back_workers(int kept) {
            while (static_cast<int>(workers_.size()) > std::max(kept, 0)) {
                workers_.back()->set_held(false);
                pool_.idle_.push_back(workers_.back());
                workers_.pop_back();
                pool_.release(1);
            }
        }

        bool take_worker() {
            if (pool_.idle_.empty() && !pool_.start_worker()) {
                has_thread_shortage_ = true;
                return false;
            }
            workers_.reserve(static_cast<size_t>(pool_.threads_));
            workers_.push_back(pool_.idle_.back());
            pool_.idle_.pop_back();
            workers_.back()->set_held(true);
            pool_.take(1);
            return true;
        }

        // Returns true if `count` workers are held or idle, and none of them sleeps: starting a job on them costs little more
        // than a barrier.
        bool are_spinning(int count) const {
            const auto held = std::min<size_t>(static_cast<size_t>(std::max(count, 0)), workers_.size());
            const size_t idle = static_cast<size_t>(std::max(count, 0)) - held;
            const auto sleeps = [](const Worker* worker) { return worker->sleeps(); };
            return idle <= pool_.idle_.size() && !backoff_.is_active() &&
                   std::none_of(workers_.begin(), workers_.begin() + static_cast<std::ptrdiff_t>(held), sleeps) &&
                   std::none_of(pool_.idle_.rbegin(), pool_.idle_.rbegin() + static_cast<std::ptrdiff_t>(idle), sleeps);
        }

        ThreadPool& pool_;
        Backoff& backoff_;
        std::vector<Worker*> workers_;
        bool has_thread_shortage_ = false;
        Call* next_waiting_ = nullptr;
        bool is_granted_ = false;     // a thread, after waiting
        bool is_restricted_ = false;  // while it wakes, see `Placement`
        cpu_set_t affinity_;          // to restore, if restricted
        const pthread_t thread_ = pthread_self();
        int processor_ = -1;  // of the calling thread when its last job began
        std::condition_variable granted_;
        Clock::time_point turn_began_;
    };

    explicit ThreadPool(int threads) : threads_(threads), unused_(threads) {
        workers_.reserve(static_cast<size_t>(threads - 1));
        idle_.reserve(static_cast<size_t>(threads - 1));
        running_.reserve(static_cast<size_t>(threads));
    }
    // No call may be running.
    ~ThreadPool() {
        for (const auto& worker : workers_) worker->join();
    }
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    Counts counts() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return counts_;
    }

    // Makes calls yield processors to other threads sooner, because these do as useful work there, or not.
    void set_yields(bool yields) { yields_.store(yields, std::memory_order_relaxed); }

    // Wakes idle workers for a call that the calling thread is about to begin: as many as the last job had. While a call
    // runs, they are left to it.
    void wake() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (counts_.calls > 0) return;
        Placement placement;
        placement.use(sched_getcpu());
        const size_t count = std::min(static_cast<size_t>(std::max(last_running_ - 1, 0)), idle_.size());
        for (size_t index = 0; index < count; ++index) {
            Worker& worker = *idle_[idle_.size() - 1 - index];
            worker.wake(placement);
            placement.use(worker.last_processor());
        }
    }

   private:
    // Calls that ran within this time count as calls in progress: their callers are about to call again, and would wait for
    // threads that another call took meanwhile.
    static constexpr std::chrono::milliseconds kRecent{1};

    // All members but `unused_` and `yields_` are changed only by functions that hold `mutex_`.

    void take(int threads) {
        unused_.fetch_sub(threads, std::memory_order_relaxed);
        counts_.threads += threads;
        counts_.most_threads = std::max(counts_.most_threads, counts_.threads);
    }

    void release(int threads) {
        unused_.fetch_add(threads, std::memory_order_relaxed);
        counts_.threads -= threads;
        while (unused_.load(std::memory_order_relaxed) > 0 && first_waiting_ != nullptr) {
            Call& first = *std::exchange(first_waiting_, first_waiting_->next_waiting_);
            take(1);
            add_running(first);
            first.is_granted_ = true;
            first.granted_.notify_one();
        }
    }

    // Makes a waiting call one of the running ones, and excludes it from the processors of the others while it wakes. The
    // processor of the call that has just stopped is not excluded: it becomes idle.
    void add_running(Call& waiting) {
        Placement placement;
        for (const Call* call : running_) {
            placement.use(call->processor_);
            for (const Worker* worker : call->workers_) placement.use(worker->last_processor());
        }
        waiting.is_restricted_ = placement.restrict(waiting.thread_, waiting.affinity_);
        waiting.processor_ = -1;  // unknown until it wakes
        running_.push_back(&waiting);
    }

    // Takes the first thread of a call.
    void wait_for_thread(Call& call, std::unique_lock<std::mutex>& lock) {
        if (unused_.load(std::memory_order_relaxed) > 0) {
            take(1);
            running_.push_back(&call);
        } else {
            call.is_granted_ = false;
            call.next_waiting_ = nullptr;
            (first_waiting_ == nullptr ? first_waiting_ : last_waiting_->next_waiting_) = &call;
            last_waiting_ = &call;
            call.granted_.wait(lock, [&] { return call.is_granted_; });
            if (call.is_restricted_) pthread_setaffinity_np(call.thread_, sizeof call.affinity_, &call.affinity_);
        }
        counts_.most_running = std::max(counts_.most_running, static_cast<int>(running_.size()));
        call.processor_ = sched_getcpu();
        call.turn_began_ = Clock::now();
    }

    // Returns the number of threads that each call may use.
    int share(Clock::time_point now) {
        if (counts_.calls >= recent_calls_ || now - recent_time_ > kRecent) {
            recent_calls_ = counts_.calls;
            recent_time_ = now;
        }
        const int calls = std::max(counts_.calls, recent_calls_);
        return std::max(first_waiting_ == nullptr ? (threads_ + calls - 1) / calls : threads_ / calls, 1);
    }

    // Adds an idle worker; returns false if the system does not start it.
    bool start_worker() {
        try {
            workers_.push_back(std::make_unique<Worker>(unused_));
        } catch (const std::exception&) {  // the limit of threads, or out of memory
            return false;
        }
        idle_.push_back(workers_.back().get());
        return true;
    }

    const int threads_;
    alignas(64) std::atomic<int> unused_;  // threads that no call holds; idle workers read it while they spin
    std::atomic<bool> yields_{false};
    alignas(64) std::mutex mutex_;
    Counts counts_;
    std::vector<Call*> running_;                               // calls that hold a thread
    Call *first_waiting_ = nullptr, *last_waiting_ = nullptr;  // linked in the order of their arrival
    std::vector<Worker*> idle_;                                // the last is taken first
    int last_running_ = 0;                                     // threads of the last job
    int recent_calls_ = 0;                                     // see `kRecent`
    Clock::time_point recent_time_;
    std::vector<std::unique_ptr<Worker>> workers_;
};

// Teams of fewer threads where other programs or threads use the processors.
#pragma once

#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>

#include "team.h"

constexpr std::chrono::microseconds kWakeLatency{300};  // at most, of a sleeping thread

// Longest time during which a thread of a team could have run and did not, because another thread used its processor.
class StolenTime {
   public:
    explicit StolenTime(Clock::time_point start) : start_(start) {}

    // Runs job(team), and measures the calling thread.
    void run(const Job& job, const Team& team) {
        Duration slept{};
        Team own = team;
        own.slept = &slept;
        const auto begin = Clock::now();
        const Duration used = processor_time();
        job(own);
        const Duration off = (Clock::now() - begin) - (processor_time() - used) - slept;
        // A sleeping thread begins late too, but within the time that it takes to wake.
        add(off + std::max(begin - start_ - kWakeLatency, Duration{}));
        if (team.slept != nullptr) *team.slept += slept;
    }

    Duration longest() const { return Duration(longest_.load(std::memory_order_relaxed)); }

   private:
    static Duration processor_time() {
        timespec time{};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
    }

    void add(Duration stolen) {
        Duration::rep longest = longest_.load(std::memory_order_relaxed);
        while (stolen.count() > longest &&
               !longest_.compare_exchange_weak(longest, stolen.count(), std::memory_order_relaxed)) {
        }
    }

    const Clock::time_point start_;  // of the job
    std::atomic<Duration::rep> longest_{0};
};

// Leaves processors to the other threads that use them, such as the event loop of a server.
//
// A team is as slow as its slowest thread, so one contested processor delays all its threads. A thread less costs a team of
// `n` threads 1 / n of its work, so a small team stands more contention, unless the others have work to do on the processor
// that is worth as much. After contested jobs the next ones run on one thread fewer, or on the calling thread alone if it
// slept for more than half of a job; then one job tries one thread more. The period until then doubles if that job is
// contested too, and halves if it is not and contention has been low on average. A trial comes `kMaxPause` after the last one
// at the latest.
//
// The time that threads were kept from running is measured only after jobs at whose end the calling thread waited for the
// others, because it costs system calls; the others may just have had more rows.
class Backoff {
   public:
    // Times of a job of a team: its duration, how long the calling thread waited for the others at the end, how long it
    // slept, and the longest stolen time of a thread if it was measured.
    struct Times {
        Duration elapsed, waited, slept;
        std::optional<Duration> stolen;

        // Of a job whose threads steal work of each other: a thread that is kept from running costs no more than the calling
        // thread has waited for it.
        void limit_to_waiting() {
            slept = Duration{};
            if (stolen) stolen = std::min(*stolen, waited);
        }
    };

    // Share of the time that a team stands to be kept from running; `is_eager` if the others do as useful work.
    static double tolerance(int threads, bool is_eager) {
        return is_eager ? kContested : std::max(kContested, kTeamContested / threads);
    }

    // Returns how many of `granted` threads, at least two, run the next job, which begins now; counts that job.
    int limit(int granted, Clock::time_point now) {
        is_trial_ = withheld_ > 0 && (left_ == 0 || now >= latest_trial_);
        if (left_ > 0) --left_;
        return std::max(granted - withheld_, 1) + is_trial_;
    }

    bool is_active() const { return withheld_ > 0; }
    bool measures_next_job() const { return to_measure_ > 0 || is_active(); }

    void update(int threads, const Times& job, Clock::time_point now, bool is_eager = false) {
        const double contested = tolerance(threads, is_eager);
        const bool is_asleep = job.slept > kWakeLatency && 2 * job.slept > job.elapsed;
        const double stolen = job.stolen ? std::min(share(*job.stolen, job.elapsed), 1.0) : 0.0;
        if (job.stolen) {
            const double weight = kWeight * std::min(share(job.elapsed, kFullWeight), 1.0);
            contention_ += std::max(weight, std::min(share(job.elapsed, kLong), 0.5)) * (stolen - contention_);
        }
        to_measure_ = share(job.waited, job.elapsed) > kSuspicious ? kJobs : std::max(to_measure_ - 1, 0);
        since_reduction_ = std::min(since_reduction_ + 1, kJobs);
        if (is_trial_) {
            if (is_asleep || stolen > contested) {
                period_ = std::min(2 * period_, kMaxPeriod);
            } else if (contention_ <= contested) {
                --withheld_;
                period_ /= 2;
            }
            left_ = is_active() ? period_ : 0;
            latest_trial_ = now + kMaxPause;
        } else if (is_asleep || (contention_ > contested && since_reduction_ == kJobs)) {
            withheld_ += is_asleep ? threads - 1 : 1;
            left_ = period_ = std::clamp(2 * period_, 1, kMaxPeriod);
            latest_trial_ = now + kMaxPause;
            since_reduction_ = 0;
        }
    }

   private:
    static constexpr int kMaxPeriod = 64;  // jobs
    static constexpr int kJobs = 8;        // measured after a suspicious job, and run between two reductions
    // Shares of a job's duration: that the calling thread waited, and that a thread was kept from running.
    static constexpr double kSuspicious = 0.1, kContested = 0.15;
    static constexpr double kTeamContested = 0.6;  // over the number of threads; with 1, a thread less would cost as much
    static constexpr double kWeight = 0.1;         // of a job in `contention_`, if it is not shorter than
    static constexpr std::chrono::microseconds kFullWeight{200};  // this

    static constexpr std::chrono::milliseconds kLong{20};      // a longer job has a weight in proportion to this, at most 0.5
    static constexpr std::chrono::milliseconds kMaxPause{20};  // between two trials

    static double share(Duration part, Duration whole) {
        return static_cast<double>(part.count()) / static_cast<double>(std::max<Duration::rep>(whole.count(), 1));
    }

    Clock::time_point latest_trial_;                // at which the next trial is due
    int withheld_ = 0;                              // threads that jobs do not use
    int left_ = 0, period_ = 0;                     // jobs until the next trial
    bool is_trial_ = false;                         // the job uses one thread more
    int to_measure_ = 0, since_reduction_ = kJobs;  // jobs
    double contention_ = 0.0;                       // moving average of the stolen shares
};

// Simulates jobs of teams whose threads are, or are not, kept from running, and checks how many threads run them.
#include "backoff.h"

#include <cstdio>

namespace {

using std::chrono::microseconds;

int failures = 0;

void check(bool is_true, const char* description) {
    if (is_true) return;
    std::printf("FAIL %s\n", description);
    ++failures;
}

// A machine on which one thread more than `uncontested` loses a part of its time to others.
class Machine {
   public:
    explicit Machine(int threads, microseconds stolen = microseconds(200), bool is_eager = false)
        : uncontested(threads), threads_(threads), stolen_(stolen), is_eager_(is_eager) {}

    // Runs jobs of 400 microseconds at whose end the calling thread waits for `waited`; returns the mean number of threads.
    double run(int jobs, microseconds waited = microseconds(80)) {
        int total = 0;
        for (int job = 0; job < jobs; ++job) {
            const int threads = backoff.limit(threads_, now);
            total += threads;
            now += microseconds(400);
            check(1 <= threads && threads <= threads_, "the number of threads is in range");
            if (threads == 1) continue;
            const bool is_contested = threads > uncontested;
            std::optional<Duration> stolen;
            if (backoff.measures_next_job()) stolen = is_contested ? stolen_ : microseconds(2);
            backoff.update(threads, {microseconds(400), is_contested ? stolen_ : waited, microseconds(0), stolen}, now,
                           is_eager_);
        }
        return static_cast<double>(total) / jobs;
    }

    // Runs jobs whose threads steal work of each other; in 40 of 200, one of two threads is kept from running and waited
    // for. Returns the mean number of threads.
    double run_bursts(int jobs, Duration elapsed) {
        int total = 0;
        for (int job = 0; job < jobs; ++job) {
            const int threads = backoff.limit(2, now);
            total += threads;
            now += elapsed;
            if (threads == 1) continue;
            const bool is_contested = job % 200 < 40;
            Backoff::Times times{elapsed, is_contested ? elapsed / 2 : microseconds(0),
                                 is_contested ? elapsed / 2 : microseconds(0), std::nullopt};
            if (backoff.measures_next_job()) times.stolen = times.waited;
            times.limit_to_waiting();
            backoff.update(threads, times, now);
        }
        return static_cast<double>(total) / jobs;
    }

    int uncontested;
    Clock::time_point now;
    Backoff backoff;

   private:
    const int threads_;
    const microseconds stolen_;  // of 400
    const bool is_eager_;
};

void run_all() {
    {
        Machine machine(2);
        check(machine.run(1000) == 2.0, "waiting for rows reduces nothing");
        check(machine.run(1000, microseconds(0)) == 2.0 && !machine.backoff.measures_next_job(),
              "jobs without waiting are not measured");
        machine.uncontested = 1;
        machine.run(1);
        machine.uncontested = 2;
        check(machine.run(200) == 2.0, "a single contested job reduces nothing");
        machine.uncontested = 1;
        machine.run(300);
        check(machine.run(1000) < 1.05, "a contested team of two becomes one thread");
        machine.uncontested = 2;
        machine.run(1000);
        check(machine.run(1000) == 2.0, "it becomes a team again");
    }
    {
        Machine machine(8);
        machine.uncontested = 7;
        machine.run(300);
        const double threads = machine.run(1000);
        check(6.9 < threads && threads < 7.1, "one contested processor of eight costs one thread");
        machine.uncontested = 4;
        machine.run(1000);
        const double fewer = machine.run(1000);
        check(3.8 < fewer && fewer < 4.2, "four contested processors of eight cost four threads");
        machine.uncontested = 8;
        machine.run(1000);
        check(machine.run(1000) == 8.0, "all are used again");
    }
    {
        Machine team(2, microseconds(100)), eager(2, microseconds(100), true), large(8, microseconds(100));
        for (Machine* machine : {&team, &eager, &large}) {
            machine->uncontested = machine == &large ? 7 : 1;
            machine->run(300);
        }
        check(team.run(1000) == 2.0, "a team of two stands to lose a quarter of its time: one thread would lose half");
        check(eager.run(1000) < 1.05, "unless the others do as useful work");
        const double threads = large.run(1000);
        check(6.9 < threads && threads < 7.1, "a team of eight does not: seven threads lose an eighth");
    }
    {
        Backoff backoff;
        const Clock::time_point now;
        backoff.update(8, {microseconds(4000), microseconds(3000), microseconds(3000), std::nullopt}, now);
        check(backoff.limit(8, now) == 1, "after a job that slept for the most part the calling thread runs alone");
        check(backoff.limit(8, now) == 2, "then a job tries one thread more");
        Machine machine(2);  // later jobs that want fewer threads
        machine.backoff = backoff;
        machine.run(100);
        check(machine.run(100) == 2.0, "fewer threads are tried one by one too");
    }
    {
        Backoff::Times times{microseconds(1000), microseconds(100), microseconds(700), microseconds(600)};
        times.limit_to_waiting();
        check(times.stolen == Duration(microseconds(100)) && times.slept == Duration{},
              "where threads steal work, no more is lost than the calling thread waited");
        Machine machine(2);
        machine.uncontested = 1;
        machine.run(1000);
        machine.backoff.limit(2, machine.now);
        check(machine.backoff.limit(2, machine.now + std::chrono::milliseconds(21)) == 2, "a trial comes after 20 ms");
        Machine bursts(2);
        check(bursts.run_bursts(4000, std::chrono::milliseconds(5)) > 1.74,
              "long jobs use both threads again soon after a burst");
    }
}

}  // namespace

int main() {
    run_all();
    return failures > 0;
}

// On which processors the workers of a team wake.
#pragma once

#include <pthread.h>
#include <sched.h>

// Wakes workers apart from the threads of their team that run already.
//
// The scheduler of Linux may wake a worker on the processor of the thread that wakes it, although another one is idle, above
// all if the worker ran there before. The two then take turns until the load is balanced, some milliseconds later. So a
// sleeping worker is kept from the processors in use for as long as it wakes, and may run anywhere again once it does. A
// system that refuses this leaves workers where they are.
class Placement {
   public:
    // For a team of the calling thread.
    Placement() {
        CPU_ZERO(&allowed_);
        sched_getaffinity(0, sizeof allowed_, &allowed_);
        free_ = allowed_;
        use(sched_getcpu());
    }

    // Takes `processor` for a thread of the team.
    void use(int processor) {
        if (0 <= processor && processor < CPU_SETSIZE) CPU_CLR(processor, &free_);
    }

    // Keeps a thread that sleeps, and ran on `processor` last, from the processors in use. True if it must `release` itself.
    bool restrict(pthread_t thread, int processor) {
        if (CPU_COUNT(&free_) == 0 || pthread_setaffinity_np(thread, sizeof free_, &free_) != 0) return false;
        use(processor);
        return true;
    }

    // Lets the calling thread run wherever the caller of its team may.
    void release() const { pthread_setaffinity_np(pthread_self(), sizeof allowed_, &allowed_); }

   private:
    cpu_set_t allowed_, free_;  // empty if the system does not tell
};

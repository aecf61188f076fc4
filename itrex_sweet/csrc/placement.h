// On which processors the workers of a team wake.
#pragma once

#include <pthread.h>
#include <sched.h>

// Wakes workers apart from the threads of their team that run already.
//
// The scheduler of Linux may wake a worker on the processor of the thread that wakes it, although another one is idle, above
// all if the worker ran there before. The two then take turns until the load is balanced, some milliseconds later. So a
// sleeping worker is kept from the processors in use for as long as it wakes, and may run again wherever it might before
// once it does. A system that refuses this leaves workers where they are.
class Placement {
   public:
    // For a team of the calling thread.
    Placement() {
        CPU_ZERO(&used_);
        use(sched_getcpu());
    }

    // Keeps a thread that sleeps, and ran on `last_processor`, from the processors in use. True if it must be given its
    // `affinity` again.
    bool restrict(pthread_t thread, int last_processor, cpu_set_t& affinity) {
        if (pthread_getaffinity_np(thread, sizeof affinity, &affinity) != 0) return false;
        cpu_set_t free = affinity;
        CPU_AND(&free, &free, &used_);
        CPU_XOR(&free, &free, &affinity);
        if (CPU_COUNT(&free) == 0 || pthread_setaffinity_np(thread, sizeof free, &free) != 0) return false;
        use(last_processor);
        return true;
    }

   private:
    void use(int processor) {
        if (0 <= processor && processor < CPU_SETSIZE) CPU_SET(processor, &used_);
    }

    cpu_set_t used_;
};

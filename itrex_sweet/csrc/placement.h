// Processor affinity of workers while they wake.
#pragma once

#include <pthread.h>
#include <sched.h>

// Wakes workers on other processors than those that their team already uses.
//
// The Linux scheduler may wake a worker on the processor of the waking thread although another one is idle, in particular
// if the worker ran there before; the two then share it until the load is balanced, some milliseconds later. A sleeping
// worker is therefore excluded from the processors in use until it has woken, and then gets its affinity back. If the system
// refuses, the affinity stays as it is.
class Placement {
   public:
    // For a team of the calling thread.
    Placement() {
        CPU_ZERO(&used_);
        use(sched_getcpu());
    }

    // Excludes a sleeping thread, which last ran on `last_processor`, from the processors in use. Returns true if
    // `affinity`, the thread's affinity before, must be restored.
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

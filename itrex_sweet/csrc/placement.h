// Processor affinity of threads while they wake.
#pragma once

#include <pthread.h>
#include <sched.h>

// Wakes threads on other processors than those in use.
//
// The Linux scheduler may wake a thread on a processor that another one uses although a third is idle or becomes so, in
// particular if the thread ran there before; the two then share it until the load is balanced, some milliseconds later. A
// sleeping thread is therefore excluded from the processors in use until it has woken, and then gets its affinity back. If
// the system refuses, the affinity stays as it is.
class Placement {
   public:
    Placement() { CPU_ZERO(&used_); }

    void use(int processor) {
        if (0 <= processor && processor < CPU_SETSIZE) CPU_SET(processor, &used_);
    }

    // Excludes a sleeping thread from the processors in use. Returns true if `affinity`, the thread's affinity before, must
    // be restored.
    bool restrict(pthread_t thread, cpu_set_t& affinity) const {
        if (pthread_getaffinity_np(thread, sizeof affinity, &affinity) != 0) return false;
        cpu_set_t free = affinity;
        CPU_AND(&free, &free, &used_);
        CPU_XOR(&free, &free, &affinity);
        if (CPU_COUNT(&free) == 0 || pthread_setaffinity_np(thread, sizeof free, &free) != 0) return false;
        return true;
    }

   private:
    cpu_set_t used_;
};

// State that a process does not share with the child that it forks.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>

// Counts the forks between the process that loaded this library and the present one. Constant within a process: a child
// counts before it has a second thread.
class ForkCount {
   public:
    static uint32_t now() { return count_.load(std::memory_order_relaxed); }
    // Held while a value is made for this process.
    static std::mutex& making() { return making_; }
    // False where a fork would pass unnoticed.
    static bool is_kept() { return is_kept_; }

   private:
    static void in_child() {
        new (&making_) std::mutex;  // the thread that held it may not exist here
        count_.fetch_add(1, std::memory_order_relaxed);
    }

    static inline std::atomic<uint32_t> count_{0};
    static inline std::mutex making_;
    static inline const bool is_kept_ = pthread_atfork(nullptr, nullptr, in_child) == 0;
};

// A value that each process makes for itself. Another thread may have been changing the parent's at the moment of the
// fork, and the threads that it names are not in the child: the child makes a new one and leaves the other untouched.
template <class Value>
class PerProcess {
   public:
    explicit PerProcess(std::unique_ptr<Value> first) : value_(first.release()), made_in_(ForkCount::now()) {
        if (ForkCount::is_kept()) return;
        delete value_.load();
        throw std::runtime_error("pthread_atfork failed");
    }
    ~PerProcess() {
        if (made_in_.load() == ForkCount::now()) delete value_.load();
    }
    PerProcess(const PerProcess&) = delete;
    PerProcess& operator=(const PerProcess&) = delete;

    // This process's value; make() returns a new one as a `unique_ptr`.
    template <class Make>
    Value& get(Make make) const {
        if (made_in_.load(std::memory_order_acquire) != ForkCount::now()) {
            const std::lock_guard<std::mutex> guard(ForkCount::making());
            if (made_in_.load(std::memory_order_relaxed) != ForkCount::now()) {
                value_.store(make().release(), std::memory_order_relaxed);
                made_in_.store(ForkCount::now(), std::memory_order_release);
            }
        }
        return *value_.load(std::memory_order_relaxed);
    }

   private:
    mutable std::atomic<Value*> value_;
    mutable std::atomic<uint32_t> made_in_;
};

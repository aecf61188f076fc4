// State that a forked child does not share with its parent.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>

// Number of forks between the process that loaded this library and the current one. Constant within a process: a child
// increments it before it has a second thread.
class ForkCount {
   public:
    static uint32_t current() { return count_.load(std::memory_order_relaxed); }
    // Serializes the initialization of values of this process.
    static std::mutex& init_mutex() { return init_mutex_; }
    // False if the fork handler could not be registered, so that forks are not counted.
    static bool is_registered() { return is_registered_; }

   private:
    static void in_child() {
        new (&init_mutex_) std::mutex;  // the thread that held it may not exist in the child
        count_.fetch_add(1, std::memory_order_relaxed);
    }

    static inline std::atomic<uint32_t> count_{0};
    static inline std::mutex init_mutex_;
    static inline const bool is_registered_ = pthread_atfork(nullptr, nullptr, in_child) == 0;
};

// A value that is initialized once per process. At a fork, another thread may have been changing the parent's value, and
// the threads that it refers to do not exist in the child: the child creates a new value and leaks the copy of the old one.
template <class Value>
class PerProcess {
   public:
    explicit PerProcess(std::unique_ptr<Value> initial) : value_(initial.release()), fork_count_(ForkCount::current()) {
        if (ForkCount::is_registered()) return;
        delete value_.load();
        throw std::runtime_error("pthread_atfork failed");
    }
    ~PerProcess() {
        if (fork_count_.load() == ForkCount::current()) delete value_.load();
    }
    PerProcess(const PerProcess&) = delete;
    PerProcess& operator=(const PerProcess&) = delete;

    // Returns the value of this process; make() returns a new one as a `unique_ptr`.
    template <class Make>
    Value& get(Make make) const {
        if (fork_count_.load(std::memory_order_acquire) != ForkCount::current()) {
            const std::lock_guard<std::mutex> guard(ForkCount::init_mutex());
            if (fork_count_.load(std::memory_order_relaxed) != ForkCount::current()) {
                value_.store(make().release(), std::memory_order_relaxed);
                fork_count_.store(ForkCount::current(), std::memory_order_release);
            }
        }
        return *value_.load(std::memory_order_relaxed);
    }

   private:
    mutable std::atomic<Value*> value_;
    mutable std::atomic<uint32_t> fork_count_;
};

// Work on all threads of a pool.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

// Threads that may run a function at any later time, or never.
struct Pool {
  int64_t threads;  // that can run at the same time, with the caller
  std::function<void(std::function<void()>)> schedule;
};

// Calls f(begin, end) on ranges that cover 0..n, on all threads of a pool. The caller works too, and waits only for
// threads that have taken a range, so it does not matter when, or whether, the pool gets round to it.
template <typename F>
void Parallel(const Pool& pool, int64_t n, int64_t grain, const F& f) {
  const int64_t threads = std::min<int64_t>(pool.threads, (n + grain - 1) / grain);
  if (threads <= 1) return f(0, n);
  struct Shared {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto shared = std::make_shared<Shared>();
  auto work = [shared, n, grain, &f] {
    int64_t done = 0;
    for (int64_t begin; (begin = shared->next.fetch_add(grain)) < n;) {
      const int64_t end = std::min(n, begin + grain);
      f(begin, end);
      done += end - begin;
    }
    if (done == 0) return;  // f may no longer exist
    std::lock_guard<std::mutex> lock(shared->mutex);
    if ((shared->done += done) == n) shared->finished.notify_all();
  };
  for (int64_t t = 1; t < threads; ++t) pool.schedule(work);
  work();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == n; });
}

// A processor that waits for another one.
inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Calls f(step, task) for the tasks 0..tasks of each of `steps` steps, on all threads of a pool; a step begins when all tasks of the one
// before have ended. A thread takes first the tasks that it took before, whose data are in its cache. As in Parallel, threads that the
// pool starts late, or never, are not waited for. Waiting threads look all the time, as a step takes microseconds, and after a while
// let other threads run.
template <typename F>
void InSteps(const Pool& pool, int64_t steps, int64_t tasks, const F& f) {
  const int64_t threads = std::min(pool.threads, tasks);
  if (threads <= 1) {
    for (int64_t step = 0; step < steps; ++step)
      for (int64_t task = 0; task < tasks; ++task) f(step, task);
    return;
  }
  struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
  };
  struct Shared {
    std::vector<Counter> taken;  // steps of each task that a thread has taken
    Counter done;                // tasks of all steps that have ended
    explicit Shared(int64_t tasks) : taken(tasks) {}
  };
  auto shared = std::make_shared<Shared>(tasks);
  auto work = [shared, steps, tasks, threads, &f](int64_t thread) {  // f may no longer exist when all tasks are taken
    const int64_t first = thread * tasks / threads;
    std::atomic<int64_t>& done = shared->done.value;
    for (int64_t step = done.load(std::memory_order_acquire) / tasks; step < steps; ++step) {
      for (int64_t t = 0; t < tasks; ++t) {
        const int64_t task = first + t < tasks ? first + t : first + t - tasks;
        std::atomic<int64_t>& taken = shared->taken[task].value;
        int64_t before = step;
        if (taken.load(std::memory_order_relaxed) != step || !taken.compare_exchange_strong(before, step + 1)) continue;
        f(step, task);
        done.fetch_add(1, std::memory_order_acq_rel);
      }
      for (int looks = 1; done.load(std::memory_order_acquire) < (step + 1) * tasks; ++looks)
        if (looks % 2048) Pause();
        else std::this_thread::yield();
    }
  };
  for (int64_t t = 1; t < threads; ++t) pool.schedule([work, t] { work(t); });
  work(0);
}

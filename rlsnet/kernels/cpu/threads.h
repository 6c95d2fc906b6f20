// Work on all threads of a pool.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

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

// How a torch-free engine borrows the caller's threads.
#pragma once

#include <atomic>
#include <cstdint>

namespace mxd {

// Runs `worker(context)` on up to `threads` threads at once and returns when all have. What a
// worker does never depends on how many there are, so results do not either.
class Threads {
 public:
  virtual ~Threads() = default;
  virtual int count() const = 0;
  virtual void run(int workers, void (*worker)(void*), void* context) const = 0;
};

// At most so many of another's threads.
class FewerThreads : public Threads {
 public:
  FewerThreads(const Threads& threads, int64_t most) : threads_(threads), most_(most) {}
  int count() const override { return int(most_ < threads_.count() ? most_ : threads_.count()); }
  void run(int workers, void (*worker)(void*), void* context) const override {
    threads_.run(workers, worker, context);
  }

 private:
  const Threads& threads_;
  const int64_t most_;
};

// Hands out jobs 0 .. jobs-1 to the workers, each worker made once by `make_worker()` (so that it
// can own scratch memory) and called with one job after another.
template <class MakeWorker>
void for_each_job(const Threads& threads, int64_t jobs, const MakeWorker& make_worker) {
  struct Context {
    std::atomic<int64_t> next{0};
    int64_t jobs;
    const MakeWorker* make_worker;
  };
  if (jobs <= 0) return;
  Context context{{0}, jobs, &make_worker};
  const int workers = int(jobs < threads.count() ? jobs : threads.count());
  const auto work = [](void* opaque) {
    auto& shared = *static_cast<Context*>(opaque);
    int64_t job = shared.next.fetch_add(1, std::memory_order_relaxed);
    if (job >= shared.jobs) return;
    auto worker = (*shared.make_worker)();
    for (; job < shared.jobs; job = shared.next.fetch_add(1, std::memory_order_relaxed)) {
      worker(job);
    }
  };
  if (workers == 1) {
    work(&context);  // without the cost of asking for a thread
  } else {
    threads.run(workers, work, &context);
  }
}

}  // namespace mxd

#include "ops/at_threads.h"

#include <ATen/Parallel.h>
#include <pthread.h>

#include <atomic>
#include <exception>

// The entry of the OpenMP runtime that torch has loaded (libgomp, or LLVM's and Intel's, which have
// it for compatibility). at::parallel_for would do, were it not inline: compiled without -fopenmp
// it runs on one thread, and with it, links a second runtime with threads of its own. Weak: absent
// where torch was built without OpenMP.
extern "C" __attribute__((weak, visibility("default"))) void GOMP_parallel(void (*function)(void*),
                                                                           void* data,
                                                                           unsigned threads,
                                                                           unsigned flags);

namespace mxd::ops {
namespace {

// Multiply-adds that one thread does in the time that it takes to wake another: some 20 us.
constexpr double kLeastProducts = 1 << 20;

// Whether the process is a fork. The threads that libgomp kept for its parent are gone, but libgomp
// would wait for them forever. Set once, by the child itself, before it has other threads.
std::atomic<bool> g_forked{false};

[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { g_forked = true; });

// What the threads of one run share.
struct Team {
  void (*worker)(void*);
  void* context;
  int workers;
  std::atomic<int> started{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;  // of the first that failed

  // Run by every thread of the team; those beyond `workers` have nothing to do.
  void join() {
    if (started.fetch_add(1, std::memory_order_relaxed) >= workers) return;
    try {
      worker(context);
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
    }
  }
};

}  // namespace

AtThreads::AtThreads(double products)
    : count_(products < kLeastProducts || g_forked.load(std::memory_order_relaxed) ||
                     at::in_parallel_region()
                 ? 1
                 : at::get_num_threads()) {}

void AtThreads::run(int workers, void (*worker)(void*), void* context) const {
  if (!GOMP_parallel) {
    at::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) worker(context);
    });
    return;
  }
  Team team{worker, context, workers};
  // 0: as many threads as torch has told the runtime. Asking for another number would make libgomp
  // end some of its threads and start them again at the next call.
  GOMP_parallel([](void* data) { static_cast<Team*>(data)->join(); }, &team, 0, 0);
  if (team.error) std::rethrow_exception(team.error);
}

}  // namespace mxd::ops

// Torch's threads, lent to the engine.
#pragma once

#include "core/parallel.h"

namespace mxd::ops {

// As many as torch.set_num_threads() says, but one for a call of few multiply-adds, inside a
// parallel region, and on a thread that has come through a fork.
class AtThreads final : public Threads {
 public:
  explicit AtThreads(double products);
  int count() const override { return count_; }
  void run(int workers, void (*worker)(void*), void* context) const override;

 private:
  const int count_;
};

}  // namespace mxd::ops

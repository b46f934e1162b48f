// Threads of the standard library, any number of them, however many cores there are.
#pragma once

#include <thread>
#include <vector>

#include "core/parallel.h"

namespace mxd::test {

class StdThreads : public Threads {
 public:
  explicit StdThreads(int count) : count_(count) {}
  int count() const override { return count_; }
  void run(int workers, void (*worker)(void*), void* context) const override {
    std::vector<std::thread> others;
    for (int i = 1; i < workers; ++i) others.emplace_back(worker, context);
    worker(context);
    for (std::thread& other : others) other.join();
  }

 private:
  int count_;
};

}  // namespace mxd::test

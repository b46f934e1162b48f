// Threads of control that take turns: each runs until it gives way.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace mxd::cuda::emulator {

// The fibers of one thread block. Their stacks are kept from one block to the next.
class Fibers {
 public:
  Fibers();
  ~Fibers();
  // Prepares `count` fibers to call body(index).
  void start(int count, std::function<void(int)> body);
  // Runs a fiber until it gives way or ends; whether it has ended.
  bool resume(int index);
  // Called by the fiber that runs.
  void give_way();

 private:
  struct Fiber;
  static void enter();
  void leave(bool for_good);

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::unique_ptr<Fiber> main_;
  std::function<void(int)> body_;
  int current_ = -1;
};

}  // namespace mxd::cuda::emulator

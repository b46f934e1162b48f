// Temporary memory of one worker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "core/huge_pages.h"

namespace mxd::cpu {

constexpr int64_t kAlignment = 64;  // one cache line, one AVX-512 vector

constexpr int64_t align_up(int64_t bytes) { return (bytes + kAlignment - 1) & -kAlignment; }

// Fills fresh scratch with NaN, so that a read before a write shows in the result. For tests.
bool poison_scratch();
void set_poison_scratch(bool poison);

class Scratch {
 public:
  explicit Scratch(int64_t bytes)
      : data_(static_cast<char*>(::operator new (size_t(bytes), std::align_val_t{kAlignment}))) {
    ask_for_huge_pages(data_, size_t(bytes));
    if (poison_scratch()) {
      for (int64_t i = 0; i < bytes; ++i) data_[i] = char(0xff);
    }
  }
  ~Scratch() { ::operator delete (data_, std::align_val_t{kAlignment}); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // The next `count` elements, aligned; the caller has sized the scratch for all that it takes.
  template <class T>
  T* take(int64_t count) {
    T* taken = reinterpret_cast<T*>(data_ + used_);
    used_ += align_up(count * int64_t(sizeof(T)));
    return taken;
  }

 private:
  char* data_;
  int64_t used_ = 0;
};

}  // namespace mxd::cpu

// Weights in the forms that algorithms read, kept from one call to the next for a caller who has
// said that they will not change.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "cpu/scratch.h"

namespace mxd::cpu {

class PreparedWeights {
 public:
  // Everything that the form depends on, but for the values of the weights.
  using Key = std::vector<int64_t>;

  struct Form {
    Form(Key key_, int64_t bytes_) : key(std::move(key_)), bytes(bytes_), memory(bytes_) {}
    const Key key;
    const int64_t bytes;
    Scratch memory;
    char* start = memory.take<char>(bytes);
    uint32_t summary = 0;  // what `prepare` returned
  };
  using Prepare = std::function<uint32_t(char* memory)>;

  // Keeps at most so many bytes: forms that were not used for longest make way for new ones.
  explicit PreparedWeights(int64_t most_bytes) : most_bytes_(most_bytes) {}

  // The form with this key, filled by `prepare` if there is none. One thread of the
  // process at a time prepares.
  std::shared_ptr<const Form> get(const Key& key, int64_t bytes, const Prepare& prepare);

  int64_t bytes() const;

 private:
  const int64_t most_bytes_;
  std::list<std::shared_ptr<const Form>> forms_;  // the one used last in front
  int64_t bytes_ = 0;
};

}  // namespace mxd::cpu

#include "cpu/prepared_weights.h"

#include <algorithm>

namespace mxd::cpu {

std::shared_ptr<const PreparedWeights::Form> PreparedWeights::get(const Key& key, int64_t bytes,
                                                                  const Prepare& prepare) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = std::find_if(forms_.begin(), forms_.end(),
                                  [&](const auto& form) { return form->key == key; });
  if (found != forms_.end()) {
    forms_.splice(forms_.begin(), forms_, found);
    return forms_.front();
  }
  const auto form = std::make_shared<Form>(key, bytes);
  form->summary = prepare(form->start);
  forms_.push_front(form);
  bytes_ += bytes;
  while (bytes_ > most_bytes_) {  // a caller that still reads one of them keeps it alive
    bytes_ -= forms_.back()->bytes;
    forms_.pop_back();
  }
  return form;
}

int64_t PreparedWeights::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return bytes_;
}

}  // namespace mxd::cpu

#include "cpu/prepared_weights.h"

#include <pthread.h>

#include <algorithm>
#include <mutex>

namespace mxd::cpu {
namespace {

// One for all, so that a fork can wait until nobody holds it: in the child, a thread that did would
// never let go.
std::mutex g_mutex;

[[maybe_unused]] const int registered =
    pthread_atfork([] { g_mutex.lock(); }, [] { g_mutex.unlock(); }, [] { g_mutex.unlock(); });

}  // namespace

std::shared_ptr<const PreparedWeights::Form> PreparedWeights::get(const Key& key, int64_t bytes,
                                                                  const Prepare& prepare) {
  const std::lock_guard<std::mutex> lock(g_mutex);
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
  const std::lock_guard<std::mutex> lock(g_mutex);
  return bytes_;
}

}  // namespace mxd::cpu

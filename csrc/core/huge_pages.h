// Fresh memory in huge pages, where the system gives them to who asks (Linux).
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mxd {

// Says that all of this memory is about to be written. A page fault for every 4 KiB of it would
// take longer than a memory-bound pass. Asks only for huge pages that lie within it whole, so that
// it takes no more memory; where there are none, nothing happens.
inline void ask_for_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kPage = uintptr_t(2) << 20;
  const auto start = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (start + kPage - 1) & -kPage;
  const uintptr_t end = (start + bytes) & -kPage;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

}  // namespace mxd

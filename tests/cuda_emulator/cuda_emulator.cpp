#include "cuda_emulator.h"

#include <algorithm>
#include <memory>

#include "element.h"
#include "fiber.h"

namespace mxd::cuda::emulator {
namespace {

constexpr size_t kMostShared = 227 * 1024;  // of a block, on the largest devices

std::string g_failure;
std::vector<Range> g_ranges;
int64_t g_most_blocks = int64_t(1) << 30;

enum class State { kRunning, kBarrier, kExchange, kEnded };

struct Thread {
  State state = State::kRunning;
  bool vote = false;
  int exchanges = 0;
};

// Who touched a byte of shared memory, in which interval between barriers.
struct Touch {
  uint32_t written = 0, read = 0;  // interval
  int16_t writer = 0, reader = 0;
};
constexpr int16_t kSeveral = -1;

class Block {
 public:
  Block() : memory_(new unsigned char[kMostShared + 128]), touches_(kMostShared) {}

  void run(int threads, size_t shared_bytes, void (*body)(const void*, void*), const void* params) {
    shared_ = memory_.get();
    shared_ += (128 - reinterpret_cast<uintptr_t>(shared_) % 128) % 128;
    shared_bytes_ = shared_bytes;
    MXD_EXPECT(shared_bytes <= kMostShared);
    std::memset(shared_, 0xff, shared_bytes);
    exchanged_.resize(size_t(threads) * 2 * kMostExchanged);
    threads_.assign(size_t(threads), Thread{});
    ++interval_;
    fibers_.start(threads, [=](int) { body(params, shared_); });
    while (round()) {
    }
  }

  Position position;

  bool barrier(bool mine) {
    Thread& me = threads_[size_t(position.thread)];
    me.vote = mine;
    pause(State::kBarrier);
    return vote_;
  }

  const unsigned char* exchange(const void* mine, size_t bytes) {
    MXD_EXPECT(bytes <= kMostExchanged);
    const int thread = position.thread;
    const int parity = threads_[size_t(thread)].exchanges++ % 2;
    unsigned char* half = exchanged_.data() + size_t(parity) * threads_.size() * kMostExchanged;
    std::memcpy(half + size_t(thread) * kMostExchanged, mine, bytes);
    pause(State::kExchange);
    return half + size_t(thread / kLanes * kLanes) * kMostExchanged;
  }

  void note(const void* cell, bool writes) {
    const size_t at = size_t(static_cast<const unsigned char*>(cell) - shared_);
    if (at >= shared_bytes_) return fail("shared memory is accessed outside of its end");
    Touch& touch = touches_[at];
    const int16_t me = int16_t(position.thread);
    if (touch.written == interval_ && touch.writer != me) {
      fail(std::string(writes ? "two threads write" : "a thread reads what another one writes in") +
           " a cell of shared memory between two barriers: threads " +
           std::to_string(touch.writer) + " and " + std::to_string(me));
    }
    if (writes) {
      if (touch.read == interval_ && touch.reader != me) {
        fail(
            "a thread writes a cell of shared memory that another one reads between the same "
            "barriers: threads " +
            std::to_string(me) + " and " + std::to_string(touch.reader));
      }
      touch.written = interval_;
      touch.writer = me;
    } else if (touch.read != interval_) {
      touch.read = interval_;
      touch.reader = me;
    } else if (touch.reader != me) {
      touch.reader = kSeveral;
    }
  }

 private:
  void pause(State state) {
    const int thread = position.thread;
    threads_[size_t(thread)].state = state;
    fibers_.give_way();
    position.thread = thread;
  }

  void resume(int thread) {
    position.thread = thread;
    threads_[size_t(thread)].state = State::kRunning;
    if (fibers_.resume(thread)) threads_[size_t(thread)].state = State::kEnded;
  }

  // Runs every thread up to the next barrier or its end; whether any goes on.
  bool round() {
    const int count = int(threads_.size());
    for (int first = 0; first < count; first += kLanes) {
      while (run_warp(first, std::min(first + kLanes, count))) {
      }
    }
    const auto waits = [](const Thread& t) { return t.state == State::kBarrier; };
    const auto waiting = std::count_if(threads_.begin(), threads_.end(), waits);
    if (waiting == 0) return false;
    if (waiting != count) fail("some threads of a block end while others wait at a barrier");
    vote_ = std::any_of(threads_.begin(), threads_.end(),
                        [&](const Thread& t) { return waits(t) && t.vote; });
    ++interval_;
    return true;
  }

  // Runs the lanes up to their next collective, barrier or end; whether it was a collective.
  bool run_warp(int begin, int end) {
    int exchanging = 0;
    for (int thread = begin; thread < end; ++thread) {
      if (threads_[size_t(thread)].state != State::kEnded) resume(thread);
      exchanging += threads_[size_t(thread)].state == State::kExchange;
    }
    if (exchanging != 0 && exchanging != kLanes) {
      fail("only some lanes of a warp reach a collective");
      return false;
    }
    return exchanging != 0;
  }

  std::unique_ptr<unsigned char[]> memory_;
  unsigned char* shared_ = nullptr;
  size_t shared_bytes_ = 0;
  std::vector<Touch> touches_;
  uint32_t interval_ = 0;
  std::vector<unsigned char> exchanged_;
  std::vector<Thread> threads_;
  bool vote_ = false;
  Fibers fibers_;
};

Block& block() {
  static Block the_block;
  return the_block;
}

}  // namespace

void run_blocks(int64_t blocks, int threads, size_t shared_bytes, void (*body)(const void*, void*),
                const void* params) {
  blocks = std::min(blocks, g_most_blocks);
  block().position.blocks = blocks;
  for (int64_t b = 0; b < blocks && g_failure.empty(); ++b) {
    block().position.block = b;
    block().run(threads, shared_bytes, body, params);
  }
}

void set_most_blocks(int64_t most) { g_most_blocks = most; }
void set_global_memory(std::vector<Range> ranges) { g_ranges = std::move(ranges); }

std::string failure() {
  std::string first;
  std::swap(first, g_failure);
  return first;
}

void fail(const std::string& what) {
  if (g_failure.empty()) {
    g_failure = what + " (block " + std::to_string(position().block) + ", thread " +
                std::to_string(position().thread) + ")";
  }
}

const Position& position() { return block().position; }
bool block_barrier(bool mine) { return block().barrier(mine); }
void note_shared(const void* cell, bool writes) { block().note(cell, writes); }
const unsigned char* exchange(const void* mine, size_t bytes) {
  return block().exchange(mine, bytes);
}

bool check_global(const void* at, size_t bytes, bool writes) {
  for (const Range& range : g_ranges) {
    const size_t offset =
        size_t(static_cast<const char*>(at) - static_cast<const char*>(range.begin));
    if (offset < range.bytes && bytes <= range.bytes - offset && (range.writable || !writes)) {
      return true;
    }
  }
  fail(writes ? "global memory is written outside of the result"
              : "global memory is read outside of the operands");
  return false;
}

float float_of_half(uint16_t bits) {
  static const std::vector<float> values = [] {
    std::vector<float> all(1 << 16);
    for (size_t i = 0; i < all.size(); ++i) all[i] = float(test::value_of_half(uint16_t(i)));
    return all;
  }();
  return values[bits];
}

uint16_t half_of_float(float value) {
  return std::isnan(value) ? uint16_t(0x7e00) : test::nearest_half(double(value));
}

namespace {

// The terms that a word of an operand holds. Returns how many.
int terms_of(MatrixType type, uint32_t word, float* terms) {
  if (type == MatrixType::kTf32) {
    if (word & 0x1fffu && (word & 0x7f800000u) != 0x7f800000u)
      fail("a TF32 operand is not rounded");
    terms[0] = float_of_bits(word);
    return 1;
  }
  for (int i = 0; i < 2; ++i) {
    const uint16_t bits = uint16_t(word >> 16 * i);
    terms[i] =
        type == MatrixType::kHalf ? float_of_half(bits) : float_of_bits(uint32_t(bits) << 16);
  }
  return 2;
}

}  // namespace

// As the PTX manual lays out the fragments of mma.m16n8k16 (.f16, .bf16) and mma.m16n8k8 (.tf32).
void multiply_fragments(MatrixType type, float* c, const uint32_t* a, const uint32_t* b) {
  uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const unsigned char* all = exchange(mine, sizeof mine);
  const auto word = [all](int lane, int index) {
    uint32_t value;
    std::memcpy(&value, all + size_t(lane) * kMostExchanged + size_t(index) * 4, sizeof value);
    return value;
  };
  const int lane = position().thread % kLanes;
  const int group = lane / 4, place = lane % 4;
  for (int i = 0; i < 4; ++i) {
    const int upper = i / 2, column = 2 * place + i % 2;
    double sum = double(c[i]);
    for (int w = 0; w < 8; ++w) {
      float row_terms[2], column_terms[2];
      const int count = terms_of(type, word(4 * group + w % 4, w / 4 * 2 + upper), row_terms);
      terms_of(type, word(4 * column + w % 4, 4 + w / 4), column_terms);
      for (int k = 0; k < count; ++k) sum += double(row_terms[k]) * double(column_terms[k]);
    }
    c[i] = float(sum);
  }
}

}  // namespace mxd::cuda::emulator

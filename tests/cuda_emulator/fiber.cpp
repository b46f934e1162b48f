#include "fiber.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define MXD_ASAN 1
#else
#define MXD_ASAN 0
#endif

namespace mxd::cuda::emulator {
namespace {

// Frames of sanitized code are large.
constexpr size_t kStackBytes = MXD_ASAN ? size_t(1) << 19 : size_t(1) << 17;

Fibers* g_entering = nullptr;  // the one whose fiber starts

}  // namespace

#if defined(__x86_64__)

// ucontext asks the kernel for the signal mask at every switch, which would take most of the time.
// Saves the callee's registers on the stack, and the stack's pointer at *from.
extern "C" void mxd_switch_stack(void** from, void* to);
asm(R"(
.text
.globl mxd_switch_stack
.hidden mxd_switch_stack
.type mxd_switch_stack, @function
mxd_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size mxd_switch_stack, .-mxd_switch_stack
)");

struct Context {
  void* at = nullptr;

  void prepare(char* stack, size_t bytes, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + bytes);
    *--top = nullptr;  // where `entry` would return to; also aligns it
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    at = top;
  }
  static void change(Context& from, Context& to) { mxd_switch_stack(&from.at, to.at); }
};

#else

struct Context {
  ucontext_t at;

  void prepare(char* stack, size_t bytes, void (*entry)()) {
    getcontext(&at);
    at.uc_stack.ss_sp = stack;
    at.uc_stack.ss_size = bytes;
    at.uc_link = nullptr;
    makecontext(&at, entry, 0);
  }
  static void change(Context& from, Context& to) { swapcontext(&from.at, &to.at); }
};

#endif

struct Fibers::Fiber {
  char* stack = nullptr;
  const void* bottom = nullptr;  // as the sanitizer knows it
  size_t bytes = 0;
  void* fake_stack = nullptr;  // the sanitizer's
  Context context;
  bool ended = true;

  void allocate() {
    void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      std::perror("no memory for a fiber");
      std::exit(1);
    }
    stack = static_cast<char*>(memory);
    bottom = stack;
    bytes = kStackBytes;
  }
  ~Fiber() {
    if (stack) munmap(stack, kStackBytes);
  }
};

Fibers::Fibers() : main_(new Fiber) {}
Fibers::~Fibers() = default;

void Fibers::start(int count, std::function<void(int)> body) {
  body_ = std::move(body);
  while (int(fibers_.size()) < count) {
    fibers_.emplace_back(new Fiber);
    fibers_.back()->allocate();
  }
  for (int i = 0; i < count; ++i) {
#if MXD_ASAN
    // The frames of a fiber that has ended were never left.
    constexpr size_t kFrames = size_t(1) << 13;
    __asan_unpoison_memory_region(fibers_[size_t(i)]->stack + kStackBytes - kFrames, kFrames);
#endif
    fibers_[size_t(i)]->context.prepare(fibers_[size_t(i)]->stack, kStackBytes, enter);
    fibers_[size_t(i)]->ended = false;
  }
}

bool Fibers::resume(int index) {
  Fiber& fiber = *fibers_[size_t(index)];
  current_ = index;
  g_entering = this;
#if MXD_ASAN
  __sanitizer_start_switch_fiber(&main_->fake_stack, fiber.bottom, fiber.bytes);
#endif
  Context::change(main_->context, fiber.context);
#if MXD_ASAN
  __sanitizer_finish_switch_fiber(main_->fake_stack, nullptr, nullptr);
#endif
  return fiber.ended;
}

void Fibers::give_way() { leave(false); }

void Fibers::leave(bool for_good) {
  Fiber& fiber = *fibers_[size_t(current_)];
#if MXD_ASAN
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.fake_stack, main_->bottom,
                                 main_->bytes);
#endif
  fiber.ended = for_good;
  Context::change(fiber.context, main_->context);
#if MXD_ASAN
  __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
#endif
}

void Fibers::enter() {
  Fibers& all = *g_entering;
#if MXD_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &all.main_->bottom, &all.main_->bytes);
#endif
  all.body_(all.current_);
  all.leave(true);
  std::abort();  // nobody resumes a fiber that has ended
}

}  // namespace mxd::cuda::emulator

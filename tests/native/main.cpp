// Native tests of the torch-free part: core and CPU engine. See --help.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "check.h"
#include "cpu/scratch.h"
#include "passes.h"

namespace mxd::test {
namespace {

struct Test {
  const char* name;
  const char* intent;
  void (*run)();
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

Options g_options;
int64_t g_checks = 0;
int64_t g_failures = 0;
int64_t g_printed = 0;  // of the test at hand
constexpr int64_t kMostPrinted = 20;

void print_help() {
  std::printf(
      "native_test [--count N] [--products N] [--seed N] [--only TEXT] [--problem NAME] [--list]\n"
      "  --count     random problems of the campaign (300)\n"
      "  --products  largest random problem, in multiplications of one pass (4000000)\n"
      "  --seed      of everything random (1)\n"
      "  --only      run the tests whose name contains TEXT\n"
      "  --problem   run one problem, e.g. n2g1c24k40-i7x9-w3x4-s2x3-p1x0-d1x2-a1x0\n");
}

void parse_options(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string key = argv[i];
    if (key == "--list") {
      for (const Test& test : tests()) std::printf("%-28s %s\n", test.name, test.intent);
      std::exit(0);
    }
    if (key == "--help" || i + 1 == argc) {
      print_help();
      std::exit(key == "--help" ? 0 : 2);
    }
    const char* value = argv[++i];
    if (key == "--count") {
      g_options.count = std::atoll(value);
    } else if (key == "--products") {
      g_options.products = std::atoll(value);
    } else if (key == "--seed") {
      g_options.seed = uint64_t(std::atoll(value));
    } else if (key == "--only") {
      g_options.only = value;
    } else if (key == "--problem") {
      g_options.problem = value;
    } else {
      print_help();
      std::exit(2);
    }
  }
}

void run_test(const Test& test) {
  const int64_t checks = g_checks;
  const int64_t failures = g_failures;
  g_printed = 0;
  const auto start = std::chrono::steady_clock::now();
  test.run();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%s %-28s %10lld checks %7.2f s   %s\n", g_failures > failures ? "FAIL" : "ok  ",
              test.name, static_cast<long long>(g_checks - checks), seconds.count(), test.intent);
  std::fflush(stdout);
}

}  // namespace

const Options& options() { return g_options; }

Registration::Registration(const char* name, const char* intent, void (*run)()) {
  tests().push_back({name, intent, run});
}

void count_check() { ++g_checks; }

void report_failure(const char* file, int line, const std::string& message) {
  ++g_failures;
  if (++g_printed <= kMostPrinted) {
    std::printf("%s:%d: %s\n", file, line, message.c_str());
    std::fflush(stdout);
  }
}

}  // namespace mxd::test

int main(int argc, char** argv) {
  using namespace mxd::test;
  parse_options(argc, argv);
  mxd::cpu::set_poison_scratch(true);
  bool any = false;
  if (!g_options.problem.empty()) {
    any = true;
    run_test({"problem", g_options.problem.c_str(), check_chosen_problem});
  } else {
    for (const Test& test : tests()) {
      if (std::strstr(test.name, g_options.only.c_str()) == nullptr) continue;
      any = true;
      run_test(test);
    }
  }
  if (!any) {
    std::printf("no test has a name with '%s'\n", g_options.only.c_str());
    return 2;
  }
  std::printf("%lld checks, %lld failed\n", static_cast<long long>(g_checks),
              static_cast<long long>(g_failures));
  return g_failures ? 1 : 0;
}

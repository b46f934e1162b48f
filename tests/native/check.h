// The least that a test program needs: named tests, lazy messages, a readable report.
#pragma once

#include <cstdint>
#include <string>

namespace mxd::test {

struct Options {
  int64_t count = 300;         // random problems of the campaign
  uint64_t seed = 1;           // of everything random
  int64_t products = 4000000;  // largest random problem, in multiplications of one pass
  std::string only;            // runs the tests whose name contains this
  std::string problem;         // runs this one problem instead, by its name
};
const Options& options();

// Adds a test to the program when it is constructed at namespace scope.
struct Registration {
  Registration(const char* name, const char* intent, void (*run)());
};

// Counts a check; a failed one is printed and makes the program exit with 1.
void count_check();
void report_failure(const char* file, int line, const std::string& message);

}  // namespace mxd::test

#define MXD_TEST(name, intent)                                                            \
  static void test_##name();                                                              \
  static const ::mxd::test::Registration registration_##name(#name, intent, test_##name); \
  static void test_##name()

// The message is built only when the check fails.
#define MXD_CHECK(condition, message)                             \
  do {                                                            \
    ::mxd::test::count_check();                                   \
    if (!(condition)) {                                           \
      ::mxd::test::report_failure(__FILE__, __LINE__, (message)); \
    }                                                             \
  } while (false)

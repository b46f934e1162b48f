// The torch-free engine against scalar loops, on integer data: equal to the last bit, on every
// instruction set of this CPU, for one and for three threads.
//
// Buffers are exactly as large as the problem needs, so that the sanitizers see every access beyond
// them, and scratch memory is poisoned. All values are in {-1, 0, 1} and no sum has more than 250
// terms: bfloat16 holds such sums exactly.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cpu/cpu_isa.h"
#include "cpu/engine.h"
#include "cpu/scratch.h"

namespace mxd {
namespace {

class StdThreads : public Threads {
 public:
  explicit StdThreads(int count) : count_(count) {}
  int count() const override { return count_; }
  void run(int workers, void (*worker)(void*), void* context) const override {
    std::vector<std::thread> threads;
    for (int i = 1; i < workers; ++i) threads.emplace_back(worker, context);
    worker(context);
    for (auto& thread : threads) thread.join();
  }

 private:
  int count_;
};

// Integers of magnitude 0 .. 2048 to and from each dtype; exact in all four up to 256.
uint16_t half_of(int value) {
  if (value == 0) return 0;
  const uint16_t sign = value < 0 ? 0x8000 : 0;
  const int magnitude = std::abs(value);
  int exponent = 0;
  while ((magnitude >> exponent) > 1) ++exponent;
  return uint16_t(sign | ((exponent + 15) << 10) | ((magnitude << (10 - exponent)) & 0x3ff));
}

uint16_t bfloat_of(int value) {
  const float f = float(value);
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return uint16_t(bits >> 16);
}

// A dense tensor with the axes in one of two orders: [n, c, i0, i1, i2] or [n, i0, i1, i2, c].
struct Buffer {
  DType dtype;
  int64_t shape[5];
  int64_t stride[5];
  std::vector<uint8_t> bytes;

  Buffer(DType type, const std::vector<int64_t>& sizes, bool channels_last) : dtype(type) {
    const int order_first[5] = {0, 1, 2, 3, 4};
    const int order_last[5] = {0, 2, 3, 4, 1};
    const int* order = channels_last ? order_last : order_first;
    int64_t step = 1;
    for (int d = 4; d >= 0; --d) {
      shape[order[d]] = sizes[order[d]];
      stride[order[d]] = step;
      step *= sizes[order[d]];
    }
    bytes.resize(step * size_of(dtype));
    std::memset(bytes.data(), 0xff, bytes.size());  // NaN in every dtype
  }

  void set(int64_t at, int value) {
    if (dtype == DType::kFloat64) {
      const double v = value;
      std::memcpy(&bytes[at * 8], &v, 8);
    } else if (dtype == DType::kFloat32) {
      const float v = float(value);
      std::memcpy(&bytes[at * 4], &v, 4);
    } else {
      // -0 and 0 are told apart by their bits, and a sum may be either: see equals().
      const uint16_t v = dtype == DType::kFloat16 ? half_of(value) : bfloat_of(value);
      std::memcpy(&bytes[at * 2], &v, 2);
    }
  }

  bool equals(int64_t at, int value) const {
    const uint8_t* p = &bytes[at * size_of(dtype)];
    if (dtype == DType::kFloat64) {
      double v;
      std::memcpy(&v, p, 8);
      return v == value;
    }
    if (dtype == DType::kFloat32) {
      float v;
      std::memcpy(&v, p, 4);
      return v == float(value);
    }
    uint16_t v;
    std::memcpy(&v, p, 2);
    if (value == 0) return (v & 0x7fff) == 0;
    return v == (dtype == DType::kFloat16 ? half_of(value) : bfloat_of(value));
  }

  int64_t at(int64_t n, int64_t c, int64_t i, int64_t j, int64_t k) const {
    return n * stride[0] + c * stride[1] + i * stride[2] + j * stride[3] + k * stride[4];
  }

  int64_t count() const { return int64_t(bytes.size()) / size_of(dtype); }

  TensorView view() {
    return {bytes.data(), stride[0], stride[1], {stride[2], stride[3], stride[4]}};
  }
  WeightView weight() {
    return {bytes.data(), stride[0], stride[1], {stride[2], stride[3], stride[4]}};
  }
};

// The trilinear sum by its definition: calls term(data index, weight index, out index).
template <class Term>
void for_each_term(const Geometry& g, const Buffer& x, const Buffer& w, const Buffer& y,
                   const Term& term) {
  for (int64_t n = 0; n < g.batch; ++n)
    for (int64_t c = 0; c < g.groups * g.in_channels; ++c)
      for (int64_t f = 0; f < g.out_channels; ++f) {
        const int64_t filter = c / g.in_channels * g.out_channels + f;
        int64_t i[3], t[3], o[3];
        const auto axis = [&](auto&& self, int a) -> void {
          if (a == kAxes) {
            term(x.at(n, c, i[0], i[1], i[2]), w.at(c, f, t[0], t[1], t[2]),
                 y.at(n, filter, o[0], o[1], o[2]));
            return;
          }
          const Axis& e = g.axis[a];
          for (i[a] = 0; i[a] < e.in; ++i[a])
            for (t[a] = 0; t[a] < e.kernel; ++t[a]) {
              o[a] = i[a] * e.stride - e.pad + t[a] * e.dilate;
              if (o[a] >= 0 && o[a] < e.out) self(self, a + 1);
            }
        };
        axis(axis, 0);
      }
}

std::vector<int> fill(Buffer& buffer, std::mt19937& random) {
  std::vector<int> values(buffer.count());
  for (int64_t i = 0; i < buffer.count(); ++i) buffer.set(i, values[i] = int(random() % 3) - 1);
  return values;
}

int compare(const char* pass, const std::string& problem, const Buffer& found,
            const std::vector<int>& expected) {
  for (int64_t i = 0; i < found.count(); ++i) {
    if (!found.equals(i, expected[i])) {
      std::fprintf(stderr, "%s of %s: element %lld is not %d\n", pass, problem.c_str(),
                   static_cast<long long>(i), expected[i]);
      return 1;
    }
  }
  return 0;
}

struct Drawn {
  Geometry geometry;
  DType dtype;
  bool channels_last;
  bool with_bias;
  std::string name;
};

// Sizes around the register tiles (remainders on both sides), strides above, at and below the
// kernel, dilations that share a factor with the stride, crops deeper than the kernel.
Drawn draw(std::mt19937& random) {
  const auto between = [&](int low, int high) { return low + int(random() % (high - low + 1)); };
  const DType dtypes[] = {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16};
  for (;;) {
    Drawn drawn;
    Geometry& g = drawn.geometry;
    drawn.dtype = dtypes[random() % 4];
    drawn.channels_last = random() % 2;
    drawn.with_bias = random() % 2;
    g.batch = between(1, 3);
    g.groups = between(0, 3) ? 1 : between(2, 5);
    g.in_channels = between(1, g.groups > 1 ? 3 : 20);
    g.out_channels = between(1, g.groups > 1 ? 3 : 36);
    const int rank = between(1, 3);
    bool valid = true;
    for (int a = kAxes - rank; a < kAxes; ++a) {
      Axis& e = g.axis[a];
      e.in = between(1, rank == 1 ? 70 : rank == 2 ? 12 : 5);
      e.kernel = between(1, rank == 3 ? 3 : 5);
      e.stride = between(1, 4);
      e.dilate = between(1, 3);
      const int64_t total = e.stride * (e.in - 1) + e.dilate * (e.kernel - 1) + 1;
      e.pad = between(0, int(e.dilate * (e.kernel - 1)) + 1);
      e.out = total - 2 * e.pad + between(0, int(e.stride) - 1);
      valid = valid && e.out >= 1;
    }
    if (!valid) continue;
    const int64_t longest =
        std::max(g.batch * g.in_pixels(), std::max(g.in_channels, g.out_channels) * g.taps() + 1);
    const int64_t work =
        g.batch * g.groups * g.in_channels * g.out_channels * g.in_pixels() * g.taps();
    if (longest > 250 || work > 2000000) continue;
    drawn.name = "dtype " + std::to_string(int(drawn.dtype)) +
                 (drawn.channels_last ? " last" : " first") + " n" + std::to_string(g.batch) + "g" +
                 std::to_string(g.groups) + "c" + std::to_string(g.in_channels) + "k" +
                 std::to_string(g.out_channels);
    for (const Axis& e : g.axis) {
      drawn.name += " i" + std::to_string(e.in) + "w" + std::to_string(e.kernel) + "s" +
                    std::to_string(e.stride) + "d" + std::to_string(e.dilate) + "p" +
                    std::to_string(e.pad) + "o" + std::to_string(e.out);
    }
    return drawn;
  }
}

int check(const Drawn& drawn, std::mt19937& random) {
  const Geometry& g = drawn.geometry;
  const std::vector<int64_t> x_shape = {g.batch, g.groups * g.in_channels, g.axis[0].in,
                                        g.axis[1].in, g.axis[2].in};
  const std::vector<int64_t> y_shape = {g.batch, g.groups * g.out_channels, g.axis[0].out,
                                        g.axis[1].out, g.axis[2].out};
  const std::vector<int64_t> w_shape = {g.groups * g.in_channels, g.out_channels, g.axis[0].kernel,
                                        g.axis[1].kernel, g.axis[2].kernel};
  Buffer x(drawn.dtype, x_shape, drawn.channels_last), y(drawn.dtype, y_shape, drawn.channels_last);
  Buffer w(drawn.dtype, w_shape, drawn.channels_last);
  Buffer bias(drawn.dtype, {1, g.groups * g.out_channels, 1, 1, 1}, false);
  const auto x_values = fill(x, random), w_values = fill(w, random), g_values = fill(y, random);
  const auto bias_values = fill(bias, random);

  std::vector<int> out(y.count()), x_grad(x.count()), w_grad(w.count());
  if (drawn.with_bias) {
    for (int64_t n = 0; n < g.batch; ++n)
      for (int64_t f = 0; f < y_shape[1]; ++f)
        for (int64_t i = 0; i < y_shape[2]; ++i)
          for (int64_t j = 0; j < y_shape[3]; ++j)
            for (int64_t k = 0; k < y_shape[4]; ++k) out[y.at(n, f, i, j, k)] = bias_values[f];
  }
  for_each_term(g, x, w, y, [&](int64_t xi, int64_t wi, int64_t yi) {
    out[yi] += x_values[xi] * w_values[wi];
    x_grad[xi] += w_values[wi] * g_values[yi];
    w_grad[wi] += x_values[xi] * g_values[yi];
  });

  int failures = 0;
  for (const int threads : {1, 3}) {
    const StdThreads pool(threads);
    const cpu::Resources resources{&pool, threads == 1 ? int64_t(512) << 20 : 0};
    cpu::Problem problem;
    problem.geometry = g;
    problem.dtype = drawn.dtype;
    problem.data = x.view();
    problem.weight = w.weight();
    problem.out = y.view();

    Buffer result(drawn.dtype, y_shape, drawn.channels_last);
    cpu::Problem forward = problem;
    forward.out = result.view();
    if (drawn.with_bias) forward.bias = {bias.bytes.data(), 1};
    cpu::forward(forward, resources);
    failures += compare("forward", drawn.name, result, out);

    Buffer data_grad(drawn.dtype, x_shape, drawn.channels_last);
    cpu::Problem backward = problem;
    backward.data = data_grad.view();
    cpu::data_gradient(backward, resources);
    failures += compare("data gradient", drawn.name, data_grad, x_grad);

    Buffer weight_grad(drawn.dtype, w_shape, drawn.channels_last);
    backward = problem;
    backward.weight = weight_grad.weight();
    cpu::weight_gradient(backward, resources);
    failures += compare("weight gradient", drawn.name, weight_grad, w_grad);
  }
  return failures;
}

}  // namespace
}  // namespace mxd

int main(int argc, char** argv) {
  const int problems = argc > 1 ? std::atoi(argv[1]) : 300;
  mxd::cpu::set_poison_scratch(true);
  int failures = 0;
  for (const std::string& isa : mxd::cpu::available_isas()) {
    mxd::cpu::set_isa(isa);
    std::mt19937 random(0);  // the same problems for every instruction set
    for (int i = 0; i < problems && failures < 10; ++i) {
      failures += mxd::check(mxd::draw(random), random);
    }
    std::printf("%s: %d problems, %d failures\n", isa.c_str(), problems, failures);
  }
  return failures ? 1 : 0;
}

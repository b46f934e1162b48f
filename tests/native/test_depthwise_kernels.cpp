// The primitives of depthwise layers, held against cpu/depthwise_kernels.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/cpu_isa.h"
#include "cpu/engine.h"
#include "element.h"
#include "problems.h"

namespace mxd::test {
namespace {

// Elements of a dtype in memory that ends with the last of them; what is not set is NaN.
class Elements {
 public:
  Elements(DType dtype, int64_t count)
      : dtype_(dtype), bytes_(size_t(count * size_of(dtype)), char(0xff)) {}

  // `count` small integers.
  static Elements random(DType dtype, int64_t count, Random& random) {
    Elements elements(dtype, count);
    for (int64_t i = 0; i < count; ++i) elements.set(i, double(draw(random, -9, 9)));
    return elements;
  }

  void* data() { return bytes_.data(); }
  int64_t count() const { return int64_t(bytes_.size()) / size_of(dtype_); }
  double operator[](int64_t i) const {
    return load_element(dtype_, bytes_.data() + i * size_of(dtype_));
  }
  void set(int64_t i, double value) {
    store_element(dtype_, value, bytes_.data() + i * size_of(dtype_));
  }
  void set_nan(int64_t i) {
    std::fill_n(bytes_.begin() + i * size_of(dtype_), size_of(dtype_), char(0xff));
  }

 private:
  DType dtype_;
  std::vector<char> bytes_;
};

// Calls visit(kernels, dtype, accumulate type, name of the tables) for every table there is.
template <class Visit>
void for_each_table(const Visit& visit) {
  for (const std::string& isa : cpu::available_isas()) {
    cpu::set_isa(isa);
    for (const DType dtype : kDTypes) {
      const DType acc = dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
      const cpu::Kernels& products = cpu::product_kernels_for(dtype);
      visit(cpu::kernels_for(dtype), dtype, acc, std::string(name_of(dtype)) + " for " + isa);
      if (&products != &cpu::kernels_for(dtype)) {
        visit(products, dtype, acc, std::string(name_of(dtype)) + " in pairs for " + isa);
      }
    }
  }
}

MXD_TEST(depthwise_expand, "expand: repeats, strides, zeros around, tails, exact sources") {
  Random random(options().seed);
  for_each_table([&](const cpu::Kernels& kernels, DType dtype, DType acc, const std::string& name) {
    for (const int64_t repeat : {1, 2, 3, 8, 20}) {
      for (const int64_t stride : {0, 1, 2, 5}) {
        for (int64_t count = 0; count <= 2 * kernels.vector + 1; ++count) {
          const int64_t lead = draw(random, 0, 20);
          const int64_t length = lead + count * repeat + draw(random, 0, 20);
          const int64_t span = count ? (count - 1) * stride + 1 : 0;
          const int64_t pitch = length + kernels.vector;
          Elements src = Elements::random(dtype, 2 * span, random);
          Elements dst(acc, 2 * pitch);
          Elements sticky(acc, kernels.vector);
          for (int64_t l = 0; l < kernels.vector; ++l) sticky.set(l, 0);
          cpu::RowExpansion expansion{dst.data(), pitch, src.data(), span,   stride,       2,
                                      lead,       count, repeat,     length, sticky.data()};
          kernels.depthwise.expand(expansion);
          bool right = true;
          for (int64_t i = 0; i < 2 * pitch; ++i) {
            const int64_t pixel = i % pitch - lead;
            if (i % pitch >= length) continue;
            const bool exists = pixel >= 0 && pixel < count * repeat;
            right =
                right && dst[i] == (exists ? src[i / pitch * span + pixel / repeat * stride] : 0.0);
          }
          for (int64_t l = 0; l < kernels.vector; ++l) right = right && sticky[l] == 0;
          MXD_CHECK(right, "expand of " + name + ": " + std::to_string(count) + " pixels, repeat " +
                               std::to_string(repeat) + ", stride " + std::to_string(stride));
          if (span == 0) continue;

          const int64_t intruder = draw(random, 0, count - 1) * stride;
          if (count % 2) {
            src.set_nan(intruder);
          } else {
            src.set(intruder, std::numeric_limits<double>::infinity());
          }
          kernels.depthwise.expand(expansion);
          bool found = false;
          for (int64_t l = 0; l < kernels.vector; ++l) found = found || std::isnan(sticky[l]);
          MXD_CHECK(found, "expand of " + name + " overlooked a value that is not finite");
        }
      }
    }
  });
}

MXD_TEST(depthwise_contract, "contract: every width and tail") {
  Random random(options().seed);
  for_each_table([&](const cpu::Kernels& kernels, DType, DType acc, const std::string& name) {
    for (const int64_t width : {1, 2, 3, 4, 6, 7, 8, 12, 32}) {
      for (int64_t count = 1; count <= 2 * kernels.vector + 1; ++count) {
        Elements row = Elements::random(acc, count * width + 2 * kernels.vector, random);
        std::vector<double> expected(size_t(count), 0.0);
        for (int64_t i = 0; i < count * width; ++i) expected[size_t(i / width)] += row[i];
        kernels.depthwise.contract(row.data(), count, width);
        bool right = true;
        for (int64_t i = 0; i < count; ++i) right = right && row[i] == expected[size_t(i)];
        MXD_CHECK(right, "contract of " + name + ": " + std::to_string(count) + " of width " +
                             std::to_string(width));
      }
    }
  });
}

// Terms of a call of row_sum or row_outer, over rows of `pitch` elements.
std::vector<cpu::RowTerm> random_terms(int64_t count, int64_t lanes, Random& random) {
  std::vector<cpu::RowTerm> terms;
  for (int64_t t = 0; t < count; ++t) terms.push_back({draw(random, 0, 9), t * lanes});
  return terms;
}

int64_t whole_vectors(const cpu::Kernels& kernels, int64_t count) {
  return (count + kernels.vector - 1) / kernels.vector * kernels.vector;
}

MXD_TEST(depthwise_row_sum,
         "row_sum: periods, terms, tails, bias, accumulate, nothing else written") {
  Random random(options().seed);
  for_each_table([&](const cpu::Kernels& kernels, DType dtype, DType acc, const std::string& name) {
    for (const bool into_acc : {false, true}) {
      const DType to = into_acc ? acc : dtype;
      for (const int64_t period : {1, 2, 3}) {
        for (int64_t count = 1; count <= 6 * kernels.vector + 1; count += draw(random, 1, 7)) {
          const int64_t lanes = period * kernels.vector;
          const int64_t term_count = draw(random, 0, 5);
          const std::vector<cpu::RowTerm> terms = random_terms(term_count, lanes, random);
          const int64_t pitch = whole_vectors(kernels, count) + 9;
          Elements src = Elements::random(acc, 3 * pitch, random);
          Elements weights = Elements::random(acc, term_count * lanes, random);
          Elements bias = Elements::random(acc, 1, random);
          // Every second row of a tensor.
          Elements dst = Elements::random(to, 5 * count, random);
          const int start = int(draw(random, 0, 2));
          std::vector<double> expected;
          for (int64_t i = 0; i < 5 * count; ++i) {
            const int64_t row = i / count / 2;
            double value = i / count % 2 || start == 0 ? dst[i] : start == 1 ? bias[0] : 0.0;
            for (const cpu::RowTerm& term : terms) {
              if (i / count % 2) continue;
              value += src[row * pitch + term.src + i % count] *
                       weights[term.weight + i % count % lanes];
            }
            expected.push_back(value);
          }
          const cpu::RowSum sum{src.data(),
                                pitch,
                                weights.data(),
                                period,
                                terms.data(),
                                term_count,
                                start == 0,
                                start == 1 ? bias.data() : nullptr,
                                dst.data(),
                                2 * count,
                                3,
                                count};
          (into_acc ? kernels.depthwise.row_sum_acc : kernels.depthwise.row_sum)(sum);
          bool right = true;
          for (int64_t i = 0; i < 5 * count; ++i) {
            Elements rounded(to, 1);
            rounded.set(0, expected[size_t(i)]);
            right = right && dst[i] == rounded[0];
          }
          MXD_CHECK(right, "row_sum of " + name + ": " + std::to_string(count) + " results, " +
                               std::to_string(term_count) + " terms, period " +
                               std::to_string(period));
        }
      }
    }
  });
}

MXD_TEST(depthwise_row_outer, "row_outer: periods, terms, tails, exact gradients") {
  Random random(options().seed);
  for_each_table([&](const cpu::Kernels& kernels, DType dtype, DType acc, const std::string& name) {
    for (const bool from_acc : {false, true}) {
      for (const int64_t period : {1, 2, 3}) {
        for (int64_t count = 1; count <= 4 * kernels.vector + 1; count += draw(random, 1, 7)) {
          const int64_t lanes = period * kernels.vector;
          const int64_t term_count = draw(random, 0, 19);
          const std::vector<cpu::RowTerm> terms = random_terms(term_count, lanes, random);
          const int64_t pitch = whole_vectors(kernels, count) + 9;
          Elements src = Elements::random(acc, 2 * pitch, random);
          Elements grad = Elements::random(from_acc ? acc : dtype, 2 * count, random);
          Elements sums = Elements::random(acc, term_count * lanes, random);
          std::vector<double> expected;
          for (int64_t s = 0; s < term_count * lanes; ++s) {
            double value = sums[s];
            for (int64_t i = s % lanes; i < count; i += lanes) {
              for (const int64_t row : {0, 1}) {
                value +=
                    src[row * pitch + terms[size_t(s / lanes)].src + i] * grad[row * count + i];
              }
            }
            expected.push_back(value);
          }
          const cpu::RowOuter outer{src.data(),   pitch,      grad.data(), count, period,
                                    terms.data(), term_count, sums.data(), 2,     count};
          (from_acc ? kernels.depthwise.row_outer_acc : kernels.depthwise.row_outer)(outer);
          bool right = true;
          for (int64_t s = 0; s < term_count * lanes; ++s) {
            right = right && sums[s] == expected[size_t(s)];
          }
          MXD_CHECK(right, "row_outer of " + name + ": " + std::to_string(count) + " gradients, " +
                               std::to_string(term_count) + " terms, period " +
                               std::to_string(period));
        }
      }
    }
  });
}

MXD_TEST(depthwise_pixels, "pixel_sum and pixel_outer: terms, every tail, exact memory") {
  Random random(options().seed);
  for_each_table([&](const cpu::Kernels& kernels, DType dtype, DType acc, const std::string& name) {
    for (int64_t channels = 1; channels <= 7 * kernels.vector + 1; channels += draw(random, 1, 3)) {
      const int64_t term_count = draw(random, 0, 9);
      const int64_t pixels = draw(random, 1, 9);
      const int64_t step = channels + draw(random, 0, 3);
      const int64_t span = (pixels - 1) * step + channels;
      std::vector<Elements> src, weight;
      std::vector<cpu::PixelTerm> terms;
      for (int64_t t = 0; t < term_count; ++t) {
        src.push_back(Elements::random(dtype, span, random));
        weight.push_back(Elements::random(acc, channels, random));
      }
      for (int64_t t = 0; t < term_count; ++t) {
        terms.push_back({src[size_t(t)].data(), weight[size_t(t)].data()});
      }
      Elements bias = Elements::random(acc, channels, random);
      Elements grad = Elements::random(dtype, span, random);
      Elements dst = grad;
      const bool biased = draw(random, 0, 1) == 1;
      cpu::PixelRun run{dst.data(), step,   terms.data(), term_count,
                        step,       pixels, channels,     biased ? bias.data() : nullptr};
      kernels.depthwise.pixel_sum(run);
      const std::vector<Elements> before = weight;
      run.dst = grad.data();
      kernels.depthwise.pixel_outer(run);
      bool right = true;
      for (int64_t i = 0; i < span; ++i) {
        const int64_t c = i % step;
        Elements expected(dtype, 1);
        double value = biased && c < channels ? bias[c] : 0.0;
        for (size_t t = 0; c < channels && t < src.size(); ++t) value += src[t][i] * before[t][c];
        expected.set(0, c < channels ? value : grad[i]);
        right = right && dst[i] == expected[0];
      }
      for (int64_t c = 0; c < channels; ++c) {
        for (size_t t = 0; t < src.size(); ++t) {
          double value = before[t][c];
          for (int64_t i = c; i < span; i += step) value += src[t][i] * grad[i];
          right = right && weight[t][c] == value;
        }
      }
      MXD_CHECK(right, "pixels of " + name + ": " + std::to_string(channels) + " channels, " +
                           std::to_string(term_count) + " terms");
    }
  });
}

MXD_TEST(depthwise_spread, "pixel_spread: one source, every tail, exact memory") {
  Random random(options().seed);
  for_each_table([&](const cpu::Kernels& kernels, DType dtype, DType acc, const std::string& name) {
    for (int64_t channels = 1; channels <= 3 * kernels.vector + 1; ++channels) {
      const int64_t term_count = draw(random, 0, cpu::kSpreadTerms);
      const int64_t pixels = draw(random, 1, 9);
      const int64_t step = channels + draw(random, 0, 3);
      const int64_t span = (pixels - 1) * step + channels;
      std::vector<Elements> src, weight;
      std::vector<cpu::PixelTerm> terms;
      for (int64_t t = 0; t < term_count; ++t) {
        src.push_back(Elements::random(dtype, channels, random));
        weight.push_back(Elements::random(acc, span, random));
      }
      for (int64_t t = 0; t < term_count; ++t) {
        terms.push_back({src[size_t(t)].data(), weight[size_t(t)].data()});
      }
      Elements bias = Elements::random(acc, channels, random);
      Elements dst = Elements::random(dtype, span, random);
      const Elements before = dst;
      const bool biased = draw(random, 0, 1) == 1;
      cpu::PixelRun run{dst.data(), step,   terms.data(), term_count,
                        0,          pixels, channels,     biased ? bias.data() : nullptr,
                        step};
      kernels.depthwise.pixel_spread(run);
      bool right = true;
      for (int64_t i = 0; i < span; ++i) {
        const int64_t c = i % step;
        Elements expected(dtype, 1);
        double value = biased && c < channels ? bias[c] : 0.0;
        for (size_t t = 0; c < channels && t < src.size(); ++t) value += src[t][c] * weight[t][i];
        expected.set(0, c < channels ? value : before[i]);
        right = right && dst[i] == expected[0];
      }
      MXD_CHECK(right, "spread of " + name + ": " + std::to_string(channels) + " channels, " +
                           std::to_string(term_count) + " terms");
    }
  });
}

MXD_TEST(depthwise_groups, "group_sum and group_outer: sizes of groups, tails, exact memory") {
  Random random(options().seed);
  for_each_table([&](const cpu::Kernels& kernels, DType dtype, DType acc, const std::string& name) {
    if (!kernels.depthwise.group_sum) return;
    const int64_t vector = kernels.vector;
    for (int64_t from = 1; from <= vector / 2; ++from) {
      for (int64_t to = 1; to <= vector / 2; ++to) {
        const int64_t side = vector / std::max(from, to);
        const int64_t groups = draw(random, 1, 2 * side + 1);
        const int64_t sets = (groups + side - 1) / side;
        const int64_t term_count = draw(random, 0, 5), pixels = draw(random, 1, 17);
        const int64_t src_step = groups * from + draw(random, 0, 2);
        const int64_t dst_step = groups * to + draw(random, 0, 2);
        std::vector<Elements> src, weight, sums;
        std::vector<cpu::PixelTerm> terms, outer_terms;
        for (int64_t t = 0; t < term_count; ++t) {
          src.push_back(Elements::random(dtype, (pixels - 1) * src_step + groups * from, random));
          weight.push_back(Elements::random(acc, sets * from * vector, random));
          sums.push_back(Elements::random(acc, sets * to * vector, random));
        }
        const std::vector<Elements> before = sums;
        for (size_t t = 0; t < src.size(); ++t) {
          terms.push_back({src[t].data(), weight[t].data()});
          outer_terms.push_back({src[t].data(), sums[t].data()});
        }
        Elements bias = Elements::random(acc, groups * to, random);
        Elements dst = Elements::random(dtype, (pixels - 1) * dst_step + groups * to, random);
        const Elements grad = dst;
        const bool biased = draw(random, 0, 1) == 1;
        cpu::GroupRun run{dst.data(),
                          dst_step,
                          outer_terms.data(),
                          term_count,
                          src_step,
                          pixels,
                          groups,
                          side,
                          from,
                          to,
                          biased ? bias.data() : nullptr};
        kernels.depthwise.group_outer(run);
        run.terms = terms.data();
        kernels.depthwise.group_sum(run);
        bool right = true;
        for (int64_t i = 0; i < dst.count(); ++i) {
          const int64_t p = i / dst_step, c = i % dst_step, g = c / to;
          Elements expected(dtype, 1);
          double value = biased && c < groups * to ? bias[c] : 0.0;
          for (size_t t = 0; c < groups * to && t < src.size(); ++t) {
            for (int64_t k = 0; k < from; ++k) {
              value += src[t][p * src_step + g * from + k] *
                       weight[t][(g / side * from + k) * vector + g % side * to + c % to];
            }
          }
          expected.set(0, c < groups * to ? value : grad[i]);
          right = right && dst[i] == expected[0];
        }
        for (size_t t = 0; t < src.size(); ++t) {
          for (int64_t g = 0; g < groups; ++g) {
            for (int64_t f = 0; f < to; ++f) {
              for (int64_t k = 0; k < from; ++k) {
                const int64_t at = (g / side * to + f) * vector + g % side * from + k;
                double value = before[t][at];
                for (int64_t p = 0; p < pixels; ++p) {
                  value += src[t][p * src_step + g * from + k] * grad[p * dst_step + g * to + f];
                }
                right = right && sums[t][at] == value;
              }
            }
          }
        }
        MXD_CHECK(right, "groups of " + name + ": " + std::to_string(from) + " to " +
                             std::to_string(to) + ", " + std::to_string(groups) + " of them");
      }
    }
  });
}

}  // namespace
}  // namespace mxd::test

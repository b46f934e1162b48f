// The primitives of every instruction set, held against the contract in cpu/kernels.h, and
// the panels that they work on.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/cpu_isa.h"
#include "cpu/engine.h"
#include "cpu/panels.h"
#include "element.h"
#include "problems.h"

namespace mxd::test {
namespace {

// Calls visit(kernels, dtype) for every table there is.
template <class Visit>
void for_each_kernels(const Visit& visit) {
  for (const std::string& isa : cpu::available_isas()) {
    cpu::set_isa(isa);
    for (const DType dtype : kDTypes) {
      const cpu::Kernels& numbers = cpu::kernels_for(dtype);
      const cpu::Kernels& products = cpu::product_kernels_for(dtype);
      visit(numbers, dtype);
      if (&products != &numbers) visit(products, dtype);
    }
  }
}

DType accumulate_type(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

// A term of an element of a panel.
double panel_term(const cpu::Kernels& kernels, const std::vector<char>& memory, int64_t index,
                  int64_t term) {
  const char* element = memory.data() + index * kernels.acc_bytes;
  if (kernels.terms == 2) return load_element(DType::kBFloat16, element + 2 * term);
  return load_element(kernels.acc_bytes == 8 ? DType::kFloat64 : DType::kFloat32, element);
}

std::string name_of_call(const cpu::Kernels& kernels, DType dtype, const char* primitive) {
  const char* pairs = kernels.terms == 2 ? " in pairs" : "";
  return std::string(primitive) + " of " + name_of(dtype) + pairs + " for " + kernels.isa;
}

MXD_TEST(kernel_tables, "sizes of each table fit its dtype") {
  for_each_kernels([](const cpu::Kernels& kernels, DType dtype) {
    MXD_CHECK(kernels.elem_bytes == size_of(dtype), "wrong element size");
    MXD_CHECK(kernels.acc_bytes == size_of(accumulate_type(dtype)), "wrong accumulator size");
    MXD_CHECK(kernels.cols == 2 * kernels.vector && kernels.max_rows >= 1, "wrong tile");
    const bool pairs = cpu::isa_in_use() == "avx512_bf16" && dtype == DType::kBFloat16;
    MXD_CHECK(kernels.terms == 1 || (pairs && kernels.terms == 2), "pairs of another type");
    MXD_CHECK(kernels.isa == cpu::isa_in_use() || cpu::isa_in_use() == "avx512_bf16",
              "the table of another instruction set");
  });
  MXD_CHECK(!cpu::set_isa("no such set"), "an unknown instruction set was accepted");
}

MXD_TEST(panels, "panels are a partition, of legal widths") {
  for_each_kernels([](const cpu::Kernels& kernels, DType) {
    for (int64_t total = 1; total <= 600; ++total) {
      for (const bool rows : {true, false}) {
        const cpu::Panels panels =
            rows ? cpu::Panels::of_rows(kernels, total) : cpu::Panels::of_cols(kernels, total);
        int64_t next = 0;
        int64_t least = total;
        int64_t most = 0;
        for (int64_t p = 0; p < panels.count(); ++p) {
          const int64_t width = panels.width(p);
          MXD_CHECK(panels.begin(p) == next, "a gap between panels");
          MXD_CHECK(panels.present(p) >= 1 && panels.present(p) <= width, "an empty panel");
          if (rows) {
            MXD_CHECK(width <= kernels.max_rows && panels.present(p) == width,
                      "a padded row panel");
          } else {
            MXD_CHECK(width == kernels.cols || (width == kernels.vector && p == panels.count() - 1),
                      "a column panel of a width that gemm does not have");
          }
          next += panels.present(p);
          least = std::min(least, width);
          most = std::max(most, width);
        }
        MXD_CHECK(next == total && panels.total() == total, "panels do not add up");
        MXD_CHECK(!rows || most - least <= 1, "row panels differ by more than one");
        MXD_CHECK(panels.padded_total() >= total &&
                      panels.padded_total() < total + (rows ? 1 : kernels.cols),
                  "too much padding");
      }
    }
  });
}

MXD_TEST(pack, "every path of pack: strides, tails, exact sources, nothing else written") {
  for_each_kernels([](const cpu::Kernels& kernels, DType dtype) {
    const int64_t v = kernels.vector;
    constexpr int64_t kPages = 2048;  // elements: rows whole pages apart are copied first
    for (const int64_t i_stride :
         {int64_t(0), int64_t(1), int64_t(2), int64_t(3), int64_t(50), kPages}) {
      for (const int64_t k_stride : {0, 1, 2, 3, 51}) {
        if (i_stride == kPages && k_stride != 1) continue;
        for (const int64_t rows :
             {int64_t(1), int64_t(3), int64_t(4), v - 1, v, v + 1, 2 * v, 2 * v + 3}) {
          const int64_t most = i_stride == kPages ? 1027 : 2 * v + 3;
          for (const int64_t steps : {int64_t(1), v - 1, v, v + 1, most}) {
            const int64_t span = (rows - 1) * i_stride + (steps - 1) * k_stride + 1;
            std::vector<char> src(size_t(span * kernels.elem_bytes));
            for (int64_t e = 0; e < span; ++e) {
              store_element(dtype, double(e % 251 - 125), src.data() + e * kernels.elem_bytes);
            }
            const int64_t width = rows + 2;
            const int64_t packed_steps = (steps + kernels.terms - 1) / kernels.terms;
            // Ends with the last element: the caller may have no more.
            const int64_t count = (packed_steps - 1) * width + rows;
            std::vector<char> dst(size_t(count * kernels.acc_bytes), char(0xff));
            kernels.pack(dst.data(), width, src.data(), rows, i_stride, steps, k_stride);
            bool right = true;
            for (int64_t at = 0; at < count * kernels.terms; ++at) {
              const int64_t element = at / kernels.terms;
              const double value = panel_term(kernels, dst, element, at % kernels.terms);
              const int64_t i = element % width;
              const int64_t k = element / width * kernels.terms + at % kernels.terms;
              const double wanted =
                  k < steps ? double((i * i_stride + k * k_stride) % 251 - 125) : 0.0;
              right = right && (i < rows ? value == wanted : std::isnan(value));
            }
            MXD_CHECK(right, name_of_call(kernels, dtype, "pack") + ": rows " +
                                 std::to_string(rows) + " stride " + std::to_string(i_stride) +
                                 ", steps " + std::to_string(steps) + " stride " +
                                 std::to_string(k_stride));
          }
        }
      }
    }
  });
}

// `count` integers of the accumulate type, in scratch memory of exactly that size.
struct Accumulators {
  Accumulators(DType acc, int64_t count, Random& random)
      : values(size_t(count)), type(acc), bytes(size_t(count * size_of(acc))) {
    for (int64_t e = 0; e < count; ++e) {
      values[size_t(e)] = draw(random, -9, 9);
      store_element(acc, double(values[size_t(e)]), bytes.data() + e * size_of(acc));
    }
  }
  // Whether the memory holds the values.
  bool holds_values() const {
    for (size_t e = 0; e < values.size(); ++e) {
      if (load_element(type, bytes.data() + int64_t(e) * size_of(type)) != double(values[e])) {
        return false;
      }
    }
    return true;
  }
  std::vector<int64_t> values;
  DType type;
  std::vector<char> bytes;
};

MXD_TEST(gemm, "every register tile, several segments, overwrite and accumulate") {
  for_each_kernels([](const cpu::Kernels& kernels, DType dtype) {
    if (size_of(dtype) == 2 && kernels.terms == 1) return;  // the same functions as float32's
    const DType acc = accumulate_type(dtype);
    const DType panel = kernels.terms == 2 ? dtype : acc;
    Random random(options().seed);
    const std::vector<cpu::Segment> segments{
        {5, 0, 0, 3}, {0, 4, 1, 1}, {9, 7, 5, 0}, {1, 9, 3, 4}};
    constexpr int64_t kSteps = 13;
    for (int rows = 1; rows <= kernels.max_rows; ++rows) {
      for (const int cols : {kernels.vector, kernels.cols}) {
        for (const int col_stride : {cols, cols + 3, 1}) {
          for (const bool accumulate : {false, true}) {
            const int64_t tile_stride = cols + 3;
            const int terms = kernels.terms;
            const Accumulators row(panel, terms * kSteps * rows, random);
            const Accumulators col(panel, terms * ((kSteps - 1) * col_stride + cols + 3), random);
            Accumulators tile(acc, (rows - 1) * tile_stride + cols, random);
            for (int64_t i = 0; i < rows; ++i) {
              for (int64_t j = 0; j < cols; ++j) {
                int64_t& sum = tile.values[size_t(i * tile_stride + j)];
                if (!accumulate) sum = 0;
                for (const cpu::Segment& s : segments) {
                  for (int64_t k = 0; k < s.length * terms; ++k) {
                    const int64_t step = k / terms, term = k % terms;
                    const int64_t at = s.col_offset + (s.col_k + step) * col_stride + j;
                    sum += row.values[size_t(((s.row_k + step) * rows + i) * terms + term)] *
                           col.values[size_t(at * terms + term)];
                  }
                }
              }
            }
            kernels.gemm(rows, cols, row.bytes.data(), col.bytes.data(), col_stride,
                         segments.data(), int64_t(segments.size()), tile.bytes.data(), tile_stride,
                         accumulate);
            MXD_CHECK(tile.holds_values(), name_of_call(kernels, dtype, "gemm") + ": " +
                                               std::to_string(rows) + " x " + std::to_string(cols));
          }
        }
      }
    }
  });
}

MXD_TEST(in_place,
         "every register tile and width of lanes, several groups, overwrite and accumulate") {
  for_each_kernels([](const cpu::Kernels& kernels, DType dtype) {
    if (!kernels.in_place.sum) return;
    Random random(options().seed);
    const int64_t terms = kernels.terms;
    const DType acc = accumulate_type(dtype);
    const DType panel = terms == 2 ? dtype : acc;
    const std::vector<cpu::SourceRun> runs{{2, 0, 3}, {9, 4, 1}, {0, 3, 0}, {5, 5, 4}};
    constexpr int64_t kSteps = 9, kSpan = 13;
    for (int lanes = kernels.in_place.least_lanes; lanes <= kernels.vector; lanes *= 2) {
      const int most = lanes < kernels.vector ? 1 : kernels.in_place.vectors;
      for (int vectors = 1; vectors <= most; ++vectors) {
        const int64_t width = vectors * lanes;
        for (int64_t pixels = 1; pixels <= 23; ++pixels) {
          const int64_t groups = vectors == 1 ? draw(random, 1, 3) : 1;
          const int64_t channels = width - draw(random, 0, lanes - 1);
          const bool accumulate = draw(random, 0, 1) == 1;
          const bool biased = draw(random, 0, 1) == 1;
          const int64_t pixel = groups * kSpan;
          const Accumulators src(panel, pixels * pixel, random);
          const Accumulators weights(panel, terms * groups * kSteps * width, random);
          const Accumulators bias(acc, groups * width, random);
          Accumulators dst(acc, pixels * groups * (channels + 2), random);
          std::vector<int64_t> src_offsets, dst_offsets;
          for (int64_t p = 0; p < pixels; ++p) {
            src_offsets.push_back((pixels - 1 - p) * pixel);
            dst_offsets.push_back(p * groups * (channels + 2));
          }
          for (int64_t at = 0; at < pixels * groups * channels; ++at) {
            const int64_t p = at / channels / groups, g = at / channels % groups, c = at % channels;
            int64_t& sum = dst.values[size_t(dst_offsets[size_t(p)] + g * (channels + 2) + c)];
            if (!accumulate) sum = biased ? bias.values[size_t(g * width + c)] : 0;
            for (const cpu::SourceRun& run : runs) {
              for (int64_t k = 0; k < run.length * terms; ++k) {
                const int64_t at = ((g * kSteps + run.weight + k / terms) * width + c) * terms;
                sum += src.values[size_t(src_offsets[size_t(p)] + g * kSpan + run.src + k)] *
                       weights.values[size_t(at + k % terms)];
              }
            }
          }
          std::vector<cpu::SourceRun> placed = runs;
          for (cpu::SourceRun& run : placed) run.weight *= width;
          cpu::InPlaceSum call{src.bytes.data(),
                               src_offsets.data(),
                               dst.bytes.data(),
                               dst_offsets.data(),
                               pixels,
                               weights.bytes.data(),
                               placed.data(),
                               int64_t(placed.size()),
                               channels,
                               vectors,
                               lanes,
                               biased ? bias.bytes.data() : nullptr,
                               accumulate,
                               false,
                               groups,
                               kSpan,
                               channels + 2,
                               kSteps * width};
          kernels.in_place.sum(call);
          const std::string name = name_of_call(kernels, dtype, "in_place") + ": " +
                                   std::to_string(pixels) + " pixels, " + std::to_string(vectors) +
                                   " vectors of " + std::to_string(lanes);
          MXD_CHECK(dst.holds_values(), name);
          if (terms == 1 || accumulate || lanes < kernels.vector) continue;
          std::vector<char> rounded(dst.values.size() * size_t(kernels.elem_bytes), char(0xff));
          std::vector<char> expected = rounded;
          for (int64_t p = 0; p < pixels; ++p) {
            for (int64_t at = 0; at < groups * channels; ++at) {
              const int64_t to =
                  dst_offsets[size_t(p)] + at / channels * (channels + 2) + at % channels;
              store_element(dtype, double(dst.values[size_t(to)]),
                            expected.data() + to * kernels.elem_bytes);
            }
          }
          call.dst = rounded.data();
          call.rounds = true;
          kernels.in_place.sum(call);
          MXD_CHECK(rounded == expected, name + ", rounded");
        }
      }
    }
  });
}

MXD_TEST(store, "every path of store: strides, tails, bias, nothing else written") {
  for_each_kernels([](const cpu::Kernels& kernels, DType dtype) {
    const DType acc = accumulate_type(dtype);
    const int64_t v = kernels.vector;
    constexpr int64_t kRows = 3;
    for (const int64_t cols : {int64_t(1), v - 1, v, v + 1, 2 * v + 3}) {
      for (const int64_t col_stride : {1, 2, 7}) {
        for (const int bias_kind : {0, 1, 2, 3}) {  // none, one value, per row, per column
          const int64_t acc_stride = cols + 1;
          std::vector<char> sums(size_t(kRows * acc_stride * kernels.acc_bytes));
          for (int64_t e = 0; e < kRows * acc_stride; ++e) {
            store_element(acc, double(e % 100), sums.data() + e * kernels.acc_bytes);
          }
          const int64_t biases = bias_kind == 0   ? 0
                                 : bias_kind == 1 ? 1
                                 : bias_kind == 2 ? kRows
                                                  : cols;
          std::vector<char> bias(size_t(biases * kernels.acc_bytes));
          for (int64_t e = 0; e < biases; ++e) {
            store_element(acc, double(50 - e), bias.data() + e * kernels.acc_bytes);
          }
          const int64_t row_stride = cols * col_stride + 5;
          const int64_t span = (kRows - 1) * row_stride + (cols - 1) * col_stride + 1;
          std::vector<char> dst(size_t(span * kernels.elem_bytes), char(0xff));
          std::vector<char> expected = dst;
          for (int64_t r = 0; r < kRows; ++r) {
            for (int64_t c = 0; c < cols; ++c) {
              const double b = bias_kind == 0   ? 0.0
                               : bias_kind == 1 ? 50.0
                               : bias_kind == 2 ? double(50 - r)
                                                : double(50 - c);
              store_element(
                  dtype, double((r * acc_stride + c) % 100) + b,
                  expected.data() + (r * row_stride + c * col_stride) * kernels.elem_bytes);
            }
          }
          kernels.store(dst.data(), row_stride, col_stride, sums.data(), acc_stride, kRows, cols,
                        bias_kind ? bias.data() : nullptr, bias_kind == 2, bias_kind == 3);
          MXD_CHECK(dst == expected, name_of_call(kernels, dtype, "store") + ": " +
                                         std::to_string(cols) + " columns, stride " +
                                         std::to_string(col_stride) + ", bias kind " +
                                         std::to_string(bias_kind));
        }
      }
    }
  });
}

}  // namespace
}  // namespace mxd::test

#include "problems.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace mxd::test {

// Wide enough for every register tile: AVX-512 float32 has 14 rows and 32 columns.
const std::vector<NamedProblem> kNamedProblems{
    {"n1g1c1k1-i1-w1-s1-p0-d1-a0", "one product"},
    {"n1g1c1k1-i1x1x1-w3x3x3-s1x1x1-p0x0x0-d1x1x1-a0x0x0", "one pixel in, a cube out"},
    {"n1g1c1k1-i5-w3-s1-p1-d1-a0", "one channel each way"},
    {"n2g1c24k40-i7x9-w3x4-s2x3-p1x0-d1x2-a1x0", "everything different on both axes"},
    {"n1g1c15k33-i9x11-w3x3-s1x1-p1x1-d1x1-a0x0", "one more than the widest register tile"},
    {"n1g1c14k32-i8x16-w3x3-s1x1-p1x1-d1x1-a0x0", "exactly the widest register tile"},
    {"n1g1c13k31-i7x15-w3x3-s1x1-p1x1-d1x1-a0x0", "one less than the widest register tile"},
    {"n1g1c7k9-i6x7-w3x3-s2x2-p1x1-d1x1-a1x1", "one more than the baseline tile, adj rows"},
    {"n2g1c16k16-i8x8-w4x4-s2x2-p1x1-d1x1-a0x0", "the common upsampling layer k4 s2 p1"},
    {"n1g1c8k8-i6x5-w2x2-s2x2-p0x0-d1x1-a0x0", "kernel equals stride"},
    {"n1g1c8k8-i6x5-w2x2-s4x3-p0x0-d1x1-a0x0", "kernel smaller than stride: outputs without tap"},
    {"n1g1c8k8-i6x5-w2x2-s4x3-p0x0-d1x1-a3x2", "outputs without tap and adj rows beyond them"},
    {"n1g1c4k4-i6x6-w3x3-s4x6-p2x3-d2x4-a1x1",
     "gcd(stride, dilate) is 2: half the phases are empty"},
    {"n1g1c4k4-i6x6-w3x3-s3x3-p1x1-d3x3-a1x1", "dilate equals stride: one phase only"},
    {"n1g1c4k4-i5x6-w3x2-s2x2-p0x0-d3x5-a0x0", "dilate larger than stride, coprime"},
    {"n1g1c5k6-i9x12-w3x3-s1x1-p4x5-d1x1-a0x0",
     "pad larger than the kernel: inputs that reach nothing"},
    {"n1g1c5k6-i3x3-w1x1-s7x7-p3x3-d1x1-a0x0", "all inputs but the middle one cropped away"},
    {"n1g1c3k4-i3x3-w1x1-s5x5-p5x0-d1x1-a1x0", "the first and the last input cropped away"},
    {"n1g1c3k4-i1x4-w1x3-s5x1-p1x1-d1x1-a4x0", "no tap reaches any output: bias alone"},
    {"n2g1c3k4-i2x2-w2x2-s1x1-p1x1-d1x1-a0x0", "kernel and pad leave a single pixel"},
    {"n2g1c3k4-i2x3-w2x3-s2x2-p2x2-d1x1-a0x0", "output size 0 on one axis"},
    {"n0g1c3k4-i4x4-w3x3-s2x2-p1x1-d1x1-a0x0", "batch 0"},
    {"n9g1c20k12-i1x1-w4x4-s1x1-p0x0-d1x1-a0x0", "one pixel each: the batch is the run"},
    {"n37g1c6k5-i1x1-w1x1-s1x1-p0x0-d1x1-a0x0", "a matrix product over the batch"},
    {"n3g4c8k12-i5x6-w3x3-s2x2-p1x1-d1x1-a1x0", "groups"},
    {"n1g3c51k102-i4x5-w3x3-s2x2-p1x1-d1x1-a0x0", "groups wider than a register tile"},
    {"n2g16c16k16-i6x7-w4x4-s2x2-p1x1-d1x1-a0x0", "depthwise"},
    {"n1g5c5k5-i3x4-w16x16-s8x8-p4x4-d1x1-a0x0", "depthwise, enlarging by 8"},
    {"n2g3c3k3-i4x5-w11x10-s4x5-p2x7-d1x1-a1x2", "depthwise, phases of two and of three taps"},
    {"n1g35c105k175-i4x9-w4x4-s2x2-p1x1-d1x1-a0x0", "many small groups"},
    {"n1g8c8k32-i5x5-w3x3-s2x2-p0x0-d1x1-a0x0", "depthwise with a multiplier"},
    {"n1g8c32k8-i5x5-w3x3-s2x2-p0x0-d1x1-a0x0", "four channels into one, per group"},
    {"n1g1c40k3-i9x9-w5x5-s2x2-p2x2-d1x1-a1x1", "few output channels"},
    {"n1g1c1k24-i9x9-w9x9-s4x4-p2x2-d1x1-a0x0", "one input channel, long kernel"},
    {"n1g1c6k6-i300-w16-s8-p4-d1-a0", "1-D, audio-like: long rows, long kernel"},
    {"n2g1c4k4-i700-w3-s1-p1-d1-a0", "1-D: several pixel blocks in one row"},
    {"n1g1c3k2-i2-w130-s1-p0-d1-a0", "more taps than inputs, more than 64 of them"},
    {"n1g1c2k2-i600-w70-s1-p35-d7-a0", "64 taps and more, dilated: reach beyond a slab"},
    {"n1g1c2k3-i40-w5-s2-p0-d300-a1", "dilation longer than a slab of the weight gradient"},
    {"n2g1c5k7-i3x4x5-w3x2x3-s2x1x2-p1x0x1-d1x2x1-a1x0x1", "3-D, all different"},
    {"n1g2c8k6-i3x3x3-w4x4x4-s2x2x2-p1x1x1-d1x1x1-a0x0x0", "3-D upsampling, groups"},
    {"n3g1c4k4-i1x17x1-w1x3x1-s1x2x1-p0x1x0-d1x1x1-a0x1x0", "the run is the middle axis"},
    {"n3g1c4k4-i19x1x1-w3x1x1-s2x1x1-p1x0x0-d1x1x1-a1x0x0", "the run is the outermost axis"},
    {"n1g1c300k20-i3x3-w3x3-s2x2-p1x1-d1x1-a0x0", "several blocks of the summation per tap"},
    {"n1g1c20k300-i3x3-w3x3-s2x2-p1x1-d1x1-a0x0", "several blocks of output channels"},
    {"n1g1c260k270-i2x3-w2x2-s2x2-p0x0-d1x1-a0x0", "blocks of both channels, few pixels"},
    {"n1g1c128k96-i4x4-w3x3-s1x1-p1x1-d1x1-a0x0", "weights beyond the scratch floor"},
    {"n2g1c3k5-i40x40-w3x3-s1x1-p1x1-d1x1-a0x0", "many pixel blocks and slabs, a split sum"},
    {"n1g1c2k2-i70x50-w2x2-s2x2-p0x0-d1x1-a0x0", "interleaved store over many blocks"},
    {"n5g1c9k10-i3x3-w3x3-s1x1-p1x1-d1x1-a0x0",
     "tiny images: border regions, batch inside a block"},
    {"n70g1c4k4-i2x2-w4x4-s2x2-p1x1-d1x1-a0x0", "tiny images, several blocks of batch"},
};

int64_t draw(Random& random, int64_t least, int64_t most) {
  return least + int64_t(random() % uint64_t(most - least + 1));
}

namespace {

// Reads "-i7x9" into the last axes; returns how many there were.
int read_axes(const char*& at, char key, int64_t (&values)[kAxes]) {
  int count = 0;
  if (at[0] == '-' && at[1] == key) {
    ++at;
    do {
      if (count == kAxes) return 0;
      char* end = nullptr;
      values[count++] = std::strtoll(at + 1, &end, 10);
      at = end;
    } while (*at == 'x');
  }
  return count;
}

[[noreturn]] void refuse(const std::string& name) {
  std::printf("not the name of a problem: %s\n", name.c_str());
  std::exit(2);
}

int64_t full_size(const Axis& axis) {
  return axis.stride * (axis.in - 1) + axis.dilate * (axis.kernel - 1) + 1;
}

}  // namespace

Geometry parse_problem(const std::string& name) {
  long long batch, groups, channels, filters;
  int used = 0;
  if (std::sscanf(name.c_str(), "n%lldg%lldc%lldk%lld%n", &batch, &groups, &channels, &filters,
                  &used) != 4) {
    refuse(name);
  }
  Geometry geometry;
  geometry.batch = batch;
  geometry.groups = groups;
  geometry.in_channels = channels / groups;
  geometry.out_channels = filters / groups;
  const char* at = name.c_str() + used;
  const char keys[] = {'i', 'w', 's', 'p', 'd', 'a'};
  int64_t values[6][kAxes];
  int rank = 0;
  for (int k = 0; k < 6; ++k) {
    const int count = read_axes(at, keys[k], values[k]);
    if (count == 0 || (k > 0 && count != rank)) refuse(name);
    rank = count;
  }
  for (int a = 0; a < rank; ++a) {
    Axis& axis = geometry.axis[kAxes - rank + a];
    axis = {values[0][a], 0, values[1][a], values[2][a], values[4][a], values[3][a]};
    axis.out = full_size(axis) - 2 * axis.pad + values[5][a];
    if (axis.out < 0) refuse(name);
  }
  return geometry;
}

std::string name_of(const Geometry& geometry) {
  const auto axes = [&geometry](const char* key, int64_t (*of)(const Axis&)) {
    std::string text = key;
    for (const Axis& axis : geometry.axis) {
      text += (text == key ? "" : "x") + std::to_string(of(axis));
    }
    return text;
  };
  return "n" + std::to_string(geometry.batch) + "g" + std::to_string(geometry.groups) + "c" +
         std::to_string(geometry.groups * geometry.in_channels) + "k" +
         std::to_string(geometry.groups * geometry.out_channels) +
         axes("-i", [](const Axis& axis) { return axis.in; }) +
         axes("-w", [](const Axis& axis) { return axis.kernel; }) +
         axes("-s", [](const Axis& axis) { return axis.stride; }) +
         axes("-p", [](const Axis& axis) { return axis.pad; }) +
         axes("-d", [](const Axis& axis) { return axis.dilate; }) +
         axes("-a", [](const Axis& axis) { return axis.out - full_size(axis) + 2 * axis.pad; });
}

int64_t products_of(const Geometry& geometry) {
  return geometry.batch * geometry.groups * geometry.in_channels * geometry.out_channels *
         geometry.in_pixels() * geometry.taps();
}

Geometry random_problem(Random& random, int64_t most_products) {
  Geometry geometry;
  const int rank = int(draw(random, 1, 3));
  const int64_t most_in = rank == 1 ? (draw(random, 0, 3) ? 40 : 900) : rank == 2 ? 20 : 7;
  const int64_t most_kernel = rank == 1 ? (draw(random, 0, 5) ? 9 : 90) : rank == 2 ? 6 : 4;
  for (int a = kAxes - rank; a < kAxes; ++a) {
    Axis& axis = geometry.axis[a];
    axis.in = draw(random, 1, draw(random, 0, 3) ? most_in : 3);
    axis.kernel = draw(random, 1, most_kernel);
    axis.stride = draw(random, 0, 1) ? draw(random, 1, 2) : draw(random, 1, 7);
    axis.dilate = draw(random, 0, 1) ? 1 : draw(random, 1, 6);
    const int64_t full = full_size(axis) + draw(random, 0, axis.stride - 1);  // with adj
    axis.pad = std::min(draw(random, 0, axis.dilate * axis.kernel), full / 2);
    axis.out = full - 2 * axis.pad;
  }
  geometry.batch = draw(random, 0, 15) ? draw(random, 1, 4) : draw(random, 0, 60);
  geometry.groups = draw(random, 0, 2) ? 1 : draw(random, 1, 6);
  // Log-uniform channels, cut until the work fits.
  int64_t most[2];
  for (int64_t& channels : most) channels = int64_t(1) << draw(random, 0, 9);
  geometry.in_channels = draw(random, 1, most[0]);
  geometry.out_channels = draw(random, 1, most[1]);
  while (products_of(geometry) > most_products) {
    int64_t& larger =
        geometry.in_channels > geometry.out_channels ? geometry.in_channels : geometry.out_channels;
    if (larger > 1) {
      larger = (larger + 1) / 2;
    } else if (geometry.batch > 1) {
      geometry.batch /= 2;
    } else {
      break;
    }
  }
  return geometry;
}

}  // namespace mxd::test

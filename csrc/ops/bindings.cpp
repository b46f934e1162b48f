// The Python module mxdeconv._C. Importing it registers the ops; its functions serve diagnostics
// and tests, never a computation.
#include <c10/util/Exception.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdlib>

#include "core/tap_plan.h"
#include "cpu/cpu_isa.h"
#include "cpu/engine.h"
#include "cpu/fold.h"
#include "cpu/scratch.h"
#include "ops/described_problem.h"
#include "ops/eager_call.h"
#include "ops/frozen_weight.h"
#ifdef MXD_HAVE_CUDA
#include "ops/cuda_bindings.h"
#endif

namespace py = pybind11;

namespace mxd::ops {
namespace {

void set_isa(const std::string& name, const char* argument) {
  if (cpu::set_isa(name)) return;
  std::string valid;
  for (const std::string& isa : cpu::available_isas()) {
    valid += (valid.empty() ? "'" : ", '") + isa + "'";
  }
  throw py::value_error(std::string(argument) + " must be one of " + valid + ", got '" + name +
                        "'");
}

py::dict build_info() {
  py::dict info;
  info["torch"] = TORCH_VERSION;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["cpu_isas"] = cpu::available_isas();
  info["cpu_isa"] = cpu::isa_in_use();
  info["cuda"] = false;
  info["cuda_version"] = py::none();
  info["cuda_archs"] = "";
  info["cudnn"] = py::none();
#ifdef MXD_HAVE_CUDA
  add_cuda_build_info(info);
#endif
  return info;
}

constexpr int64_t kMostPhasesToList = 4096;  // of one axis; beyond, the list is left empty

py::dict choose(const std::string& pass, const std::string& dtype, int64_t batch, int64_t groups,
                int64_t in_channels, int64_t out_channels, const std::vector<AxisTuple>& axes,
                bool channels_last, int64_t workspace_mb) {
  const Problem problem =
      described_problem(dtype, batch, groups, in_channels, out_channels, axes, channels_last);
  const cpu::Choice choice = cpu::choose(pass_named(pass), cpu::folded(problem),
                                         std::min(workspace_mb, int64_t(1) << 40) << 20);
  const cpu::Kernels& kernels = cpu::kernels_for(problem.dtype);
  py::dict plan;
  plan["algorithm"] = cpu::name_of(choice.algorithm);
  plan["lanes"] = cpu::name_of(choice.lanes);
  plan["reason"] = choice.reason;
  plan["unfiltered"] = choice.unfiltered ? choice.unfiltered : "";
  plan["isa"] = cpu::isa_in_use();
  plan["tile"] = std::make_pair(kernels.max_rows, kernels.cols);
  py::list phases;
  for (size_t a = 0; a < axes.size(); ++a) {
    const Axis& axis = problem.geometry.axis[size_t(kAxes) - axes.size() + a];
    py::list taps;
    if (phase_candidates(axis) <= kMostPhasesToList) {
      for (const AxisTaps& phase : forward_phases(axis)) taps.append(phase.tap_count);
    }
    phases.append(taps);
  }
  plan["taps_per_phase"] = phases;
  return plan;
}

py::dict runs() {
  py::dict counts;
  for (int a = 0; a < cpu::kAlgorithms; ++a) {
    counts[cpu::name_of(cpu::Algorithm(a))] = cpu::runs_of(cpu::Algorithm(a));
  }
  return counts;
}

// An empty name forces none.
void force_algorithm(const std::string& name) {
  int algorithm = 0;
  while (algorithm < cpu::kAlgorithms && name != cpu::name_of(cpu::Algorithm(algorithm))) {
    ++algorithm;
  }
  if (algorithm == cpu::kAlgorithms && !name.empty()) {
    throw py::value_error("name must be that of an algorithm, as runs() lists them, got '" + name +
                          "'");
  }
  cpu::force_algorithm(algorithm);
}

void read_environment() {
  if (const char* isa = std::getenv("MXDECONV_CPU_ISA")) set_isa(isa, "MXDECONV_CPU_ISA");
  if (const char* value = std::getenv("MXDECONV_MINIMAL_FILTERING")) {
    const std::string text = value;
    if (text != "0" && text != "1") {
      throw py::value_error("MXDECONV_MINIMAL_FILTERING must be 0 or 1, got '" + text + "'");
    }
    cpu::set_minimal_filtering(text == "1");
  }
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "mxdeconv's compiled part: registers torch.ops.mxdeconv and describes the engine";
  m.def("build_info", &build_info);
  m.def("choose", &choose, py::arg("pass_"), py::arg("dtype"), py::arg("batch"), py::arg("groups"),
        py::arg("in_channels"), py::arg("out_channels"), py::arg("axes"), py::arg("channels_last"),
        py::arg("workspace"));
  m.def("runs", &runs, "How often each algorithm has run in this process.");
  m.def(
      "set_cpu_isa", [](const std::string& name) { set_isa(name, "name"); }, py::arg("name"));
  m.def("set_poison_scratch", &cpu::set_poison_scratch, py::arg("poison"),
        "Fill scratch memory with NaN before use (for tests).");
  m.def("force_algorithm", &force_algorithm, py::arg("name"),
        "Makes calls use the algorithm where it can do the problem; '' forces none (for tests).");
  m.def("minimal_filtering", &cpu::minimal_filtering);
  m.def("set_minimal_filtering", &cpu::set_minimal_filtering, py::arg("enabled"));
  bind_eager_call(m);
  bind_frozen_weight(m);
#ifdef MXD_HAVE_CUDA
  bind_cuda(m);
#endif
  read_environment();
}

}  // namespace mxd::ops

// The ops of the trilinear form. See csrc/README.md for how a call travels.
#include <torch/library.h>

#define MXD_ARGUMENTS                                                          \
  "int[] stride, int[] dilate, SymInt[] pad, SymInt[] adj, SymInt num_group, " \
  "int workspace, str? cudnn_tune, bool cudnn_off"

TORCH_LIBRARY(mxdeconv, m) {
  m.def("deconvolution(Tensor data, Tensor weight, Tensor? bias, " MXD_ARGUMENTS ") -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def("deconvolution_data(Tensor weight, Tensor out_grad, " MXD_ARGUMENTS ") -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def("deconvolution_weight(Tensor data, Tensor out_grad, " MXD_ARGUMENTS ") -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def("deconvolution_into(Tensor data, Tensor weight, Tensor? bias, " MXD_ARGUMENTS
        ", Tensor(a!) out) -> ()",
        {at::Tag::pt2_compliant_tag});
}

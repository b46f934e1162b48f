// cuDNN's backend C API, of the libcudnn that torch has loaded.
//
// Its functions are looked up in that library and not linked: one process then has one cuDNN,
// whatever else is installed, and an extension that was built with cuDNN's headers imports without.
#pragma once

#include <cudnn_backend.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace mxd::ops {

struct CudnnApi {
  decltype(&cudnnBackendCreateDescriptor) create = nullptr;
  decltype(&cudnnBackendDestroyDescriptor) destroy = nullptr;
  decltype(&cudnnBackendSetAttribute) set = nullptr;
  decltype(&cudnnBackendGetAttribute) get = nullptr;
  decltype(&cudnnBackendFinalize) finalize = nullptr;
  decltype(&cudnnBackendExecute) execute = nullptr;
  decltype(&cudnnGetErrorString) error_string = nullptr;
};

// Null where torch has no libcudnn of the major version that this was built with.
const CudnnApi* cudnn_api();

struct CudnnError : std::runtime_error {
  CudnnError(const std::string& what, cudnnStatus_t status);
};

// A backend descriptor of its own: attributes are set, then it is finalized.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();

  cudnnBackendDescriptor_t get() const { return descriptor_; }

  template <class T>
  void set(cudnnBackendAttributeName_t name, const T& value) {
    set_array(name, attribute_type(value), 1, &value);
  }
  void set(cudnnBackendAttributeName_t name, const Descriptor& value) {
    set_array(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.descriptor_);
  }
  template <class T>
  void set(cudnnBackendAttributeName_t name, const std::vector<T>& values) {
    set_array(name, attribute_type(T{}), int64_t(values.size()), values.data());
  }
  void set(cudnnBackendAttributeName_t name, const std::string& text) {
    set_array(name, CUDNN_TYPE_CHAR, int64_t(text.size()), text.data());
  }
  void set_array(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                 const void* values);

  void finalize();

  int64_t get_int64(cudnnBackendAttributeName_t name) const;
  // Up to `most` values; returns how many there are.
  int64_t get_array(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                    int64_t most, void* values) const;
  // All the descriptors that an attribute holds.
  std::vector<Descriptor> get_descriptors(cudnnBackendAttributeName_t name,
                                          cudnnBackendDescriptorType_t type) const;

 private:
  static cudnnBackendAttributeType_t attribute_type(int64_t) { return CUDNN_TYPE_INT64; }
  static cudnnBackendAttributeType_t attribute_type(bool) { return CUDNN_TYPE_BOOLEAN; }
  static cudnnBackendAttributeType_t attribute_type(float) { return CUDNN_TYPE_FLOAT; }
  static cudnnBackendAttributeType_t attribute_type(double) { return CUDNN_TYPE_DOUBLE; }
  static cudnnBackendAttributeType_t attribute_type(void*) { return CUDNN_TYPE_VOID_PTR; }
  static cudnnBackendAttributeType_t attribute_type(cudnnHandle_t) { return CUDNN_TYPE_HANDLE; }
  static cudnnBackendAttributeType_t attribute_type(cudnnDataType_t) {
    return CUDNN_TYPE_DATA_TYPE;
  }
  static cudnnBackendAttributeType_t attribute_type(cudnnConvolutionMode_t) {
    return CUDNN_TYPE_CONVOLUTION_MODE;
  }
  static cudnnBackendAttributeType_t attribute_type(cudnnPointwiseMode_t) {
    return CUDNN_TYPE_POINTWISE_MODE;
  }
  static cudnnBackendAttributeType_t attribute_type(cudnnBackendHeurMode_t) {
    return CUDNN_TYPE_HEUR_MODE;
  }

  cudnnBackendDescriptor_t descriptor_ = nullptr;
};

}  // namespace mxd::ops

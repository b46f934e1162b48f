#include "ops/cudnn_api.h"

#include <dlfcn.h>

#include <utility>

#define MXD_TEXT_OF(x) #x
#define MXD_TEXT(x) MXD_TEXT_OF(x)

namespace mxd::ops {
namespace {

// Not loaded anew: another cuDNN than torch's would want handles of its own.
CudnnApi loaded(bool& complete) {
  CudnnApi api;
  void* const library =
      dlopen("libcudnn.so." MXD_TEXT(CUDNN_MAJOR), RTLD_NOW | RTLD_NOLOAD | RTLD_LOCAL);
  if (!library) return api;
  complete = true;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    complete = complete && function;
  };
  find(api.create, "cudnnBackendCreateDescriptor");
  find(api.destroy, "cudnnBackendDestroyDescriptor");
  find(api.set, "cudnnBackendSetAttribute");
  find(api.get, "cudnnBackendGetAttribute");
  find(api.finalize, "cudnnBackendFinalize");
  find(api.execute, "cudnnBackendExecute");
  find(api.error_string, "cudnnGetErrorString");
  return api;
}

void check(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) throw CudnnError(what, status);
}

}  // namespace

const CudnnApi* cudnn_api() {
  static bool complete = false;
  static const CudnnApi api = loaded(complete);
  return complete ? &api : nullptr;
}

CudnnError::CudnnError(const std::string& what, cudnnStatus_t status)
    : std::runtime_error("cuDNN could not " + what + ": " + cudnn_api()->error_string(status)) {}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  check(cudnn_api()->create(type, &descriptor_), "create a descriptor");
}

Descriptor::Descriptor(Descriptor&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, nullptr)) {}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

Descriptor::~Descriptor() {
  if (descriptor_) cudnn_api()->destroy(descriptor_);
}

void Descriptor::set_array(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                           int64_t count, const void* values) {
  check(cudnn_api()->set(descriptor_, name, type, count, values), "set an attribute");
}

void Descriptor::finalize() { check(cudnn_api()->finalize(descriptor_), "finalize a descriptor"); }

int64_t Descriptor::get_int64(cudnnBackendAttributeName_t name) const {
  int64_t value = 0;
  get_array(name, CUDNN_TYPE_INT64, 1, &value);
  return value;
}

int64_t Descriptor::get_array(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                              int64_t most, void* values) const {
  int64_t count = 0;
  check(cudnn_api()->get(descriptor_, name, type, most, &count, values), "get an attribute");
  return count;
}

std::vector<Descriptor> Descriptor::get_descriptors(cudnnBackendAttributeName_t name,
                                                    cudnnBackendDescriptorType_t type) const {
  const int64_t count = get_array(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, nullptr);
  std::vector<Descriptor> descriptors;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int64_t i = 0; i < count; ++i) {
    descriptors.emplace_back(type);
    raw.push_back(descriptors.back().get());
  }
  if (count > 0) {
    const int64_t got = get_array(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, raw.data());
    while (int64_t(descriptors.size()) > got) descriptors.pop_back();
  }
  return descriptors;
}

}  // namespace mxd::ops

// How operators call the kernels, which lie in other libraries.

#pragma once

#include "signatures.h"

#include <ATen/ATen.h>

#include <atomic>
#include <type_traits>
#include <vector>

namespace {

using at::IntArrayRef;
using at::Tensor;
using at::TensorList;

// Arguments as kernels of T take them: of a list where each tensor begins, null for one that is not there.
template <typename T>
struct Starts : std::vector<T*> {
  operator T* const*() const { return this->data(); }
};
template <typename T>
double argument(double x) {
  return x;
}
template <typename T, typename Whole, std::enable_if_t<std::is_integral_v<Whole>, int> = 0>
int64_t argument(Whole x) {
  return x;
}
template <typename T>
const int64_t* argument(IntArrayRef x) {
  return x.data();
}
template <typename T>
const Slice* argument(const std::vector<Slice>& x) {
  return x.data();
}
template <typename T>
T* argument(const Tensor& x) {
  return x.defined() ? x.data_ptr<T>() : nullptr;
}
template <typename T>
Starts<T> argument(TensorList tensors) {
  Starts<T> result;
  for (const Tensor& x : tensors) result.push_back(argument<T>(x));
  return result;
}

// Where a function of a library is, from Python; null if it cannot be compiled.
using Find = void* (*)(const char* source, const char* function);
Find find = nullptr;

// A function of a library, looked for when it is first needed.
class Symbol {
 public:
  Symbol(const char* source, const char* function) : source_(source), function_(function) { all().push_back(this); }
  void* address() {
    if (!address_) address_ = find(source_, function_);
    TORCH_CHECK(address_, source_, ".cpp could not be compiled");
    return address_;
  }
  static std::vector<Symbol*>& all() {
    static std::vector<Symbol*> symbols;
    return symbols;
  }
  void forget() { address_ = nullptr; }

 private:
  const char *source_, *function_;
  std::atomic<void*> address_{};
};

// A kernel of the types that signatures.h has for it.
template <typename Float, typename Double>
struct Kernel {
  Symbol of_float, of_double;
  template <typename... Arguments>
  void operator()(const Tensor& like, const Arguments&... arguments) {
    if (like.scalar_type() == at::kFloat)
      reinterpret_cast<Float*>(of_float.address())(argument<float>(arguments)...);
    else
      reinterpret_cast<Double*>(of_double.address())(argument<double>(arguments)...);
  }
};
#define KERNEL(source, name) \
  Kernel<decltype(name##_float), decltype(name##_double)> { {#source, #name "_float"}, {#source, #name "_double"} }

}  // namespace

// Kernels trust what they are given: what operators are called with is checked before.

#pragma once

#include <ATen/ATen.h>

#include <initializer_list>
#include <vector>

namespace {

using at::IntArrayRef;
using at::Tensor;
using at::TensorList;

// Of every operator: all tensors are on a CPU and of one dtype, fp32 or fp64.
void check_tensors(std::initializer_list<TensorList> lists) {
  TORCH_CHECK(!lists.begin()->empty(), "a feature has at least one part, got none");
  const auto dtype = lists.begin()->front().scalar_type();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kDouble, "fp32 or fp64, got ", dtype);
  for (const TensorList& tensors : lists)
    for (const Tensor& x : tensors)
      TORCH_CHECK(x.is_cpu() && x.scalar_type() == dtype, "tensors of ", dtype, " on a CPU, got one of ",
                  x.scalar_type(), " on ", x.device());
}

void check_shape(const char* what, const Tensor& x, IntArrayRef shape) {
  TORCH_CHECK(x.sizes() == shape, what, " of shape ", shape, ", got ", x.sizes());
}

void check_number(const char* what, size_t number, size_t expected) {
  TORCH_CHECK(number == expected, expected, " ", what, ", got ", number);
}

void check_shapes(const char* what, TensorList tensors, size_t number, IntArrayRef shape) {
  check_number(what, tensors.size(), number);
  for (const Tensor& x : tensors) check_shape(what, x, shape);
}

void check_mirrored(size_t parts) {
  TORCH_CHECK(parts == 1 || parts == 2 || parts == 4, "the GELU takes 1, 2 or 4 parts, got ", parts);
}

std::vector<int64_t> with_channels(const Tensor& x, int64_t channels) {
  auto shape = x.sizes().vec();
  shape.back() = channels;
  return shape;
}

}  // namespace

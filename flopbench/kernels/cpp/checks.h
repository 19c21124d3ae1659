// Kernels trust what they are given: what operators are called with is checked before.

#pragma once

#include "signatures.h"

#include <ATen/ATen.h>

#include <algorithm>
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

std::vector<int64_t> with_channels(const Tensor& x, int64_t channels) {
  auto shape = x.sizes().vec();
  shape.back() = channels;
  return shape;
}

int64_t count(TensorList tensors) { return tensors.size(); }
int64_t channels(const Tensor& x) { return x.size(-1); }
int64_t rows(const Tensor& x) { return x.numel() / channels(x); }

// One leading shape, which may be of any channels.
void check_rows(const char* what, TensorList tensors) {
  for (const Tensor& x : tensors) {
    TORCH_CHECK(x.dim() > 0 && channels(x) > 0, what, " [..., channels], got ", x.sizes());
    check_shape(what, x, with_channels(tensors[0], channels(x)));
  }
}

void check_like(const char* what, TensorList tensors, TensorList like) {
  check_number(what, tensors.size(), like.size());
  for (size_t n = 0; n < like.size(); ++n) check_shape(what, tensors[n], like[n].sizes());
}

// How many there are, which is known where a compiler traces sizes as symbols too.
void check_linear_numbers(TensorList x, TensorList weight, IntArrayRef of, IntArrayRef biased) {
  const int64_t parts = count(x), weights = count(weight);
  TORCH_CHECK(count(x) == int64_t(of.size()), "a weight of each of ", parts, " parts, got ", of);
  std::vector<bool> used(weights), seen(parts);
  for (const int64_t w : of) {
    TORCH_CHECK(0 <= w && w < weights, "weights of ", weights, ", got ", of);
    used[w] = true;
  }
  TORCH_CHECK(std::find(used.begin(), used.end(), false) == used.end(), "parts of every one of ", weights,
              " weights, got ", of);
  for (const int64_t p : biased) {
    TORCH_CHECK(0 <= p && p < parts && !seen[p], "biases of different parts of ", parts, ", got ", biased);
    seen[p] = true;
  }
}

void check_linear(TensorList x, TensorList weight, IntArrayRef of, IntArrayRef biased) {
  check_linear_numbers(x, weight, of, biased);
  for (const Tensor& w : weight) {
    TORCH_CHECK(w.dim() == 2, "weights [out, in], got ", w.sizes());
    TORCH_CHECK(w.size(0) > 0 && w.size(1) > 0 && w.size(0) % CHANNELS == 0, "a multiple of ", CHANNELS,
                " channels out of some, got ", w.size(0), " out of ", w.size(1));
  }
  check_rows("parts", x);
  for (size_t p = 0; p < x.size(); ++p) check_shape("parts", x[p], with_channels(x[p], weight[of[p]].size(1)));
}

// The irrep of each part: one of dimension d has d rows.
std::vector<int64_t> irreps_of(IntArrayRef dimensions) {
  std::vector<int64_t> result;
  for (size_t n = 0; n < dimensions.size(); ++n) {
    TORCH_CHECK(dimensions[n] > 0, "dimensions of irreps, got ", dimensions);
    result.insert(result.end(), dimensions[n], n);
  }
  return result;
}

void check_layer_norm(TensorList x, TensorList branch, TensorList gamma, TensorList affine, IntArrayRef dimensions,
                      IntArrayRef irreps) {
  check_rows("parts", x);
  TORCH_CHECK(irreps.size() == x.size() && count(x) <= MOST_PARTS, "up to ", MOST_PARTS, " parts, of dimensions ",
              dimensions, ", got ", x.size());
  if (!branch.empty()) check_like("parts of a branch", branch, x);
  if (!gamma.empty()) check_number("scales of a branch", gamma.size(), dimensions.size());
  check_number("gains and a shift", affine.size(), dimensions.size() + 1);
  for (size_t p = 0; p < x.size(); ++p) {
    check_shape("gains", affine[irreps[p]], {channels(x[p])});
    if (!gamma.empty()) check_shape("scales", gamma[irreps[p]], {channels(x[p])});
  }
  check_shape("the shift", affine.back(), {channels(x[0])});
}

void check_attention(TensorList qkv, int64_t heads) {
  TORCH_CHECK(heads > 0, "at least one head, got ", heads);
  TORCH_CHECK(qkv[0].dim() == 3, "parts [batch, tokens, channels], got ", qkv[0].sizes());
  for (const Tensor& x : qkv) {
    check_shape("parts", x, with_channels(qkv[0], channels(x)));
    const int64_t width = channels(x) / 3;
    TORCH_CHECK(width > 0 && channels(x) % 3 == 0 && width % heads == 0, "q, k and v of ", heads,
                " heads side by side, got ", channels(x), " channels");
  }
}

void check_attention_gradient(TensorList grads, TensorList qkv, TensorList mixed, const Tensor& normaliser,
                              int64_t heads) {
  check_attention(qkv, heads);
  check_shape("the normaliser", normaliser, {qkv[0].size(0), heads, qkv[0].size(1)});
  check_number("gradients", grads.size(), qkv.size());
  check_number("mixed parts", mixed.size(), qkv.size());
  for (size_t p = 0; p < qkv.size(); ++p) {
    const auto shape = with_channels(qkv[p], channels(qkv[p]) / 3);
    check_shape("gradients", grads[p], shape);
    check_shape("mixed parts", mixed[p], shape);
  }
}

// Into how many slices each part falls, which point each of them is, and the points' signs.
struct Transform {
  IntArrayRef slices, order, signs;

  void check(size_t parts) const {
    const size_t points = order.size();
    TORCH_CHECK(points == 1 || points == 2 || points == 4 || points == 8, "the GELU takes 1, 2, 4 or 8 points, got ",
                points);
    TORCH_CHECK(slices.size() == parts, "slices of each of ", parts, " parts, got ", slices);
    size_t sum = 0;
    for (const int64_t n : slices) {
      TORCH_CHECK(n > 0, "at least one slice of each part, got ", slices);
      sum += n;
    }
    TORCH_CHECK(sum == points, "as many slices as points, ", points, ", got ", slices);
    std::vector<bool> seen(points);
    for (const int64_t n : order) {
      TORCH_CHECK(0 <= n && n < int64_t(points) && !seen[n], "an order of all slices, got ", order);
      seen[n] = true;
    }
    TORCH_CHECK(signs.size() == points, "a sign of each of ", points, " points, got ", signs);
    for (const int64_t sign : signs)
      TORCH_CHECK(sign == 1 || (sign == -1 && points > 1), "signs 1 or, of several points, -1, got ", signs);
  }

  // The points, in their order, in parts of so many channels.
  std::vector<Slice> points(IntArrayRef channels) const {
    TORCH_CHECK(channels[0] % slices[0] == 0, slices[0], " slices of a part, got ", channels[0], " channels");
    const int64_t width = channels[0] / slices[0];
    std::vector<Slice> all, result;
    for (size_t p = 0; p < slices.size(); ++p) {
      TORCH_CHECK(channels[p] == slices[p] * width, slices[p], " slices of ", width, " channels in a part, got ",
                  channels[p], " channels");
      for (int64_t n = 0; n < slices[p]; ++n) all.push_back({int64_t(p), n * width, width, 1});
    }
    for (size_t n = 0; n < order.size(); ++n) {
      result.push_back(all[order[n]]);
      result.back().sign = signs[n];
    }
    return result;
  }
};

}  // namespace

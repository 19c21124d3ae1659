// The kernels, each for float and for double, declared once for the source that defines them and for the operators
// that call them: what does not fit compiles in neither.
//
// Tensors are dense, a list of them is an array of where each begins, and kernels check nothing: the operators do.

#pragma once

#include <cstdint>

namespace {

// Channels of linear maps are multiples of it: whole vectors of every CPU.
constexpr int64_t CHANNELS = 16;
// Of the transform that a non-linearity is taken in.
constexpr int64_t MOST_POINTS = 8;
// Of a feature whose norm is taken.
constexpr int64_t MOST_PARTS = 8;

}  // namespace

// Neighbouring channels of a part, which are computed together: all of them, or one point of the transform that a
// non-linearity is taken in, whose points are all of one width. What lies in the part is the point's value, or if the
// sign is −1, its negative.
struct Slice {
  int64_t part, first, width, sign;
};

// Lists are by part where nothing else is said: `in` and `out` are their channels, weights and biases what is for them.
#define DECLARE(T)                                                                                                   \
  void linear_parts_##T(int64_t count, const Slice* slices, int64_t rows, int64_t transposed, int64_t gelu,          \
                        const int64_t* in, const int64_t* out, int64_t threads, const T* const* x,                   \
                        const T* const* weight, const T* const* bias, T* const* y);                                  \
  void linear_weight_gradient_##T(int64_t parts, int64_t weights, int64_t rows, const int64_t* of,                   \
                                  const int64_t* in, const int64_t* out, int64_t threads, const T* const* g,         \
                                  const T* const* x, T* const* grad_by_weight, T* const* grad_bias);                 \
  void gelu_parts_##T(int64_t count, const Slice* slices, int64_t rows, const int64_t* channels, int64_t threads,    \
                      const T* const* x, T* const* y);                                                               \
  void gelu_parts_backward_##T(int64_t count, const Slice* slices, int64_t rows, const int64_t* channels,            \
                               int64_t threads, const T* const* x, const T* const* g, T* const* y);                  \
  void layer_norm_rows_##T(int64_t parts, int64_t rows, const int64_t* widths, const int64_t* irreps,                \
                           const int64_t* dimensions, double eps, int64_t added, int64_t scaled, int64_t threads,    \
                           const T* const* x, const T* const* branch, const T* const* gamma, const T* const* gain,   \
                           const T* shift, T* const* sums, T* const* y);                                             \
  void attention_parts_##T(int64_t parts, int64_t batch, int64_t tokens, int64_t heads, const int64_t* widths,       \
                           int64_t threads, const T* const* qkv, T* const* mixed, T* normaliser);                    \
  void attention_parts_backward_##T(int64_t parts, int64_t batch, int64_t tokens, int64_t heads,                     \
                                    const int64_t* widths, int64_t threads, const T* const* grad,                    \
                                    const T* const* qkv, const T* const* mixed, const T* normaliser,                 \
                                    T* const* grad_qkv);                                                             \
  void depthwise_weight_gradient_##T(int64_t batch, int64_t rows, int64_t columns, int64_t channels, int64_t kernel, \
                                     int64_t threads, const T* input, const T* grad, T* weight);

extern "C" {
DECLARE(float)
DECLARE(double)
}

// A product in registers, and scratch memory.

#pragma once

#include "vector.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <type_traits>

namespace {

// A tile of a product stays in registers: 6 rows of 4 vectors of 32 registers, or of 2 of AVX2's 16.
constexpr int64_t ROWS = 6;
#if defined(CPU_CAPABILITY_AVX2)
constexpr int VECTORS = 2;
#else
constexpr int VECTORS = 4;
#endif

template <typename T>
constexpr int64_t LINE = 64 / sizeof(T);  // of a cache

int64_t padded(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// c = start + a · b, or c += a · b, for up to ROWS rows and V vectors of columns. a(i, k) is
// a[i · row + k · column], b(k, j) is b[k · stride + j] and c(i, j) c[i · width + j]; start null is 0. With `ahead`,
// what lies so far behind each a(i, k) is fetched meanwhile, a line at a time: all at once it would be in the way of
// b. What is as it is here is measured: with a function for the start the compiler lost 5 to 10 % in short products.
template <typename T, int V>
inline void tile(int64_t rows, int64_t inner, const T* a, int64_t row, int64_t column, const T* b, int64_t stride,
                 const T* start, bool adds, T* c, int64_t width, int64_t ahead = 0) {
  // Rows that are missing are computed from the last one, and not stored.
  int64_t at[ROWS];
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; ++r) at[r] = std::min<int64_t>(r, rows - 1);
  Vec<T> sum[ROWS][V];
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      sum[r][v] = adds    ? Vec<T>::loadu(c + at[r] * width + v * LANES<T>)
                  : start ? Vec<T>::loadu(start + v * LANES<T>)
                          : Vec<T>(T(0));
  const T *a0 = a + at[0] * row, *a1 = a + at[1] * row, *a2 = a + at[2] * row, *a3 = a + at[3] * row,
          *a4 = a + at[4] * row, *a5 = a + at[5] * row;
  for (int64_t k = 0; k < inner; ++k) {
    Vec<T> right[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) right[v] = Vec<T>::loadu(b + k * stride + v * LANES<T>);
    const T* left[ROWS] = {a0, a1, a2, a3, a4, a5};
    if (ahead && k % LINE<T> == 0)
#pragma GCC unroll 6
      for (int r = 0; r < ROWS; ++r) __builtin_prefetch(left[r] + k * column + ahead);
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; ++r) {
      const Vec<T> factor(left[r][k * column]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = at::vec::fmadd(factor, right[v], sum[r][v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; ++r)
    if (r < rows)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v].store(c + r * width + v * LANES<T>);
}

// Call `run` with how many vectors a tile of so many columns has, as a constant.
template <typename T, typename Run>
inline void with_vectors(int64_t columns, Run run) {
  switch (std::min<int64_t>(VECTORS, columns / LANES<T>)) {
    case 1:
      return run(std::integral_constant<int, 1>());
    case 2:
      return run(std::integral_constant<int, 2>());
#if !defined(CPU_CAPABILITY_AVX2)
    case 3:
      return run(std::integral_constant<int, 3>());
    default:
      return run(std::integral_constant<int, 4>());
#endif
  }
}

template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t size)
      : memory_(static_cast<T*>(std::aligned_alloc(64, padded(size * sizeof(T), 64))), std::free),
        next_(memory_.get()) {}
  T* take(int64_t size) {
    T* block = next_;
    next_ += size;
    return block;
  }
  T* zeros(int64_t size) {
    std::fill_n(next_, size, T(0));
    return take(size);
  }

 private:
  std::unique_ptr<T, decltype(&std::free)> memory_;
  T* next_;
};

}  // namespace

// A product in registers, and scratch memory.

#pragma once

#include "vector.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <type_traits>
#include <utility>

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

// N values that a compiler sees as so many variables. Whether it keeps an array in registers depends on what else is
// there: with a fetch within its loop, a tile took three times as long.
template <typename Value, int N>
struct Values {
  Value first;
  Values<Value, N - 1> rest;
  template <int I>
  [[gnu::always_inline]] Value& at() {
    if constexpr (I == 0)
      return first;
    else
      return rest.template at<I - 1>();
  }
};
template <typename Value>
struct Values<Value, 0> {};

// `run` with 0 to N - 1, as constants.
template <int... I, typename Run>
[[gnu::always_inline]] inline void repeat(std::integer_sequence<int, I...>, const Run& run) {
  (run(std::integral_constant<int, I>()), ...);
}
template <int N, typename Run>
[[gnu::always_inline]] inline void repeat(const Run& run) {
  repeat(std::make_integer_sequence<int, N>(), run);
}
#define EACH(I) [&](auto I) __attribute__((always_inline))

struct Nothing {
  template <typename T>
  void operator()(int64_t, const T* const*) const {}
};

// c = start + a · b, or c += a · b, for up to ROWS rows and V vectors of columns. a(i, k) is
// a[i · row + k · column], b(k, j) is b[k · stride + j] and c(i, j) c[i · width + j]; start null is 0. Before each term
// of the sums, `meanwhile` may fetch what will be needed, given the rows of a; a few lines at a time: all at once they
// would be in the way of b. It has to be inlined, for of a function that only fetches, GCC drops the calls. What is as
// it is here is measured: with a function for the start the compiler lost 5 to 10 % in short products, and with calls
// of tiles 5 %.
template <typename T, int V, typename Meanwhile = Nothing>
[[gnu::always_inline]] inline void tile(int64_t rows, int64_t inner, const T* a, int64_t row, int64_t column,
                                        const T* b, int64_t stride, const T* start, bool adds, T* c, int64_t width,
                                        Meanwhile meanwhile = {}) {
  // Rows that are missing are computed from the last one, and not stored.
  int64_t at[ROWS];
  repeat<ROWS>(EACH(r) { at[r] = std::min<int64_t>(r, rows - 1); });
  Values<Vec<T>, ROWS * V> sum;
  repeat<ROWS>(EACH(r) {
    repeat<V>(EACH(v) {
      sum.template at<r * V + v>() = adds    ? Vec<T>::loadu(c + at[r] * width + v * LANES<T>)
                                     : start ? Vec<T>::loadu(start + v * LANES<T>)
                                             : Vec<T>(T(0));
    });
  });
  const T *a0 = a + at[0] * row, *a1 = a + at[1] * row, *a2 = a + at[2] * row, *a3 = a + at[3] * row,
          *a4 = a + at[4] * row, *a5 = a + at[5] * row;
  for (int64_t k = 0; k < inner; ++k) {
    Values<Vec<T>, V> right;
    repeat<V>(EACH(v) { right.template at<v>() = Vec<T>::loadu(b + k * stride + v * LANES<T>); });
    const T* const left[ROWS] = {a0, a1, a2, a3, a4, a5};
    meanwhile(k, left);
    repeat<ROWS>(EACH(r) {
      const Vec<T> factor(left[r][k * column]);
      repeat<V>(EACH(v) {
        sum.template at<r * V + v>() = at::vec::fmadd(factor, right.template at<v>(), sum.template at<r * V + v>());
      });
    });
  }
  repeat<ROWS>(EACH(r) {
    if (r < rows) repeat<V>(EACH(v) { sum.template at<r * V + v>().store(c + r * width + v * LANES<T>); });
  });
}

// Call `run` with how many vectors a tile of so many columns has, as a constant.
template <typename T, typename Run>
[[gnu::always_inline]] inline void with_vectors(int64_t columns, Run run) {
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

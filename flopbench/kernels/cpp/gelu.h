// The GELU, its derivative, and the transform that it is taken in.

#pragma once

#include "signatures.h"
#include "vector.h"

#include <cmath>
#include <type_traits>

namespace {

// Φ(−x) for 0 ≤ x ≤ 5.6 in 32 intervals, a polynomial in the distance from the middle of each: Taylor's of degree
// 5, whose last two terms are replaced by what is nearest of lower degree (through Chebyshev's T4 and T5). In the
// last it is 0.
struct Phi {
  static constexpr int COUNT = 32;
  static constexpr double LAST = 5.6, WIDTH = LAST / (COUNT - 1);
  alignas(64) float terms[4][COUNT];

  // Constants for the compiler, which then keeps them in registers: hence series, not functions of the library.
  constexpr Phi() : terms() {
    for (int i = 0; i < COUNT - 1; ++i) {
      const double x = i * WIDTH, h = WIDTH / 2;
      double power = 1, exponential = 1, odd = x, integral = x;
      for (int n = 1; n < 100; ++n) {
        exponential += power *= x * x / (2 * n);
        integral += odd *= x * x / (2 * n + 1);
      }
      const double density = M_2_SQRTPI * M_SQRT1_2 / 2 / exponential;
      const double fourth = (x * x * x - 3 * x) * density / 24;
      const double fifth = (-x * x * x * x + 6 * x * x - 3) * density / 120;
      terms[0][i] = 0.5 - density * integral - fourth * h * h * h * h / 8;
      terms[1][i] = -density - fifth * h * h * h * h * 5 / 16;
      terms[2][i] = x * density / 2 + fourth * h * h;
      terms[3][i] = (1 - x * x) * density / 6 + fifth * h * h * 5 / 4;
    }
  }

  // Of the interval that the last bits of `at` say.
  Vec<float> term(int n, Vec<int32_t> at) const {
#if defined(CPU_CAPABILITY_AVX512)
    return _mm512_permutex2var_ps(_mm512_load_ps(terms[n]), at, _mm512_load_ps(terms[n] + 16));
#else
    return at::vec::gather<sizeof(float)>(terms[n], at & Vec<int32_t>(COUNT - 1));
#endif
  }

  Vec<float> operator()(Vec<float> x) const {
    // At 1.5 · 2²³ a float's last bit is 1: the sum is rounded to whole intervals, and ends in their number.
    const Vec<float> whole(12582912), sum = at::vec::fmadd(x, Vec<float>(1 / WIDTH), whole);
    const Vec<float> distance = at::vec::fnmadd(sum - whole, Vec<float>(WIDTH), x);
    const auto at = at::vec::cast<int32_t>(sum);
    Vec<float> y = term(3, at);
    for (int n = 3; n-- > 0;) y = at::vec::fmadd(y, distance, term(n, at));
    return y;
  }
};
constexpr Phi phi;

// x Φ(x) as max(x, 0) − |x| Φ(−|x|), to 3e-7; the library's erf gives 1.3e-6. In the cache the GELU is bound by
// arithmetic: with that erf it took three times as long as with a power of two near Φ, and the first product of an
// MLP of two halves gained 2 to 4 % from this table over that power.
inline Vec<float> gelu(Vec<float> x) {
  const Vec<float> size = at::vec::clamp_max(x.abs(), Vec<float>(Phi::LAST));
  return at::vec::fnmadd(size, phi(size), at::vec::clamp_min(x, Vec<float>(0)));
}

inline Vec<double> gelu(Vec<double> x) {
  const Vec<double> half(0.5), one(1), scale(M_SQRT1_2);
  return x * half * (one + (x * scale).erf());
}

// Φ(x) + x φ(x).
inline Vec<float> gelu_derivative(Vec<float> x) {
  const Vec<float> tail = phi(at::vec::clamp_max(x.abs(), Vec<float>(Phi::LAST)));
  const Vec<float> density = exponential(x * x * Vec<float>(-0.5)) * Vec<float>(M_2_SQRTPI * M_SQRT1_2 / 2);
  const Vec<float> integral = Vec<float>::blendv(Vec<float>(1) - tail, tail, x < Vec<float>(0));
  return at::vec::fmadd(x, density, integral);
}

inline Vec<double> gelu_derivative(Vec<double> x) {
  const Vec<double> half(0.5), one(1), scale(M_SQRT1_2);
  const Vec<double> density = exponential(x * x * Vec<double>(-0.5)) * Vec<double>(M_2_SQRTPI * M_SQRT1_2 / 2);
  return half * (one + (x * scale).erf()) + x * density;
}

// The signed Walsh–Hadamard transform of P points, orthogonal: mirror pairs of halves, of both channels and tokens for
// quarters. Signs are those of what lies in parts. They cost nothing: they are in the factor that makes it orthogonal.
template <typename T, int P>
class Transform {
 public:
  explicit Transform(const Slice* points) {
    for (int p = 0; p < P; ++p) factor_[p] = Vec<T>(T(points[p].sign / std::sqrt(double(P))));
  }
  void from_parts(Vec<T>* x) const {
    scale(x);
    add(x);
  }
  void to_parts(Vec<T>* x) const {
    add(x);
    scale(x);
  }

 private:
  static void add(Vec<T>* x) {
#pragma GCC unroll 3
    for (int span = 1; span < P; span *= 2)
#pragma GCC unroll 8
      for (int i = 0; i < P; ++i)
        if (!(i & span)) {
          const Vec<T> sum = x[i] + x[i + span];
          x[i + span] = x[i] - x[i + span];
          x[i] = sum;
        }
  }
  // One point has no sign, as operators check.
  void scale(Vec<T>* x) const {
    if constexpr (P > 1)
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) x[p] = x[p] * factor_[p];
  }

  Vec<T> factor_[P];
};

// Call `run` with the number of points, as a constant.
template <typename Run>
[[gnu::always_inline]] inline void with_points(int64_t points, Run run) {
  switch (points) {
    case 1:
      return run(std::integral_constant<int, 1>());
    case 2:
      return run(std::integral_constant<int, 2>());
    case 4:
      return run(std::integral_constant<int, 4>());
    default:
      return run(std::integral_constant<int, 8>());
  }
}

}  // namespace

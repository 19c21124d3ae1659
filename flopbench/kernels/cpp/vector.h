// Vectors, and eˣ of them.

#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <cmath>
#include <cstdint>

namespace {

template <typename T>
using Vec = at::vec::Vectorized<T>;
template <typename T>
constexpr int64_t LANES = Vec<T>::size();

// eˣ as 2^(n + f), n whole: 2^f a polynomial, for |f| ≤ 1/2 to 8e-8 of its value, and 2ⁿ an exponent. The library's
// exp_u20 takes half as many instructions again. Below 2^−126.5 it is 0: no number that slows down what comes after.
// For x up to 88 alone: above, n runs into the sign. What is taken here is of differences to a maximum, and of −x²/2.
inline Vec<float> exponential(Vec<float> x) {
  // At 1.5 · 2²³ a float's last bit is 1: the sum is rounded to whole numbers, and ends in n and an exponent's bias.
  const Vec<float> whole(12582912 + 127);
  const Vec<float> power = at::vec::clamp_min(x * Vec<float>(M_LOG2E), Vec<float>(-127)), sum = power + whole;
  const Vec<float> f = power - (sum - whole);
  Vec<float> y(0.00132764410f);
  for (const float term : {0.00967554096f, 0.0555071346f, 0.240221202f, 0.693146944f, 1.00000012f})
    y = at::vec::fmadd(y, f, Vec<float>(term));
  return y * at::vec::cast<float>(at::vec::cast<int32_t>(sum) << Vec<int32_t>(23));
}

inline Vec<double> exponential(Vec<double> x) { return x.exp(); }

}  // namespace

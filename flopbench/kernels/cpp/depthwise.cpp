// The gradient of a depthwise convolution's kernel, for a CPU; depthwise.py says why it is here.
//
// A thread takes one vector of channels at a time. Image by image, its pixels are gathered into blocks that stay
// in a cache, the input's with a border of zeros, so that no tap has to know of the edges: for each row of the kernel
// they are read again. Large images are taken a band of rows after the other.

#include "signatures.h"
#include "vector.h"

#include <algorithm>
#include <type_traits>
#include <vector>

namespace {

// Taps of one row of the kernel that are summed at once, each in a register.
constexpr int64_t TAPS = 8;

// Of the blocks of a band: a part of a second-level cache.
constexpr int64_t BYTES = 1 << 18;

// sums[tap] += Σ grad(h, w) · input(h, w + tap), over an image of rows × columns.
template <typename T, int N>
void correlate(int64_t rows, int64_t columns, int64_t stride, const T* grad, const T* input, T* sums) {
  Vec<T> sum[N];
  for (int tap = 0; tap < N; ++tap) sum[tap] = Vec<T>::loadu(sums + tap * LANES<T>);
  for (int64_t h = 0; h < rows; ++h)
    for (int64_t w = 0; w < columns; ++w) {
      const Vec<T> g = Vec<T>::loadu(grad + (h * columns + w) * LANES<T>);
      const T* x = input + (h * stride + w) * LANES<T>;
#pragma GCC unroll 8
      for (int tap = 0; tap < N; ++tap) sum[tap] = at::vec::fmadd(g, Vec<T>::loadu(x + tap * LANES<T>), sum[tap]);
    }
  for (int tap = 0; tap < N; ++tap) sum[tap].store(sums + tap * LANES<T>);
}

template <typename T>
void correlate(int64_t taps, int64_t rows, int64_t columns, int64_t stride, const T* grad, const T* input,
               T* sums) {
  const auto run = [&](auto n) { correlate<T, n()>(rows, columns, stride, grad, input, sums); };
  switch (taps) {
    case 1: return run(std::integral_constant<int, 1>());
    case 2: return run(std::integral_constant<int, 2>());
    case 3: return run(std::integral_constant<int, 3>());
    case 4: return run(std::integral_constant<int, 4>());
    case 5: return run(std::integral_constant<int, 5>());
    case 6: return run(std::integral_constant<int, 6>());
    case 7: return run(std::integral_constant<int, 7>());
    default: return run(std::integral_constant<int, 8>());
  }
}

// input, grad [batch, rows, columns, channels] to weight [channels, kernel, kernel].
template <typename T>
void weight_gradient(int64_t batch, int64_t rows, int64_t columns, int64_t channels, int64_t kernel, int64_t threads,
                     const T* input, const T* grad, T* weight) {
  const int64_t L = LANES<T>, border = kernel / 2, stride = columns + 2 * border;
  const int64_t line = (stride + columns) * L * sizeof(T);
  const int64_t band = std::min(rows, std::max<int64_t>(1, BYTES / std::max<int64_t>(1, line) - 2 * border));
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> x((band + 2 * border) * stride * L), g(band * columns * L), sums(kernel * kernel * L);
#pragma omp for schedule(dynamic)
    for (int64_t first = 0; first < channels; first += L) {
      const int64_t count = std::min(L, channels - first);
      std::fill(sums.begin(), sums.end(), T(0));
      const auto gather = [&](const T* from, int64_t row, T* to) {
        for (int64_t w = 0; w < columns; ++w)
          Vec<T>::loadu(from + (row * columns + w) * channels + first, count).store(to + w * L);
      };
      for (int64_t b = 0; b < batch; ++b)
        for (int64_t top = 0; top < rows; top += band) {
          const int64_t height = std::min(band, rows - top);
          // What a band has below it is the beginning of the next.
          if (top > 0) std::copy(x.begin() + band * stride * L, x.end(), x.begin());
          for (int64_t h = top > 0 ? 2 * border : 0; h < height + 2 * border; ++h) {
            const int64_t row = top + h - border;
            T* const to = &x[(h * stride + border) * L];
            0 <= row && row < rows ? gather(input, b * rows + row, to) : void(std::fill_n(to, columns * L, T(0)));
          }
          for (int64_t h = 0; h < height; ++h) gather(grad, b * rows + top + h, &g[h * columns * L]);
          for (int64_t i = 0; i < kernel; ++i)
            for (int64_t j = 0; j < kernel; j += TAPS)
              correlate<T>(std::min(TAPS, kernel - j), height, columns, stride, g.data(), &x[(i * stride + j) * L],
                           &sums[(i * kernel + j) * L]);
        }
      for (int64_t c = 0; c < count; ++c)
        for (int64_t tap = 0; tap < kernel * kernel; ++tap)
          weight[(first + c) * kernel * kernel + tap] = sums[tap * L + c];
    }
  }
}

}  // namespace

#define EXPORT(T)                                                                                               \
  extern "C" void depthwise_weight_gradient_##T(int64_t batch, int64_t rows, int64_t columns, int64_t channels, \
                                                int64_t kernel, int64_t threads, const T* input, const T* grad, \
                                                T* weight) {                                                    \
    weight_gradient<T>(batch, rows, columns, channels, kernel, threads, input, grad, weight);                   \
  }

EXPORT(float)
EXPORT(double)

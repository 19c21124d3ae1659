// Linear maps of the parts of a feature, and the GELU after them; linear.py says what they compute and why they
// are here.
//
// Weights are packed into panels of one tile's width, so that a tile reads them from end to end, and so few panels
// at a time that they stay in the second-level cache while a thread takes all its rows of features, which are read
// where they lie. Each thread packs for itself: sharing the panels was 2 to 4 % slower, and with columns shared out
// instead of rows, E(ViT-S) was 6 % slower, for what comes before and after has its rows in the same core's cache.

#include "tile.h"

#include <cmath>

namespace {

// Of a panel, in rows: 1024 of 4 vectors are 256 KiB. With 256 products were up to 8 % slower, with 512 up to 4 %.
constexpr int64_t DEPTH = 1024;
// Of the panels that are packed together, in bytes: half and twice as much were 1 to 2 % slower.
constexpr int64_t GROUP = 512 * 1024;
// Of the rows that take one panel after the other, whole tiles. While the first panel takes them, the next rows are
// fetched: from features outside the second-level cache, products of halves were up to 13 % faster with it.
constexpr int64_t BLOCK = 8 * ROWS;
// Of a row of weights, how much of it packing fetches before its turn, in vectors: of 64 rows at once the hardware
// does not.
constexpr int64_t AHEAD = 4;

// panel[k, j] = weight[j, k], V vectors of columns.
template <typename T>
void pack(int64_t inner, int V, const T* weight, int64_t stride, T* panel) {
  constexpr int L = LANES<T>;
  int64_t k = 0;
  for (; k + L <= inner; k += L)
    for (int v = 0; v < V; ++v) {
      for (int r = 0; r < L; ++r) __builtin_prefetch(weight + (v * L + r) * stride + k + AHEAD * L);
      at::vec::transpose_mxn<T, L, L>(weight + v * L * stride + k, stride, panel + (k * V + v) * L, V * L);
    }
  for (; k < inner; ++k)
    for (int64_t j = 0; j < V * L; ++j) panel[k * V * L + j] = weight[j * stride + k];
}

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

// The Walsh–Hadamard transform, orthogonal: mirror pairs of halves, of both channels and tokens for quarters.
template <typename T, int P>
inline void transform(Vec<T>* x) {
  for (int span = 1; span < P; span *= 2)
    for (int i = 0; i < P; ++i)
      if (!(i & span)) {
        const Vec<T> sum = x[i] + x[i + span];
        x[i + span] = x[i] - x[i + span];
        x[i] = sum;
      }
  if (P > 1)
    for (int i = 0; i < P; ++i) x[i] = x[i] * Vec<T>(T(1 / std::sqrt(double(P))));
}

template <typename T, int P>
void mirror_gelu(T* const* y, int64_t first, int64_t last) {
  for (int64_t at = first; at < last; at += LANES<T>) {
    Vec<T> x[P];
    for (int p = 0; p < P; ++p) x[p] = Vec<T>::loadu(y[p] + at);
    transform<T, P>(x);
    for (int p = 0; p < P; ++p) x[p] = gelu(x[p]);
    transform<T, P>(x);
    for (int p = 0; p < P; ++p) x[p].store(y[p] + at);
  }
}

// y = x · weightᵀ + bias for every part, x [rows, inner] and weight [width, inner]. A weight that neighbouring
// parts have in common is packed once.
template <typename T>
struct Linear {
  int64_t parts, rows, width, inner;
  bool gelu;
  const T *const *x, *const *weight, *const *bias;
  T* const* y;

  void run(int64_t threads) const {
    const int64_t panels = padded(width, PANEL) / PANEL, tiles = padded(rows, ROWS) / ROWS;
    // With many threads all packing everything would cost too much.
    int64_t across = 1;
    for (int64_t n = 2; n * n <= threads; ++n)
      if (threads % n == 0 && panels % n == 0) across = n;
    const int64_t down = threads / across;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t thread = 0; thread < threads; ++thread) {
      const int64_t i = thread / across, j = thread % across;
      share(tiles * i / down * ROWS, std::min(rows, tiles * (i + 1) / down * ROWS), panels * j / across * PANEL,
            std::min(width, panels * (j + 1) / across * PANEL));
    }
  }

 private:
  static constexpr int64_t PANEL = VECTORS * LANES<T>;

  // One thread's rows and columns of the result.
  void share(int64_t top, int64_t bottom, int64_t left, int64_t right) const {
    const int64_t steps = padded(inner, DEPTH) / DEPTH, depth = (inner + steps - 1) / steps, size = PANEL * depth;
    const int64_t columns = std::max<int64_t>(1, GROUP / (sizeof(T) * size * parts)) * PANEL;
    Scratch<T> scratch(columns / PANEL * parts * size);
    T* const packed = scratch.take(columns / PANEL * parts * size);
    for (int64_t start = left; start < right; start += columns)
      for (int64_t k = 0; k < inner; k += depth) {
        const int64_t count = std::min(depth, inner - k), stop = std::min(right, start + columns);
        // The panels of all parts side by side, for what acts on mirror pairs.
        const auto panel = [&](int64_t p, int64_t j) {
          while (shared(p)) --p;
          return packed + ((j - start) / PANEL * parts + p) * size;
        };
        const auto each = [&](auto run) {
          for (int64_t j = start; j < stop; j += PANEL)
            with_vectors<T>(width - j, [&](auto vectors) { run(vectors, j); });
        };
        each([&](auto vectors, int64_t j) {
          for (int64_t p = 0; p < parts; ++p)
            if (!shared(p)) pack<T>(count, vectors(), weight[p] + j * inner + k, inner, panel(p, j));
        });
        for (int64_t i = top; i < bottom; i += BLOCK)
          each([&](auto vectors, int64_t j) {
            const int64_t end = std::min(bottom, i + BLOCK);
            for (int64_t p = 0; p < parts; ++p)
              block<vectors()>(p, i, end, j, k, count, panel(p, j), j == start ? BLOCK * inner : 0);
            if (gelu && k + count == inner) activate(i, end, j, vectors() * LANES<T>);
          });
      }
  }

  bool shared(int64_t p) const { return p > 0 && weight[p] == weight[p - 1]; }

  template <int V>
  void block(int64_t p, int64_t first, int64_t last, int64_t j, int64_t k, int64_t count, const T* panel,
             int64_t ahead) const {
    const T* const start = bias[p] ? bias[p] + j : nullptr;
    for (int64_t i = first; i < last; i += ROWS)
      tile<T, V>(std::min(ROWS, last - i), count, x[p] + i * inner + k, inner, 1, panel, V * LANES<T>, start, k > 0,
                 y[p] + i * width + j, width, ahead);
  }

  void activate(int64_t first, int64_t last, int64_t j, int64_t columns) const {
    for (int64_t at = first * width + j; at < last * width; at += width) switch (parts) {
        case 1:
          mirror_gelu<T, 1>(y, at, at + columns);
          break;
        case 2:
          mirror_gelu<T, 2>(y, at, at + columns);
          break;
        default:
          mirror_gelu<T, 4>(y, at, at + columns);
      }
  }
};

}  // namespace

#define EXPORT(T)                                                                                             \
  extern "C" void linear_##T(int64_t parts, int64_t rows, int64_t width, int64_t inner, bool gelu,            \
                             int64_t threads, const T* const* x, const T* const* weight, const T* const* bias, \
                             T* const* y) {                                                                   \
    Linear<T>{parts, rows, width, inner, gelu, x, weight, bias, y}.run(threads);                              \
  }

EXPORT(float)
EXPORT(double)

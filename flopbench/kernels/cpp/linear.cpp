// Linear maps of the parts of a feature, and the GELU after them; linear.py says what they compute and why they
// are here.
//
// Weights are packed into panels of one tile's width, so that a tile reads them from end to end, and so many
// rows at a time that a panel stays in the second-level cache. Features are read where they lie. Threads share
// the panels and take rows of the result, block by block, of all parts at once: both halves of a mirror pair are
// then in the cache for what acts on the pair.

#include "tile.h"

#include <omp.h>

#include <cmath>
#include <vector>

namespace {

// Of a panel, in rows: 1024 of 4 vectors are 256 KiB. With 256 products were up to 8 % slower, with 512 up to 4 %.
constexpr int64_t DEPTH = 1024;
// Of a block of the result, in rows, whole tiles: of 768 channels, 96 are 288 KiB.
constexpr int64_t BLOCK = 16 * ROWS;

// panel[k, j] = weight[j, k], V vectors of columns.
template <typename T>
void pack(int64_t inner, int V, const T* weight, int64_t stride, T* panel) {
  constexpr int L = LANES<T>;
  int64_t k = 0;
  for (; k + L <= inner; k += L)
    for (int v = 0; v < V; ++v)
      at::vec::transpose_mxn<T, L, L>(weight + v * L * stride + k, stride, panel + (k * V + v) * L, V * L);
  for (; k < inner; ++k)
    for (int64_t j = 0; j < V * L; ++j) panel[k * V * L + j] = weight[j * stride + k];
}

// c[0] + c[1] x + …
template <size_t N>
inline Vec<float> polynomial(const float (&c)[N], Vec<float> x) {
  Vec<float> y(c[N - 1]);
#pragma GCC unroll 16
  for (size_t i = N - 1; i-- > 0;) y = at::vec::fmadd(y, x, Vec<float>(c[i]));
  return y;
}

// x Φ(x) as max(x, 0) − |x| Φ(−|x|). Φ is a power of two, of a polynomial near log2 Φ(−x) for 0 ≤ x ≤ 6 (Φ to
// 7.5e-9), and the power is one near 2^f for |f| ≤ ½ (to 7.5e-8 of itself); beyond 8, 1e-16 is left. With the
// library's erf, bound by arithmetic, the GELU took up to three times as long, and was off by 1.3e-6, not 3e-7.
inline Vec<float> gelu(Vec<float> x) {
  constexpr float log2_phi[] = {-0.999999978f,   -1.15110572f,     -0.459204907f,   -0.0525050287f, 0.00707547177f,
                                -0.00014587012f, -0.000182547614f, 3.86207511e-05f, -2.7720496e-06f};
  constexpr float power[] = {1.00000007f, 0.693146967f, 0.240221197f, 0.0555071348f, 0.0096755408f, 0.00132764051f};
  const Vec<float> size = at::vec::clamp_max(x.abs(), Vec<float>(8));
  const Vec<float> log2 = polynomial(log2_phi, size), whole = log2.round();
  const auto exponent = at::vec::convert_to_int_of_same_size(whole) + Vec<int32_t>(127);
  const Vec<float> phi = polynomial(power, log2 - whole) * at::vec::cast<float>(exponent << Vec<int32_t>(23));
  return at::vec::fnmadd(size, phi, at::vec::clamp_min(x, Vec<float>(0)));
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
    constexpr int64_t PANEL = VECTORS * LANES<T>;
    const int64_t steps = padded(inner, DEPTH) / DEPTH, depth = (inner + steps - 1) / steps;
    std::vector<int64_t> slots(parts, 0);
    for (int64_t p = 1; p < parts; ++p) slots[p] = slots[p - 1] + (weight[p] != weight[p - 1]);
    const int64_t size = (slots.back() + 1) * width * depth;
    Scratch<T> scratch(size);
    T* const packed = scratch.take(size);
#pragma omp parallel num_threads(threads)
    {
      // Tiles of rows are shared out evenly; blocks of them would not be.
      const int64_t thread = omp_get_thread_num(), all = omp_get_num_threads(), tiles = padded(rows, ROWS) / ROWS;
      const int64_t first = tiles * thread / all * ROWS, last = std::min(rows, tiles * (thread + 1) / all * ROWS);
      for (int64_t k = 0; k < inner; k += depth) {
        const int64_t count = std::min(depth, inner - k);
        const auto panel = [&](int64_t p, int64_t j) { return packed + slots[p] * width * depth + j * count; };
#pragma omp for collapse(2) schedule(static)
        for (int64_t p = 0; p < parts; ++p)
          for (int64_t j = 0; j < width; j += PANEL)
            if (p == 0 || slots[p] != slots[p - 1])
              with_vectors<T>(width - j, [&](auto vectors) {
                pack<T>(count, vectors(), weight[p] + j * inner + k, inner, panel(p, j));
              });
        for (int64_t i = first; i < last; i += BLOCK)
          for (int64_t j = 0; j < width; j += PANEL)
            with_vectors<T>(width - j, [&](auto vectors) {
              const int64_t end = std::min(last, i + BLOCK);
              for (int64_t p = 0; p < parts; ++p) block<vectors()>(p, i, end, j, k, count, panel(p, j));
              if (gelu && k + count == inner) activate(i, end, j, vectors() * LANES<T>);
            });
        // The panels are about to be overwritten.
#pragma omp barrier
      }
    }
  }

 private:
  template <int V>
  void block(int64_t p, int64_t first, int64_t last, int64_t j, int64_t k, int64_t count, const T* panel) const {
    const T* const start = bias[p] ? bias[p] + j : nullptr;
    for (int64_t i = first; i < last; i += ROWS)
      tile<T, V>(std::min(ROWS, last - i), count, x[p] + i * inner + k, inner, 1, panel, V * LANES<T>, start, k > 0,
                 y[p] + i * width + j, width);
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

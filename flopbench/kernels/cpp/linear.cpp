// Linear maps of the parts of a feature, and the GELU after them; linear.py says what they compute and why they
// are here.
//
// Weights are packed into panels of one tile's width, so that a tile reads them from end to end, and so few panels
// at a time that they stay in the second-level cache while a thread takes all its rows of features, which are read
// where they lie. Each thread packs for itself: sharing the panels was 2 to 4 % slower, and with columns shared out
// instead of rows, E(ViT-S) was 6 % slower, for what comes before and after has its rows in the same core's cache.

#include "gelu.h"
#include "signatures.h"
#include "tile.h"

namespace {

// Of a panel, in rows: 1024 of 4 vectors are 256 KiB. With 256 products were up to 8 % slower, with 512 up to 4 %.
constexpr int64_t DEPTH = 1024;
// Of the panels that are packed together, in bytes: six of 384 rows of fp32, or three of 768. The fewer groups, the
// less often rows are read; half and twice as much were 1 to 2 % slower, 512 KiB 0.5 % of a network.
constexpr int64_t GROUP = 576 * 1024;
// Of the rows that take one panel after the other, whole tiles. While the first panel takes them, the next rows are
// fetched: from features outside the second-level cache, products of halves were up to 13 % faster with it.
constexpr int64_t BLOCK = 4 * ROWS;
// Of a panel, how many of its rows packing fetches before their turn: what was there left the second-level cache
// since the last call. That took longer than the weight, which the hardware fetches; whole networks gained 1 %.
constexpr int64_t AHEAD = 16;

// panel[k, j] = weight[j, k], V vectors of columns.
template <typename T>
void pack(int64_t inner, int V, const T* weight, int64_t stride, T* panel) {
  constexpr int L = LANES<T>;
  int64_t k = 0;
  for (; k + L <= inner; k += L)
    for (int v = 0; v < V; ++v) {
      for (int r = 0; r < L; ++r) __builtin_prefetch(panel + ((k + r + AHEAD) * V + v) * L, 1);
      at::vec::transpose_mxn<T, L, L>(weight + v * L * stride + k, stride, panel + (k * V + v) * L, V * L);
    }
  for (; k < inner; ++k)
    for (int64_t j = 0; j < V * L; ++j) panel[k * V * L + j] = weight[j * stride + k];
}

// panel[k, j] = weight[k, j].
template <typename T>
void pack_transposed(int64_t inner, int V, const T* weight, int64_t stride, T* panel) {
  constexpr int L = LANES<T>;
  for (int64_t k = 0; k < inner; ++k)
    for (int v = 0; v < V; ++v) {
      __builtin_prefetch(weight + (k + L) * stride + v * L);
      Vec<T>::loadu(weight + k * stride + v * L).store(panel + (k * V + v) * L);
    }
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

// y = x · weightᵀ + bias for every part, x [rows, inner] and weight [width, inner], or [inner, width] if it is
// transposed already. A weight that neighbouring parts have in common is packed once.
template <typename T>
struct Linear {
  int64_t parts, rows, width, inner;
  bool transposed, gelu;
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
      for (int64_t first = 0, count; first < parts; first += count) {
        count = at_once(first);
        Linear{count, rows, width, inner, transposed, gelu, x + first, weight + first, bias + first, y + first}.share(
            tiles * i / down * ROWS, std::min(rows, tiles * (i + 1) / down * ROWS), panels * j / across * PANEL,
            std::min(width, panels * (j + 1) / across * PANEL));
      }
    }
  }

 private:
  static constexpr int64_t PANEL = VECTORS * LANES<T>;
  static_assert(CHANNELS % LANES<T> == 0);

  // Parts whose panels lie side by side: all, for what acts on mirror pairs, or those with one weight. The fewer, the
  // more panels of each are packed together, and the less often rows are read.
  int64_t at_once(int64_t first) const {
    int64_t last = first + 1;
    while (last < parts && (gelu || shared(last))) ++last;
    return last - first;
  }

  // One thread's rows and columns of the result.
  void share(int64_t top, int64_t bottom, int64_t left, int64_t right) const {
    const int64_t steps = padded(inner, DEPTH) / DEPTH, depth = (inner + steps - 1) / steps, size = PANEL * depth;
    int64_t distinct = 0;
    for (int64_t p = 0; p < parts; ++p) distinct += !shared(p);
    const int64_t columns = std::max<int64_t>(1, GROUP / (sizeof(T) * size * distinct)) * PANEL;
    Scratch<T> scratch(columns / PANEL * parts * size);
    T* const packed = scratch.take(columns / PANEL * parts * size);
    for (int64_t start = left; start < right; start += columns)
      for (int64_t k = 0; k < inner; k += depth) {
        const int64_t count = std::min(depth, inner - k), stop = std::min(right, start + columns);
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
            if (!shared(p)) pack_panel(p, vectors(), j, k, count, panel(p, j));
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

  void pack_panel(int64_t p, int V, int64_t j, int64_t k, int64_t count, T* panel) const {
    transposed ? pack_transposed(count, V, weight[p] + k * width + j, width, panel)
               : pack(count, V, weight[p] + j * inner + k, inner, panel);
  }

  bool shared(int64_t p) const { return p > 0 && weight[p] == weight[p - 1]; }

  template <int V>
  void block(int64_t p, int64_t first, int64_t last, int64_t j, int64_t k, int64_t count, const T* panel,
             int64_t ahead) const {
    const T* const start = bias[p] ? bias[p] + j : nullptr;
    const auto fetch = [ahead](int64_t n, const T* const* row) __attribute__((always_inline)) {
      if (ahead && n % LINE<T> == 0)
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; ++r) __builtin_prefetch(row[r] + n + ahead);
    };
    for (int64_t i = first; i < last; i += ROWS)
      tile<T, V>(std::min(ROWS, last - i), count, x[p] + i * inner + k, inner, 1, panel, V * LANES<T>, start, k > 0,
                 y[p] + i * width + j, width, fetch);
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

#define EXPORT(T)                                                                                                 \
  extern "C" void linear_parts_##T(int64_t parts, int64_t rows, int64_t width, int64_t inner, int64_t transposed, \
                                   int64_t gelu, int64_t threads, const T* const* x, const T* const* weight,      \
                                   const T* const* bias, T* const* y) {                                           \
    Linear<T>{parts, rows, width, inner, transposed != 0, gelu != 0, x, weight, bias, y}.run(threads);            \
  }

EXPORT(float)
EXPORT(double)

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

#include <vector>

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

// y = x · weightᵀ + bias, x [rows, inner] and weight [width, inner], or [inner, width] if it is transposed already. Rows
// of y lie `stride` apart.
template <typename T>
struct Product {
  int64_t inner, width, stride;
  const T *x, *weight, *bias;
  T* y;
};

// Products of the same rows: of parts, those with one weight side by side; or, with the GELU, of the points of its
// transform, all of one width. A weight is packed once for all of one group.
template <typename T>
struct Linear {
  int64_t count, rows;
  const Product<T>* products;
  bool transposed;
  const Slice* points;  // Null without the GELU.

  void run(int64_t threads) const {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t thread = 0; thread < threads; ++thread)
      for (int64_t first = 0, group; first < count; first += group) {
        group = at_once(first);
        Linear{group, rows, products + first, transposed, points}.share(thread, threads);
      }
  }

 private:
  static constexpr int64_t PANEL = VECTORS * LANES<T>;
  static_assert(CHANNELS % LANES<T> == 0);

  // Where the panels of a product are among those that lie side by side, and whether it is the first that needs them,
  // and its features.
  struct Place {
    int64_t depth, offset;
    bool packs, reads;
  };

  // Products whose panels lie side by side: all points, or those with one weight. The fewer, the more panels of each
  // are packed together, and the less often rows are read.
  int64_t at_once(int64_t first) const {
    if (points) return count;
    int64_t last = first + 1;
    while (last < count && products[last].weight == products[first].weight) ++last;
    return last - first;
  }

  // One thread's rows and columns of the result.
  void share(int64_t thread, int64_t threads) const {
    const int64_t width = products[0].width, panels = padded(width, PANEL) / PANEL, tiles = padded(rows, ROWS) / ROWS;
    // With many threads all packing everything would cost too much.
    int64_t across = 1;
    for (int64_t n = 2; n * n <= threads; ++n)
      if (threads % n == 0 && panels % n == 0) across = n;
    const int64_t down = threads / across, i = thread / across, j = thread % across;
    share(tiles * i / down * ROWS, std::min(rows, tiles * (i + 1) / down * ROWS), panels * j / across * PANEL,
          std::min(width, panels * (j + 1) / across * PANEL));
  }

  void share(int64_t top, int64_t bottom, int64_t left, int64_t right) const {
    int64_t longest = 0, size = 0;
    for (int64_t p = 0; p < count; ++p) longest = std::max(longest, products[p].inner);
    const int64_t steps = padded(longest, DEPTH) / DEPTH, width = products[0].width;
    std::vector<Place> places;
    for (int64_t p = 0; p < count; ++p) {
      Place place{(products[p].inner + steps - 1) / steps, size, true, true};
      for (int64_t before = 0; before < p; ++before) {
        place.reads &= products[before].x != products[p].x;
        if (products[before].weight == products[p].weight) place.packs = false, place.offset = places[before].offset;
      }
      if (place.packs) size += PANEL * place.depth;
      places.push_back(place);
    }
    const int64_t columns = std::max<int64_t>(1, GROUP / (sizeof(T) * size)) * PANEL;
    Scratch<T> scratch(columns / PANEL * size);
    T* const packed = scratch.take(columns / PANEL * size);
    for (int64_t start = left; start < right; start += columns)
      for (int64_t step = 0; step < steps; ++step) {
        const int64_t stop = std::min(right, start + columns);
        const auto panel = [&](int64_t p, int64_t j) { return packed + (j - start) / PANEL * size + places[p].offset; };
        const auto each = [&](auto run) {
          for (int64_t j = start; j < stop; j += PANEL)
            with_vectors<T>(width - j, [&](auto vectors) { run(vectors, j); });
        };
        // Of a product's sums, the terms of this step: none, where another's are many more.
        const auto terms = [&](int64_t p) {
          const int64_t k = std::min(products[p].inner, step * places[p].depth);
          return std::pair(k, std::min(places[p].depth, products[p].inner - k));
        };
        each([&](auto vectors, int64_t j) {
          for (int64_t p = 0; p < count; ++p)
            if (places[p].packs) pack_panel(products[p], vectors(), j, terms(p), panel(p, j));
        });
        for (int64_t i = top; i < bottom; i += BLOCK)
          each([&](auto vectors, int64_t j) {
            const int64_t end = std::min(bottom, i + BLOCK);
            for (int64_t p = 0; p < count; ++p)
              block<vectors()>(products[p], i, end, j, terms(p), panel(p, j),
                               j == start && places[p].reads ? BLOCK * products[p].inner : 0);
            if (points && step == steps - 1)
              with_points(count, [&](auto P) { activate<P()>(i, end, j, vectors() * LANES<T>); });
          });
      }
  }

  using Terms = std::pair<int64_t, int64_t>;

  void pack_panel(const Product<T>& of, int V, int64_t j, Terms terms, T* panel) const {
    const auto [k, count] = terms;
    transposed ? pack_transposed(count, V, of.weight + k * of.width + j, of.width, panel)
               : pack(count, V, of.weight + j * of.inner + k, of.inner, panel);
  }

  template <int V>
  void block(const Product<T>& of, int64_t first, int64_t last, int64_t j, Terms terms, const T* panel,
             int64_t ahead) const {
    const auto [k, count] = terms;
    const T* const start = of.bias ? of.bias + j : nullptr;
    const auto fetch = [ahead](int64_t n, const T* const* row) __attribute__((always_inline)) {
      if (ahead && n % LINE<T> == 0)
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; ++r) __builtin_prefetch(row[r] + n + ahead);
    };
    for (int64_t i = first; i < last; i += ROWS)
      tile<T, V>(std::min(ROWS, last - i), count, of.x + i * of.inner + k, of.inner, 1, panel, V * LANES<T>, start,
                 k > 0, of.y + i * of.stride + j, of.stride, fetch);
  }

  // The GELU of some rows and columns of all points, in place.
  template <int P>
  void activate(int64_t first, int64_t last, int64_t j, int64_t columns) const {
    const Transform<T, P> transform(points);
    for (int64_t i = first; i < last; ++i) {
      T* y[P];
      for (int p = 0; p < P; ++p) y[p] = products[p].y + i * products[p].stride + j;
      for (int64_t at = 0; at < columns; at += LANES<T>) {
        Vec<T> x[P];
        for (int p = 0; p < P; ++p) x[p] = Vec<T>::loadu(y[p] + at);
        transform.from_parts(x);
        for (int p = 0; p < P; ++p) x[p] = gelu(x[p]);
        transform.to_parts(x);
        for (int p = 0; p < P; ++p) x[p].store(y[p] + at);
      }
    }
  }
};

template <typename T>
void run(int64_t count, const Slice* slices, int64_t rows, bool transposed, bool gelu, const int64_t* in,
         const int64_t* out, int64_t threads, const T* const* x, const T* const* weight, const T* const* bias,
         T* const* y) {
  std::vector<Product<T>> products;
  for (int64_t n = 0; n < count; ++n) {
    const auto [p, first, width, sign] = slices[n];
    products.push_back({in[p], width, out[p], x[p], weight[p] + first * in[p], bias[p] ? bias[p] + first : nullptr,
                        y[p] + first});
  }
  Linear<T>{count, rows, products.data(), transposed, gelu ? slices : nullptr}.run(threads);
}

}  // namespace

#define EXPORT(T)                                                                                                    \
  extern "C" void linear_parts_##T(int64_t count, const Slice* slices, int64_t rows, int64_t transposed,             \
                                   int64_t gelu, const int64_t* in, const int64_t* out, int64_t threads,             \
                                   const T* const* x, const T* const* weight, const T* const* bias, T* const* y) {   \
    run<T>(count, slices, rows, transposed != 0, gelu != 0, in, out, threads, x, weight, bias, y);                   \
  }

EXPORT(float)
EXPORT(double)

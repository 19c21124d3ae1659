// Gradients of the weights of linear maps: gᵀ · x for every part of a feature, g the gradient of what came out, and of
// the biases, sums of g; linear.py says where they run.
//
// What is added up, a strip of a gradient at a time, stays in the second-level cache while g and x pass it in blocks
// of rows; the next block is fetched meanwhile, a few lines before each tile. g is read where it lies: a library
// packs it, which for halves, with few columns of x to each of g, took a sixth of the time.

#include "signatures.h"
#include "tile.h"

namespace {

// Of the rows of g and x that are added at a time: with 48 and 96 products were up to 2 % slower.
constexpr int64_t BLOCK = 72;
// Of a strip, in bytes, at most: 400 kB and 800 kB were no faster.
constexpr int64_t STRIP = 640 * 1024;

// What is to be fetched, a few lines at a time.
template <typename T>
class Ahead {
 public:
  Ahead(int64_t rows, int64_t columns, const T* from, int64_t stride)
      : rows_(rows), columns_(columns), stride_(stride), from_(from) {}
  int64_t lines() const { return rows_ * (padded(columns_, LINE<T>) / LINE<T>); }
  void fetch(int64_t lines) {
    for (; lines > 0 && row_ < rows_; --lines) {
      __builtin_prefetch(from_ + row_ * stride_ + column_, 0, 2);
      if ((column_ += LINE<T>) >= columns_) column_ = 0, ++row_;
    }
  }

 private:
  int64_t rows_, columns_, stride_, row_ = 0, column_ = 0;
  const T* from_;
};

// grad of the weight [width, inner] from g [rows, width] and x [rows, inner] of neighbouring parts that have it.
template <typename T>
struct WeightGradient {
  int64_t parts, weights, rows, width, inner;
  const T *const *g, *const *x;
  T *const *grad, *const *grad_bias;  // Null for parts without a bias.

  void run(int64_t threads) const {
    // Strips of the longer side, the same for each thread: then the shorter operand alone is read for every strip.
    const bool wide = inner > width;
    const int64_t unit = wide ? PANEL : ROWS, units = padded(wide ? inner : width, unit) / unit;
    int64_t strips = std::min(units, padded(width * inner * sizeof(T), STRIP) / STRIP);
    while (weights * strips % threads && strips < units) ++strips;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < weights * strips; ++n) {
      const int64_t w = n / strips, first = units * (n % strips) / strips * unit;
      const int64_t last = units * (n % strips + 1) / strips * unit;
      wide ? strip(w, 0, width, first, std::min(inner, last)) : strip(w, first, std::min(width, last), 0, inner);
    }
  }

 private:
  static constexpr int64_t PANEL = VECTORS * LANES<T>;
  static_assert(CHANNELS % LANES<T> == 0);

  // Rows from `top` and columns from `left` of the gradient of weight w.
  void strip(int64_t w, int64_t top, int64_t bottom, int64_t left, int64_t right) const {
    const int64_t common = parts / weights, columns = right - left;
    const int64_t tiles = padded(bottom - top, ROWS) / ROWS * (padded(columns, PANEL) / PANEL);
    Scratch<T> scratch(BLOCK * columns);
    T* const block = scratch.take(BLOCK * columns);
    for (int64_t p = w * common; p < (w + 1) * common; ++p)
      for (int64_t i = 0; i < rows; i += BLOCK) {
        const int64_t count = std::min(BLOCK, rows - i), next = std::min(rows, i + BLOCK);
        const bool adds = p > w * common || i > 0;
        const T* const rows_g = g[p] + i * width;
        // g is there already, for the products.
        if (grad_bias[p] && left == 0) sum_rows(count, bottom - top, rows_g + top, i > 0, grad_bias[p] + top);
        pack(count, columns, x[p] + i * inner + left, block);
        Ahead<T> of_g(std::min(BLOCK, rows - next), bottom - top, g[p] + next * width + top, width);
        Ahead<T> of_x(std::min(BLOCK, rows - next), columns, x[p] + next * inner + left, inner);
        const int64_t lines_g = (of_g.lines() + tiles - 1) / tiles, lines_x = (of_x.lines() + tiles - 1) / tiles;
        for (int64_t j = 0; j < columns; j += PANEL)
          with_vectors<T>(columns - j, [&](auto vectors) {
            for (int64_t o = top; o < bottom; o += ROWS) {
              T* const sum = grad[w] + o * inner + left + j;
              of_g.fetch(lines_g);
              of_x.fetch(lines_x);
              // The next tile's sums, from the second-level cache to the first.
              const auto fetch = [next_sum = sum + (o + ROWS < bottom ? ROWS * inner : 0), width = inner](
                                     int64_t k, const T* const*) __attribute__((always_inline)) {
                if (k < ROWS * VECTORS) __builtin_prefetch(next_sum + k / VECTORS * width + k % VECTORS * LANES<T>);
              };
              tile<T, vectors()>(std::min(ROWS, bottom - o), count, rows_g + o, 1, width, block + j * BLOCK,
                                 vectors() * LANES<T>, nullptr, adds, sum, inner, fetch);
            }
          });
      }
  }

  // sum[j] = Σ from[row, j], or added to it.
  void sum_rows(int64_t rows, int64_t columns, const T* from, bool adds, T* sum) const {
    int64_t j = 0;
    for (; j + PANEL <= columns; j += PANEL) {
      Values<Vec<T>, VECTORS> total;
      repeat<VECTORS>(EACH(v) {
        total.template at<v>() = adds ? Vec<T>::loadu(sum + j + v * LANES<T>) : Vec<T>(T(0));
      });
      for (int64_t r = 0; r < rows; ++r)
        repeat<VECTORS>(EACH(v) {
          total.template at<v>() = total.template at<v>() + Vec<T>::loadu(from + r * width + j + v * LANES<T>);
        });
      repeat<VECTORS>(EACH(v) { total.template at<v>().store(sum + j + v * LANES<T>); });
    }
    for (int64_t n; j < columns; j += n) {
      n = std::min(LANES<T>, columns - j);
      Vec<T> total = adds ? Vec<T>::loadu(sum + j, n) : Vec<T>(T(0));
      for (int64_t r = 0; r < rows; ++r) total = total + Vec<T>::loadu(from + r * width + j, n);
      total.store(sum + j, n);
    }
  }

  // Panels of one tile's width: to[j / PANEL, row, j % PANEL] = from[row, j].
  void pack(int64_t rows, int64_t columns, const T* from, T* to) const {
    for (int64_t j = 0; j < columns; j += PANEL)
      with_vectors<T>(columns - j, [&](auto vectors) {
        for (int64_t r = 0; r < rows; ++r)
          for (int v = 0; v < vectors(); ++v)
            Vec<T>::loadu(from + r * inner + j + v * LANES<T>).store(to + j * BLOCK + (r * vectors() + v) * LANES<T>);
      });
  }
};

}  // namespace

#define EXPORT(T)                                                                                                  \
  extern "C" void linear_weight_gradient_##T(int64_t parts, int64_t weights, int64_t rows, int64_t width,          \
                                             int64_t inner, int64_t threads, const T* const* g, const T* const* x, \
                                             T* const* grad, T* const* grad_bias) {                                \
    WeightGradient<T>{parts, weights, rows, width, inner, g, x, grad, grad_bias}.run(threads);                     \
  }

EXPORT(float)
EXPORT(double)

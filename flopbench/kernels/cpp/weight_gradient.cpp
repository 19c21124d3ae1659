// Gradients of the weights of linear maps: gᵀ · x for every part of a feature, g the gradient of what came out, and of
// the biases, sums of g; linear.py says where they run.
//
// What is added up, a strip of a gradient at a time, stays in the second-level cache while g and x pass it in blocks
// of rows; the next block is fetched meanwhile, a few lines before each tile. g is read where it lies: a library
// packs it, which for halves, with few columns of x to each of g, took a sixth of the time.

#include "signatures.h"
#include "tile.h"

#include <limits>
#include <tuple>
#include <vector>

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

// grad of a weight [width, inner] from g [rows, width] and x [rows, inner] of every part that has it.
template <typename T>
class WeightGradient {
 public:
  WeightGradient(int64_t rows, int64_t width, int64_t inner, T* grad)
      : rows_(rows), width_(width), inner_(inner), grad_(grad) {}
  void add(const T* g, const T* x, T* grad_bias) { parts_.push_back({g, x, grad_bias}); }

  // Strips are of the longer side: then the shorter operand alone is read for every strip.
  int64_t most_strips() const { return padded(wide() ? inner_ : width_, unit()) / unit(); }
  int64_t least_strips() const { return padded(width_ * inner_ * sizeof(T), STRIP) / STRIP; }
  bool is_like(const WeightGradient& other) const {
    return std::tuple(width_, inner_, parts_.size()) == std::tuple(other.width_, other.inner_, other.parts_.size());
  }

  // The n-th of so many strips.
  void strip(int64_t n, int64_t strips) const {
    const int64_t units = most_strips(), first = units * n / strips * unit(), last = units * (n + 1) / strips * unit();
    wide() ? strip(0, width_, first, std::min(inner_, last)) : strip(first, std::min(width_, last), 0, inner_);
  }

 private:
  static constexpr int64_t PANEL = VECTORS * LANES<T>;
  static_assert(CHANNELS % LANES<T> == 0);

  struct Part {
    const T *g, *x;
    T* grad_bias;  // Null for one without a bias.
  };

  bool wide() const { return inner_ > width_; }
  int64_t unit() const { return wide() ? PANEL : ROWS; }

  // Rows from `top` and columns from `left`.
  void strip(int64_t top, int64_t bottom, int64_t left, int64_t right) const {
    const int64_t columns = right - left;
    const int64_t tiles = padded(bottom - top, ROWS) / ROWS * (padded(columns, PANEL) / PANEL);
    Scratch<T> scratch(BLOCK * columns);
    T* const block = scratch.take(BLOCK * columns);
    for (const Part& part : parts_)
      for (int64_t i = 0; i < rows_; i += BLOCK) {
        const int64_t count = std::min(BLOCK, rows_ - i), next = std::min(rows_, i + BLOCK);
        const bool adds = &part != parts_.data() || i > 0;
        const T* const rows_g = part.g + i * width_;
        // g is there already, for the products.
        if (part.grad_bias && left == 0) sum_rows(count, bottom - top, rows_g + top, i > 0, part.grad_bias + top);
        pack(count, columns, part.x + i * inner_ + left, block);
        Ahead<T> of_g(std::min(BLOCK, rows_ - next), bottom - top, part.g + next * width_ + top, width_);
        Ahead<T> of_x(std::min(BLOCK, rows_ - next), columns, part.x + next * inner_ + left, inner_);
        const int64_t lines_g = (of_g.lines() + tiles - 1) / tiles, lines_x = (of_x.lines() + tiles - 1) / tiles;
        for (int64_t j = 0; j < columns; j += PANEL)
          with_vectors<T>(columns - j, [&](auto vectors) {
            for (int64_t o = top; o < bottom; o += ROWS) {
              T* const sum = grad_ + o * inner_ + left + j;
              of_g.fetch(lines_g);
              of_x.fetch(lines_x);
              // The next tile's sums, from the second-level cache to the first.
              const auto fetch = [next_sum = sum + (o + ROWS < bottom ? ROWS * inner_ : 0), width = inner_](
                                     int64_t k, const T* const*) __attribute__((always_inline)) {
                if (k < ROWS * VECTORS) __builtin_prefetch(next_sum + k / VECTORS * width + k % VECTORS * LANES<T>);
              };
              tile<T, vectors()>(std::min(ROWS, bottom - o), count, rows_g + o, 1, width_, block + j * BLOCK,
                                 vectors() * LANES<T>, nullptr, adds, sum, inner_, fetch);
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
          total.template at<v>() = total.template at<v>() + Vec<T>::loadu(from + r * width_ + j + v * LANES<T>);
        });
      repeat<VECTORS>(EACH(v) { total.template at<v>().store(sum + j + v * LANES<T>); });
    }
    for (int64_t n; j < columns; j += n) {
      n = std::min(LANES<T>, columns - j);
      Vec<T> total = adds ? Vec<T>::loadu(sum + j, n) : Vec<T>(T(0));
      for (int64_t r = 0; r < rows; ++r) total = total + Vec<T>::loadu(from + r * width_ + j, n);
      total.store(sum + j, n);
    }
  }

  // Panels of one tile's width: to[j / PANEL, row, j % PANEL] = from[row, j].
  void pack(int64_t rows, int64_t columns, const T* from, T* to) const {
    for (int64_t j = 0; j < columns; j += PANEL)
      with_vectors<T>(columns - j, [&](auto vectors) {
        for (int64_t r = 0; r < rows; ++r)
          for (int v = 0; v < vectors(); ++v)
            Vec<T>::loadu(from + r * inner_ + j + v * LANES<T>).store(to + j * BLOCK + (r * vectors() + v) * LANES<T>);
      });
  }

  int64_t rows_, width_, inner_;
  T* grad_;
  std::vector<Part> parts_;
};

template <typename T>
void run(int64_t parts, int64_t weights, int64_t rows, const int64_t* of, const int64_t* in, const int64_t* out,
         int64_t threads, const T* const* g, const T* const* x, T* const* grad_by_weight, T* const* grad_bias) {
  std::vector<WeightGradient<T>> gradients;
  for (int64_t w = 0; w < weights; ++w) {
    const int64_t first = std::find(of, of + parts, w) - of;
    gradients.emplace_back(rows, out[first], in[first], grad_by_weight[w]);
    for (int64_t p = first; p < parts; ++p)
      if (of[p] == w) gradients.back().add(g[p], x[p], grad_bias[p]);
  }
  int64_t strips = 1, most = std::numeric_limits<int64_t>::max();
  bool alike = true;
  for (const auto& gradient : gradients) {
    strips = std::max(strips, gradient.least_strips());
    most = std::min(most, gradient.most_strips());
    alike &= gradient.is_like(gradients[0]);
  }
  // As much for every thread: of all weights together where they are alike, or else of every weight.
  strips = std::min(strips, most);
  while ((alike ? weights : 1) * strips % threads && strips < most) ++strips;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t n = 0; n < weights * strips; ++n)
    alike ? gradients[n / strips].strip(n % strips, strips) : gradients[n % weights].strip(n / weights, strips);
}

}  // namespace

#define EXPORT(T)                                                                                                  \
  extern "C" void linear_weight_gradient_##T(int64_t parts, int64_t weights, int64_t rows, const int64_t* of,      \
                                             const int64_t* in, const int64_t* out, int64_t threads,               \
                                             const T* const* g, const T* const* x, T* const* grad_by_weight,       \
                                             T* const* grad_bias) {                                                \
    run<T>(parts, weights, rows, of, in, out, threads, g, x, grad_by_weight, grad_bias);                           \
  }

EXPORT(float)
EXPORT(double)

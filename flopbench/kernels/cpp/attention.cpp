// Attention of whole heads, forward and backward; attention.py says what it computes and why it is here.
//
// A thread takes one head of one image at a time: its tokens are gathered from the parts of the feature into
// dense blocks that stay in the second-level cache, and everything else is products of those blocks. Blocks
// are padded to whole tiles: rows to ROWS, columns to the lanes of a vector. What is in the padding is finite
// and never read as a result.

#include "tile.h"

#include <cmath>
#include <limits>

namespace {

template <typename T>
Vec<T> add(Vec<T> a, Vec<T> b) {
  return a + b;
}

// c[rows, width] = a[rows, inner] · b[inner, width], where a(i, k) is a[i · row + k · column].
template <typename T>
void product(int64_t rows, int64_t width, int64_t inner, const T* a, int64_t row, int64_t column, const T* b,
             T* c) {
  for (int64_t j = 0; j < width; j += VECTORS * LANES<T>)
    for (int64_t i = 0; i < rows; i += ROWS) {
      with_vectors<T>(width - j, [&](auto vectors) {
        tile<T, vectors()>(ROWS, inner, a + i * row, row, column, b + j, width, nullptr, false, c + i * width + j,
                           width);
      });
    }
}

// y = scale · x. Between compilers' options one cannot count on a loop being vectorised, hence by hand.
template <typename T>
inline void scaled(const T* x, T* y, int64_t n, Vec<T> scale) {
  int64_t i = 0;
  for (; i + LANES<T> <= n; i += LANES<T>) (Vec<T>::loadu(x + i) * scale).store(y + i);
  if (i < n) (Vec<T>::loadu(x + i, n - i) * scale).store(y + i, n - i);
}

// y[columns, rows] = x[rows, columns]ᵀ; both are multiples of the lanes.
template <typename T>
void transpose(int64_t rows, int64_t columns, const T* x, T* y) {
  constexpr int L = LANES<T>;
  for (int64_t i = 0; i < rows; i += L)
    for (int64_t j = 0; j < columns; j += L)
      at::vec::transpose_mxn<T, L, L>(x + i * columns + j, columns, y + j * rows + i, rows);
}

// exp(x − shift) in place, −∞ from `n` on so that the padding becomes 0, and the sum.
template <typename T>
T exponentials(T* x, int64_t n, int64_t size, T shift) {
  std::fill(x + n, x + size, -std::numeric_limits<T>::infinity());
  Vec<T> sum(T(0));
  for (int64_t j = 0; j < size; j += LANES<T>) {
    const Vec<T> e = (Vec<T>::loadu(x + j) - Vec<T>(shift)).exp_u20();
    e.store(x + j);
    sum = sum + e;
  }
  return at::vec::vec_reduce_all<T>(add<T>, sum);
}

// A feature in parts: `slots` heads' worth of part p lie as [batch, tokens, slots, heads, widths[p]].
template <typename T>
struct Heads {
  int64_t parts, batch, tokens, heads;
  const int64_t* widths;

  int64_t width() const {
    int64_t sum = 0;
    for (int64_t p = 0; p < parts; ++p) sum += widths[p];
    return sum;
  }

  // One head of one image to a block [tokens, stride], the parts of the head side by side.
  void gather(const T* const* from, int64_t slots, int64_t slot, int64_t image, int64_t head, T* block,
              int64_t stride, T scale = 1) const {
    for (int64_t p = 0; p < parts; block += widths[p++]) {
      const T* x = from[p] + offset(slots, slot, image, head, widths[p]);
      for (int64_t n = 0; n < tokens; ++n, x += slots * heads * widths[p])
        scaled<T>(x, block + n * stride, widths[p], Vec<T>(scale));
    }
  }

  void scatter(T* const* to, int64_t slots, int64_t slot, int64_t image, int64_t head, const T* block,
               int64_t stride, T scale = 1) const {
    for (int64_t p = 0; p < parts; block += widths[p++]) {
      T* x = to[p] + offset(slots, slot, image, head, widths[p]);
      for (int64_t n = 0; n < tokens; ++n, x += slots * heads * widths[p])
        scaled<T>(block + n * stride, x, widths[p], Vec<T>(scale));
    }
  }

 private:
  int64_t offset(int64_t slots, int64_t slot, int64_t image, int64_t head, int64_t width) const {
    return ((image * tokens * slots + slot) * heads + head) * width;
  }
};

enum : int64_t { QUERY, KEY, VALUE, SLOTS };

template <typename T>
void forward(const Heads<T>& shape, const T* const* qkv, T* const* mixed, T* normaliser, int64_t threads) {
  const int64_t N = shape.tokens, width = shape.width(), D = padded(width, LANES<T>);
  const int64_t M = padded(N, ROWS), L = padded(M, LANES<T>);
  const T scale = 1 / std::sqrt(T(width));
#pragma omp parallel num_threads(threads)
  {
    Scratch<T> scratch(2 * M * D + 2 * L * D + ROWS * L);
    T *q = scratch.zeros(M * D), *o = scratch.zeros(M * D);
    T *x = scratch.zeros(L * D), *kt = scratch.zeros(L * D), *p = scratch.zeros(ROWS * L);
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t b = 0; b < shape.batch; ++b)
      for (int64_t h = 0; h < shape.heads; ++h) {
        shape.gather(qkv, SLOTS, QUERY, b, h, q, D, scale);
        shape.gather(qkv, SLOTS, KEY, b, h, x, D);
        transpose(L, D, x, kt);
        shape.gather(qkv, SLOTS, VALUE, b, h, x, D);
        for (int64_t i = 0; i < N; i += ROWS) {
          product<T>(ROWS, L, width, q + i * D, D, 1, kt, p);
          T sums[ROWS];
          for (int64_t r = 0; r < ROWS; ++r) {
            T* row = p + r * L;
            const T top = at::vec::reduce_all<T>(
                [](Vec<T> a, Vec<T> b) { return at::vec::maximum(a, b); }, row, N);
            sums[r] = exponentials(row, N, L, top);
            if (i + r < N) normaliser[(b * shape.heads + h) * N + i + r] = top + std::log(sums[r]);
          }
          product<T>(ROWS, D, N, p, L, 1, x, o + i * D);
          for (int64_t r = 0; r < ROWS; ++r)
            scaled<T>(o + (i + r) * D, o + (i + r) * D, D, Vec<T>(1 / sums[r]));
        }
        shape.scatter(mixed, 1, 0, b, h, o, D);
      }
  }
}

// With S = Q Kᵀ/√d, P = softmax(S) and O = P V: dV = Pᵀ dO, dP = dO Vᵀ, dS = P ∘ (dP − (dO ∘ O) 1),
// dQ = dS K/√d and dK = dSᵀ Q/√d. P is computed again from its normaliser, the log of the sum.
template <typename T>
void backward(const Heads<T>& shape, const T* const* grad, const T* const* qkv, const T* const* mixed,
              const T* normaliser, T* const* grad_qkv, int64_t threads) {
  const int64_t N = shape.tokens, width = shape.width(), D = padded(width, LANES<T>);
  const int64_t M = padded(N, ROWS), L = padded(M, LANES<T>);
  const T scale = 1 / std::sqrt(T(width));
#pragma omp parallel num_threads(threads)
  {
    Scratch<T> scratch(3 * M * D + 4 * L * D + 2 * M * L);
    T *q = scratch.zeros(M * D), *g = scratch.zeros(M * D), *o = scratch.zeros(M * D);
    T *k = scratch.zeros(L * D), *kt = scratch.zeros(L * D), *v = scratch.zeros(L * D), *vt = scratch.zeros(L * D);
    T *p = scratch.zeros(M * L), *s = scratch.zeros(M * L);
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t b = 0; b < shape.batch; ++b)
      for (int64_t h = 0; h < shape.heads; ++h) {
        shape.gather(qkv, SLOTS, QUERY, b, h, q, D, scale);
        shape.gather(qkv, SLOTS, KEY, b, h, k, D);
        shape.gather(qkv, SLOTS, VALUE, b, h, v, D);
        shape.gather(grad, 1, 0, b, h, g, D);
        shape.gather(mixed, 1, 0, b, h, o, D);
        transpose(L, D, k, kt);
        transpose(L, D, v, vt);
        for (int64_t i = 0; i < N; i += ROWS) {
          product<T>(ROWS, L, width, q + i * D, D, 1, kt, p + i * L);
          product<T>(ROWS, L, width, g + i * D, D, 1, vt, s + i * L);
          for (int64_t row = i; row < std::min(i + ROWS, N); ++row) {
            exponentials(p + row * L, N, L, normaliser[(b * shape.heads + h) * N + row]);
            const Vec<T> common(at::vec::map2_reduce_all<T>(
                [](Vec<T> a, Vec<T> b) { return a * b; }, add<T>, g + row * D, o + row * D, D));
            for (int64_t j = row * L; j < (row + 1) * L; j += LANES<T>)
              ((Vec<T>::loadu(s + j) - common) * Vec<T>::loadu(p + j)).store(s + j);
          }
        }
        // The gradients take turns in one block. What was scaled in q is the scale of dK.
        product<T>(M, D, N, s, L, 1, k, o);
        shape.scatter(grad_qkv, SLOTS, QUERY, b, h, o, D, scale);
        product<T>(M, D, N, s, 1, L, q, o);
        shape.scatter(grad_qkv, SLOTS, KEY, b, h, o, D);
        product<T>(M, D, N, p, 1, L, g, o);
        shape.scatter(grad_qkv, SLOTS, VALUE, b, h, o, D);
      }
  }
}

}  // namespace

#define EXPORT(T)                                                                                             \
  extern "C" void forward_##T(int64_t parts, int64_t batch, int64_t tokens, int64_t heads,                    \
                              const int64_t* widths, int64_t threads, const T* const* qkv, T* const* mixed,   \
                              T* normaliser) {                                                                \
    forward<T>({parts, batch, tokens, heads, widths}, qkv, mixed, normaliser, threads);                       \
  }                                                                                                           \
  extern "C" void backward_##T(int64_t parts, int64_t batch, int64_t tokens, int64_t heads,                   \
                               const int64_t* widths, int64_t threads, const T* const* grad,                  \
                               const T* const* qkv, const T* const* mixed, const T* normaliser,               \
                               T* const* grad_qkv) {                                                          \
    backward<T>({parts, batch, tokens, heads, widths}, grad, qkv, mixed, normaliser, grad_qkv, threads);      \
  }

EXPORT(float)
EXPORT(double)

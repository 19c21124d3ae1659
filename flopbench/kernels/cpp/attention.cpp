// Attention of whole heads, forward and backward; attention.py says what it computes and why it is here.
//
// A thread takes one head of one image at a time: its tokens are gathered from the parts of the feature into
// dense blocks that stay in the second-level cache, and everything else is products of those blocks. Blocks
// are padded to whole tiles: rows to ROWS, columns to the lanes of a vector. What is in the padding is finite
// and never read as a result. A head's rows lie far apart, and waiting for them took up to a tenth of the time:
// while one head is computed, those of the next are fetched.

#include "tile.h"

#include <cmath>
#include <limits>

namespace {

template <typename T>
Vec<T> add(Vec<T> a, Vec<T> b) {
  return a + b;
}

template <typename T>
Vec<T> larger(Vec<T> a, Vec<T> b) {
  return at::vec::maximum(a, b);
}

// c[rows, width] = a[rows, inner] · b[inner, width], where a(i, k) is a[i · row + k · column].
template <typename T>
void product(int64_t rows, int64_t width, int64_t inner, const T* a, int64_t row, int64_t column, const T* b,
             T* c) {
  // Panels as even as can be: the sums of a narrow one are too few to keep the multipliers busy.
  int64_t panels = padded(width, VECTORS * LANES<T>) / (VECTORS * LANES<T>);
  for (int64_t j = 0, columns; j < width; j += columns, --panels) {
    columns = padded((width - j + panels - 1) / panels, LANES<T>);
    for (int64_t i = 0; i < rows; i += ROWS)
      with_vectors<T>(columns, [&](auto vectors) {
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

// What follows acts on R rows of scores side by side: what one waits for, another fills.

// −∞ from `n` on: exponentials of the padding become 0.
template <typename T, int R>
void mask(T* x, int64_t n, int64_t size) {
  for (int r = 0; r < R; ++r)
    std::fill(x + r * size + n, x + (r + 1) * size, -std::numeric_limits<T>::infinity());
}

template <typename T, int R>
void maxima(const T* x, int64_t size, T* tops) {
  Vec<T> top[R];
  for (int r = 0; r < R; ++r) top[r] = Vec<T>::loadu(x + r * size);
  for (int64_t j = LANES<T>; j < size; j += LANES<T>)
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) top[r] = at::vec::maximum(top[r], Vec<T>::loadu(x + r * size + j));
  for (int r = 0; r < R; ++r) tops[r] = at::vec::vec_reduce_all<T>(larger<T>, top[r]);
}

// exp(x − shift) in place, and the sum of each row.
template <typename T, int R>
void exponentials(T* x, int64_t size, const T* shifts, T* sums) {
  Vec<T> shift[R], sum[R];
  for (int r = 0; r < R; ++r) {
    shift[r] = Vec<T>(shifts[r]);
    sum[r] = Vec<T>(T(0));
  }
  for (int64_t j = 0; j < size; j += LANES<T>)
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const Vec<T> e = exponential(Vec<T>::loadu(x + r * size + j) - shift[r]);
      e.store(x + r * size + j);
      sum[r] = sum[r] + e;
    }
  for (int r = 0; r < R; ++r) sums[r] = at::vec::vec_reduce_all<T>(add<T>, sum[r]);
}

// Every token of a feature has so many vectors for each head; `index` says which is meant.
struct Slot {
  int64_t of, index;
};
constexpr Slot QUERY{3, 0}, KEY{3, 1}, VALUE{3, 2}, MIXED{1, 0};

struct Rows {
  int64_t first, count;
};

// A feature in parts: part p lies as [batch, tokens, slots, heads, widths[p]]. An item is one head of one image.
template <typename T>
struct Heads {
  int64_t parts, batch, tokens, heads;
  const int64_t* widths;

  int64_t items() const { return batch * heads; }
  int64_t width() const {
    int64_t sum = 0;
    for (int64_t p = 0; p < parts; ++p) sum += widths[p];
    return sum;
  }

  // Rows of an item to a block [rows, stride], the parts of the head side by side.
  void gather(const T* const* from, Slot slot, int64_t item, Rows rows, T* block, int64_t stride,
              T scale = 1) const {
    for (int64_t p = 0; p < parts; block += widths[p++]) {
      const T* x = from[p] + offset(slot, item, rows, p);
      for (int64_t n = 0; n < rows.count; ++n)
        scaled<T>(x + n * step(slot, p), block + n * stride, widths[p], Vec<T>(scale));
    }
  }

  void scatter(T* const* to, Slot slot, int64_t item, Rows rows, const T* block, int64_t stride,
               T scale = 1) const {
    for (int64_t p = 0; p < parts; block += widths[p++]) {
      T* x = to[p] + offset(slot, item, rows, p);
      for (int64_t n = 0; n < rows.count; ++n)
        scaled<T>(block + n * stride, x + n * step(slot, p), widths[p], Vec<T>(scale));
    }
  }

  // Ask for rows that will be gathered. Inlined in any case: of a function that only asks, GCC drops the calls.
  [[gnu::always_inline]] void prefetch(const T* const* from, Slot slot, int64_t item, Rows rows) const {
    for (int64_t p = 0; p < parts; ++p) {
      const T* x = from[p] + offset(slot, item, rows, p);
      for (int64_t n = 0; n < rows.count; ++n)
        for (int64_t j = 0; j < widths[p]; j += LANES<T>) __builtin_prefetch(x + n * step(slot, p) + j, 0, 2);
    }
  }

 private:
  int64_t step(Slot slot, int64_t part) const { return slot.of * heads * widths[part]; }
  int64_t offset(Slot slot, int64_t item, Rows rows, int64_t part) const {
    const int64_t image = item / heads, head = item % heads;
    return (image * tokens + rows.first) * step(slot, part) + (slot.index * heads + head) * widths[part];
  }
};

template <typename T>
void forward(const Heads<T>& shape, const T* const* qkv, T* const* mixed, T* normaliser, int64_t threads) {
  const int64_t N = shape.tokens, width = shape.width(), D = padded(width, LANES<T>);
  const int64_t M = padded(N, ROWS), L = padded(M, LANES<T>);
  const T scale = 1 / std::sqrt(T(width));
#pragma omp parallel num_threads(threads)
  {
    Scratch<T> scratch(2 * L * D + 2 * ROWS * D + ROWS * L + 2 * L);
    T *x = scratch.zeros(L * D), *kt = scratch.zeros(L * D), *q = scratch.zeros(ROWS * D);
    T *o = scratch.zeros(ROWS * D), *p = scratch.zeros(ROWS * L), *tops = scratch.zeros(L), *sums = scratch.zeros(L);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < shape.items(); ++item) {
      // What this thread will probably do next, as the threads take turns.
      const int64_t next = std::min(item + 1, shape.items() - 1);
      shape.gather(qkv, KEY, item, {0, N}, x, D);
      transpose(L, D, x, kt);
      shape.gather(qkv, VALUE, item, {0, N}, x, D);
      for (int64_t i = 0; i < N; i += ROWS) {
        const Rows rows{i, std::min(ROWS, N - i)};
        for (const Slot slot : {QUERY, KEY, VALUE}) shape.prefetch(qkv, slot, next, rows);
        shape.gather(qkv, QUERY, item, rows, q, D, scale);
        product<T>(ROWS, L, width, q, D, 1, kt, p);
        mask<T, ROWS>(p, N, L);
        maxima<T, ROWS>(p, L, tops + i);
        exponentials<T, ROWS>(p, L, tops + i, sums + i);
        product<T>(ROWS, D, N, p, L, 1, x, o);
        for (int64_t r = 0; r < ROWS; ++r) scaled<T>(o + r * D, o + r * D, D, Vec<T>(1 / sums[i + r]));
        shape.scatter(mixed, MIXED, item, rows, o, D);
      }
      for (int64_t i = 0; i < N; i += LANES<T>)
        (Vec<T>::loadu(tops + i) + Vec<T>::loadu(sums + i).log())
            .store(normaliser + item * N + i, std::min(N - i, LANES<T>));
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
#pragma omp for schedule(static)
    for (int64_t item = 0; item < shape.items(); ++item) {
      const Rows all{0, N};
      shape.gather(qkv, QUERY, item, all, q, D, scale);
      shape.gather(qkv, KEY, item, all, k, D);
      shape.gather(qkv, VALUE, item, all, v, D);
      shape.gather(grad, MIXED, item, all, g, D);
      shape.gather(mixed, MIXED, item, all, o, D);
      transpose(L, D, k, kt);
      transpose(L, D, v, vt);
      const int64_t next = std::min(item + 1, shape.items() - 1);
      for (int64_t i = 0; i < N; i += ROWS) {
        const Rows rows{i, std::min(ROWS, N - i)};
        for (const Slot slot : {QUERY, KEY, VALUE}) shape.prefetch(qkv, slot, next, rows);
        shape.prefetch(grad, MIXED, next, rows);
        shape.prefetch(mixed, MIXED, next, rows);
        product<T>(ROWS, L, width, q + i * D, D, 1, kt, p + i * L);
        product<T>(ROWS, L, width, g + i * D, D, 1, vt, s + i * L);
        for (int64_t row = i; row < std::min(i + ROWS, N); ++row) {
          // All rows at once were up to 2 % slower here.
          T ignored;
          mask<T, 1>(p + row * L, N, L);
          exponentials<T, 1>(p + row * L, L, normaliser + item * N + row, &ignored);
          const Vec<T> common(at::vec::map2_reduce_all<T>(
              [](Vec<T> a, Vec<T> b) { return a * b; }, add<T>, g + row * D, o + row * D, D));
          for (int64_t j = row * L; j < (row + 1) * L; j += LANES<T>)
            ((Vec<T>::loadu(s + j) - common) * Vec<T>::loadu(p + j)).store(s + j);
        }
      }
      // The gradients take turns in one block. What was scaled in q is the scale of dK.
      product<T>(M, D, N, s, L, 1, k, o);
      shape.scatter(grad_qkv, QUERY, item, all, o, D, scale);
      product<T>(M, D, N, s, 1, L, q, o);
      shape.scatter(grad_qkv, KEY, item, all, o, D);
      product<T>(M, D, N, p, 1, L, g, o);
      shape.scatter(grad_qkv, VALUE, item, all, o, D);
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

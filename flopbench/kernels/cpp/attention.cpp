// Attention of whole heads, forward and backward; attention.py says what it computes and why it is here.
//
// A thread takes one head of one image at a time: its tokens are gathered from the parts of the feature into
// dense blocks that stay in the second-level cache, and everything else is products of those blocks. Of many
// tokens, it takes the keys a block at a time, so that what it needs of them and of scores is as much however many
// there are. Blocks are padded to whole tiles: rows to ROWS, columns to the lanes of a vector. What is in the padding
// is never read as a result. A head's rows lie far apart, and waiting for them took up to a quarter of the time, for
// those to be written no less than for those to be read: within the products before, they are fetched, a line at a
// time, and what the products read many times stays in the first-level cache, or it would have to wait for those lines.

#include "heads.h"
#include "signatures.h"
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

// Of a panel of what is multiplied, in rows: 128 of 4 vectors are 32 KiB.
constexpr int64_t DEPTH = 128;
// Of the rows of scores that are computed together: four tiles to each panel, and 20 KiB for 197 tokens in fp32. Half as
// many were 2 to 6 % slower.
constexpr int64_t BLOCK = 4 * ROWS;
// Of the keys that are there at once: so few that the scores of a block of rows stay in the first-level cache, and the
// tokens of an image of 224 pixels in patches of 14 or 16 are one block.
constexpr int64_t KEYS = 48 * ROWS;
// Of the rows that a thread takes through all keys: so many that gathering the keys for them is little of the work, and
// few enough for what becomes of them to stay in the second-level cache.
constexpr int64_t CHUNK = 128 * ROWS;

// c[rows, width] = a[rows, inner] · b[inner, width], or c += that, where a(i, k) is a[i · row + k · column]. Each tile
// fetches what it is given to.
template <typename T, typename Fetch>
void product(int64_t rows, int64_t width, int64_t inner, const T* a, int64_t row, int64_t column, const T* b, T* c,
             Fetch&& fetch, bool adds = false) {
  const int64_t steps = padded(inner, DEPTH) / DEPTH, depth = (inner + steps - 1) / steps;
  for (int64_t k = 0; k < inner; k += depth) {
    const int64_t count = std::min(depth, inner - k);
    // Panels as even as can be: the sums of a narrow one are too few to keep the multipliers busy.
    int64_t panels = padded(width, VECTORS * LANES<T>) / (VECTORS * LANES<T>);
    for (int64_t j = 0, columns; j < width; j += columns, --panels) {
      columns = padded((width - j + panels - 1) / panels, LANES<T>);
      for (int64_t i = 0; i < rows; i += ROWS)
        with_vectors<T>(columns, [&](auto vectors) __attribute__((always_inline)) {
          tile<T, vectors()>(ROWS, count, a + i * row + k * column, row, column, b + k * width + j, width, nullptr,
                             adds || k > 0, c + i * width + j, width, fetch.take(count));
        });
    }
  }
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

// Rows whose exponentials have been summed over earlier blocks of keys, unless these are the first, go on to `n` more:
// scores x become exponentials of differences to the largest so far, and to that the sums and the rows of `mixed`, which
// are sums too, are brought.
template <typename T, int R>
void softmax(T* x, int64_t n, int64_t size, bool first, T* tops, T* sums, T* mixed, int64_t width) {
  T top[R], sum[R];
  mask<T, R>(x, n, size);
  maxima<T, R>(x, size, top);
  // Of scores that are all −∞ no exponential may become NaN: others may follow.
  for (int r = 0; r < R; ++r) top[r] = std::max(top[r], first ? std::numeric_limits<T>::lowest() : tops[r]);
  exponentials<T, R>(x, size, top, sum);
  for (int r = 0; r < R; ++r) {
    if (!first && top[r] != tops[r]) {
      const T factor = std::exp(tops[r] - top[r]);
      sums[r] *= factor;
      scaled<T>(mixed + r * width, mixed + r * width, width, Vec<T>(factor));
    }
    tops[r] = top[r];
    sums[r] = first ? sum[r] : sums[r] + sum[r];
  }
}

// Of a row of scores: whole vectors, and as many as there are in whole tiles of keys.
template <typename T>
int64_t columns(int64_t keys) {
  return padded(padded(keys, ROWS), LANES<T>);
}

template <typename T>
void forward(const Heads<T>& shape, const T* const* qkv, T* const* mixed, T* normaliser, int64_t threads) {
  const int64_t N = shape.tokens, width = shape.width(), D = padded(width, LANES<T>);
  const Blocks blocks(N, KEYS), chunks(N, CHUNK);
  const int64_t L = columns<T>(blocks.size), C = padded(chunks.size, LANES<T>);
  const int64_t units = shape.items() * chunks.count;
  // Through with all keys at once, a block of rows leaves its place to the next.
  const bool once = blocks.count == 1;
  const T scale = 1 / std::sqrt(T(width));
#pragma omp parallel num_threads(threads)
  {
    const int64_t kept = once ? BLOCK : chunks.size;
    Scratch<T> scratch(2 * L * D + LANES<T> * D + (BLOCK + kept) * D + BLOCK * L + 2 * C);
    T *kt = scratch.zeros(L * D), *v = scratch.zeros(L * D), *few = scratch.zeros(LANES<T> * D);
    T *q = scratch.zeros(BLOCK * D), *all = scratch.zeros(kept * D), *p = scratch.zeros(BLOCK * L);
    T *tops = scratch.zeros(C), *sums = scratch.zeros(C);
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < units; ++unit) {
      const int64_t item = unit / chunks.count;
      const Rows chunk = chunks[unit % chunks.count];
      for (int64_t block = 0; block < blocks.count; ++block) {
        const Rows keys = blocks[block];
        const int64_t size = columns<T>(keys.count);
        const bool first = block == 0, last = block + 1 == blocks.count;
        shape.gather_transposed(qkv, KEY, item, keys, kt, size, few, D);
        shape.gather(qkv, VALUE, item, keys, v, D);
        // What this thread will probably do next, as the threads take turns.
        const int64_t after = std::min(unit + last, units - 1);
        const Rows coming = blocks[last ? 0 : block + 1], rest = chunks[after % chunks.count];
        const Rows queries{rest.first, last ? std::min(rest.count, KEYS) : 0};
        Fetch<T, 4, false> next(shape, after / chunks.count,
                                {{qkv, KEY, coming}, {qkv, VALUE, coming}, {qkv, QUERY, queries}});
        for (int64_t i = 0; i < chunk.count; i += BLOCK) {
          const Rows rows{chunk.first + i, std::min(BLOCK, chunk.count - i)};
          const int64_t computed = padded(rows.count, ROWS);
          T* const o = once ? all : all + i * D;
          shape.gather(qkv, QUERY, item, rows, q, D, scale);
          product<T>(computed, size, width, q, D, 1, kt, p, next);
          for (int64_t r = 0; r < computed; r += ROWS)
            softmax<T, ROWS>(p + r * size, keys.count, size, first, tops + i + r, sums + i + r, o + r * D, D);
          product<T>(computed, D, keys.count, p, size, 1, v, o,
                     Fetch<T, 8, true>(shape, item, {{mixed, MIXED, {rows.first, last ? rows.count : 0}}}), !first);
          if (!last) continue;
          for (int64_t r = 0; r < computed; ++r) scaled<T>(o + r * D, o + r * D, D, Vec<T>(1 / sums[i + r]));
          shape.scatter(mixed, MIXED, item, rows, o, D);
        }
      }
      for (int64_t i = 0; i < chunk.count; i += LANES<T>)
        (Vec<T>::loadu(tops + i) + Vec<T>::loadu(sums + i).log())
            .store(normaliser + item * N + chunk.first + i, std::min(chunk.count - i, LANES<T>));
    }
  }
}

// With S = Q Kᵀ/√d, P = softmax(S) and O = P V: dV = Pᵀ dO, dP = dO Vᵀ, dS = P ∘ (dP − (dO ∘ O) 1),
// dQ = dS K/√d and dK = dSᵀ Q/√d. P is computed again from its normaliser, the log of the sum.
template <typename T>
void backward(const Heads<T>& shape, const T* const* grad, const T* const* qkv, const T* const* mixed,
              const T* normaliser, T* const* grad_qkv, int64_t threads) {
  const int64_t N = shape.tokens, width = shape.width(), D = padded(width, LANES<T>);
  const Blocks blocks(N, KEYS);
  const int64_t M = padded(N, ROWS), S = blocks.size, L = columns<T>(S);
  const bool once = blocks.count == 1;
  const T scale = 1 / std::sqrt(T(width));
#pragma omp parallel num_threads(threads)
  {
    Scratch<T> scratch(3 * M * D + 2 * S * D + 3 * L * D + (BLOCK + LANES<T>) * D + 2 * S * L + M);
    T *q = scratch.zeros(M * D), *g = scratch.zeros(M * D), *o = scratch.zeros(BLOCK * D), *common = scratch.zeros(M);
    T *k = scratch.zeros(L * D), *kt = scratch.zeros(L * D), *vt = scratch.zeros(L * D);
    T *few = scratch.zeros(LANES<T> * D), *p = scratch.zeros(S * L), *s = scratch.zeros(S * L);
    // Gradients that are sums of one product are written at once, and take turns in one place.
    T *dq = scratch.zeros(M * D), *dk = once ? dq : scratch.zeros(S * D), *dv = once ? dq : scratch.zeros(S * D);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < shape.items(); ++item) {
      const Rows all{0, N};
      shape.gather(qkv, QUERY, item, all, q, D, scale);
      shape.gather(grad, MIXED, item, all, g, D);
      for (int64_t i = 0; i < N; i += BLOCK) {
        const Rows rows{i, std::min(BLOCK, N - i)};
        shape.gather(mixed, MIXED, item, rows, o, D);
        for (int64_t r = 0; r < rows.count; ++r)
          common[i + r] = at::vec::map2_reduce_all<T>([](Vec<T> a, Vec<T> b) { return a * b; }, add<T>,
                                                      g + (i + r) * D, o + r * D, D);
      }
      for (int64_t block = 0; block < blocks.count; ++block) {
        const Rows keys = blocks[block];
        const int64_t size = columns<T>(keys.count);
        const bool last = block + 1 == blocks.count;
        shape.gather(qkv, KEY, item, keys, k, D);
        shape.gather_transposed(qkv, KEY, item, keys, kt, size, few, D);
        shape.gather_transposed(qkv, VALUE, item, keys, vt, size, few, D);
        const int64_t after = std::min(item + last, shape.items() - 1);
        const Rows coming = blocks[last ? 0 : block + 1], queries{0, last ? std::min(N, KEYS) : 0};
        Fetch<T, 4, false> next(shape, after,
                                {{qkv, QUERY, queries},
                                 {qkv, KEY, coming},
                                 {qkv, VALUE, coming},
                                 {grad, MIXED, queries},
                                 {mixed, MIXED, queries}});
        for (int64_t n = 0; n < blocks.count; ++n) {
          const Rows rows = blocks[n];
          const T *const queries = q + rows.first * D, *const grads = g + rows.first * D;
          for (int64_t i = 0; i < rows.count; i += BLOCK) {
            const int64_t end = std::min(i + BLOCK, rows.count), computed = padded(end - i, ROWS);
            product<T>(computed, size, width, queries + i * D, D, 1, kt, p + i * size, next);
            product<T>(computed, size, width, grads + i * D, D, 1, vt, s + i * size, next);
            for (int64_t row = i; row < end; ++row) {
              // All rows at once were slower here.
              T ignored;
              mask<T, 1>(p + row * size, keys.count, size);
              exponentials<T, 1>(p + row * size, size, normaliser + item * N + rows.first + row, &ignored);
              const Vec<T> shift(common[rows.first + row]);
              for (int64_t j = row * size; j < (row + 1) * size; j += LANES<T>)
                ((Vec<T>::loadu(s + j) - shift) * Vec<T>::loadu(p + j)).store(s + j);
            }
          }
          // A gradient goes on with this block, and is written when it is whole. What was scaled in q is the scale
          // of dK.
          const auto sum = [&](Slot slot, Rows to, int64_t inner, const T* a, int64_t row, int64_t column, const T* b,
                               T* c, bool begins, bool ends, T factor) {
            product<T>(padded(to.count, ROWS), D, inner, a, row, column, b, c,
                       Fetch<T, 8, true>(shape, item, {{grad_qkv, slot, {to.first, ends ? to.count : 0}}}), !begins);
            if (ends) shape.scatter(grad_qkv, slot, item, to, c, D, factor);
          };
          const bool begins = n == 0, ends = n + 1 == blocks.count;
          sum(QUERY, rows, keys.count, s, size, 1, k, dq + rows.first * D, block == 0, last, scale);
          sum(KEY, keys, rows.count, s, 1, size, queries, dk, begins, ends, 1);
          sum(VALUE, keys, rows.count, p, 1, size, grads, dv, begins, ends, 1);
        }
      }
    }
  }
}

}  // namespace

#define EXPORT(T)                                                                                                   \
  extern "C" void attention_parts_##T(int64_t parts, int64_t batch, int64_t tokens, int64_t heads,                  \
                                      const int64_t* widths, int64_t threads, const T* const* qkv, T* const* mixed, \
                                      T* normaliser) {                                                              \
    forward<T>({parts, batch, tokens, heads, widths}, qkv, mixed, normaliser, threads);                             \
  }                                                                                                                 \
  extern "C" void attention_parts_backward_##T(int64_t parts, int64_t batch, int64_t tokens, int64_t heads,         \
                                               const int64_t* widths, int64_t threads, const T* const* grad,        \
                                               const T* const* qkv, const T* const* mixed, const T* normaliser,     \
                                               T* const* grad_qkv) {                                                \
    backward<T>({parts, batch, tokens, heads, widths}, grad, qkv, mixed, normaliser, grad_qkv, threads);            \
  }

EXPORT(float)
EXPORT(double)

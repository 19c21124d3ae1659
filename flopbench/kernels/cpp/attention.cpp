// Attention of whole heads, forward and backward; attention.py says what it computes and why it is here.
//
// A thread takes one head of one image at a time: its tokens are gathered from the parts of the feature into
// dense blocks that stay in the second-level cache, and everything else is products of those blocks. Blocks
// are padded to whole tiles: rows to ROWS, columns to the lanes of a vector. What is in the padding is finite
// and never read as a result. A head's rows lie far apart, and waiting for them took up to a quarter of the time, for
// those to be written no less than for those to be read: within the products before, they are fetched, a line at a
// time, and what the products read many times stays in the first-level cache, or it would have to wait for those lines.

#include "signatures.h"
#include "tile.h"

#include <cmath>
#include <initializer_list>
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

// c[rows, width] = a[rows, inner] · b[inner, width], where a(i, k) is a[i · row + k · column]. Each tile fetches what it
// is given to.
template <typename T, typename Fetch>
void product(int64_t rows, int64_t width, int64_t inner, const T* a, int64_t row, int64_t column, const T* b, T* c,
             Fetch&& fetch) {
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
                             k > 0, c + i * width + j, width, fetch.take(count));
        });
    }
  }
}

// y = scale · x. Between compilers' options one cannot count on a loop being vectorised, hence by hand.
template <typename T>
inline void scaled(const T* x, T* y, int64_t n, Vec<T> scale) {
  int64_t i = 0;
  for (; i + LANES<T> <= n; i += LANES<T>) (Vec<T>::loadu(x + i) * scale).store(y + i);
  if (i < n) (Vec<T>::loadu(x + i, n - i) * scale).store(y + i, n - i);
}

// The same for rows of n, `x_step` and `y_step` apart: those of a few whole vectors with no loop for each.
template <typename T>
void scaled(int64_t rows, const T* x, int64_t x_step, T* y, int64_t y_step, int64_t n, Vec<T> scale) {
  if (n < LANES<T>) {
    for (int64_t r = 0; r < rows; ++r) (Vec<T>::loadu(x + r * x_step, n) * scale).store(y + r * y_step, n);
    return;
  }
  if (n % LANES<T> || n > VECTORS * LANES<T>) {
    for (int64_t r = 0; r < rows; ++r) scaled<T>(x + r * x_step, y + r * y_step, n, scale);
    return;
  }
  with_vectors<T>(n, [&](auto vectors) __attribute__((always_inline)) {
    for (int64_t r = 0; r < rows; ++r)
      repeat<vectors()>(EACH(v) {
        (Vec<T>::loadu(x + r * x_step + v * LANES<T>) * scale).store(y + r * y_step + v * LANES<T>);
      });
  });
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
      const T* const x = from[p] + offset(slot, item, rows, p);
      scaled<T>(rows.count, x, step(slot, p), block, stride, widths[p], Vec<T>(scale));
    }
  }

  void scatter(T* const* to, Slot slot, int64_t item, Rows rows, const T* block, int64_t stride,
               T scale = 1) const {
    for (int64_t p = 0; p < parts; block += widths[p++]) {
      T* const x = to[p] + offset(slot, item, rows, p);
      scaled<T>(rows.count, block, stride, x, step(slot, p), widths[p], Vec<T>(scale));
    }
  }

  // The same as columns, [stride, rows], by way of a few rows at a time. Both sides are multiples of the lanes.
  void gather_transposed(const T* const* from, Slot slot, int64_t item, T* block, int64_t columns, T* few,
                         int64_t stride) const {
    constexpr int L = LANES<T>;
    for (int64_t n = 0; n < tokens; n += L) {
      gather(from, slot, item, {n, std::min<int64_t>(L, tokens - n)}, few, stride);
      for (int64_t j = 0; j < stride; j += L)
        at::vec::transpose_mxn<T, L, L>(few + j, stride, block + j * columns + n, columns);
    }
  }

  int64_t step(Slot slot, int64_t part) const { return slot.of * heads * widths[part]; }
  int64_t offset(Slot slot, int64_t item, Rows rows, int64_t part) const {
    const int64_t image = item / heads, head = item % heads;
    return (image * tokens + rows.first) * step(slot, part) + (slot.index * heads + head) * widths[part];
  }
};

// Rows of an item that products are to fetch meanwhile, to be written or to be read: each tile a column of lines, one
// every `every` terms of its sums. Past the last row nothing is there, and fetching it does no harm.
template <typename T, int every, bool writes>
class Fetch {
 public:
  struct Source {
    const T* const* parts;
    Slot slot;
  };
  struct Column {
    const T* at;
    int64_t step;
    [[gnu::always_inline]] void operator()(int64_t k, const T* const*) {
      if (k % every == 0) {
        __builtin_prefetch(at, writes, 2);
        at += step;
      }
    }
  };

  Fetch(const Heads<T>& shape, int64_t item, Rows rows, std::initializer_list<Source> sources)
      : shape_(shape), item_(item), rows_(rows), count_(sources.size()) {
    std::copy(sources.begin(), sources.end(), sources_);
    begin();
  }

  // The column for a tile of so many terms; when there are no more, one line again and again.
  Column take(int64_t terms) {
    const Column column{top_ + row_ * step_, step_};
    row_ += (terms + every - 1) / every;
    if (row_ >= rows_.count) advance();
    return column;
  }

 private:
  void begin() {
    const auto [parts, slot] = sources_[source_];
    top_ = parts[part_] + shape_.offset(slot, item_, rows_, part_) + line_;
    step_ = shape_.step(slot, part_);
  }
  void advance() {
    row_ = 0, line_ += LINE<T>;
    if (line_ >= shape_.widths[part_]) {
      line_ = 0;
      do
        if (++part_ == shape_.parts) part_ = 0, ++source_;
      while (source_ < count_ && fetched());
    }
    source_ < count_ ? begin() : void(step_ = source_ = 0);
  }
  // Whether the head before has it in its own line. There are not so many tiles that they could fetch it again.
  bool fetched() const {
    const int64_t first = shape_.offset(sources_[source_].slot, item_, rows_, part_) % LINE<T>;
    return first > 0 && first + shape_.widths[part_] <= LINE<T>;
  }

  const Heads<T>& shape_;
  const int64_t item_;
  const Rows rows_;
  const int64_t count_;
  Source sources_[5];
  int64_t source_ = 0, part_ = 0, line_ = 0, row_ = 0, step_ = 0;
  const T* top_ = nullptr;
};

template <typename T>
void forward(const Heads<T>& shape, const T* const* qkv, T* const* mixed, T* normaliser, int64_t threads) {
  const int64_t N = shape.tokens, width = shape.width(), D = padded(width, LANES<T>);
  const int64_t M = padded(N, ROWS), L = padded(M, LANES<T>);
  const T scale = 1 / std::sqrt(T(width));
#pragma omp parallel num_threads(threads)
  {
    Scratch<T> scratch(2 * L * D + LANES<T> * D + 2 * BLOCK * D + BLOCK * L + 2 * L);
    T *kt = scratch.zeros(L * D), *v = scratch.zeros(L * D), *few = scratch.zeros(LANES<T> * D);
    T *q = scratch.zeros(BLOCK * D), *o = scratch.zeros(BLOCK * D), *p = scratch.zeros(BLOCK * L);
    T *tops = scratch.zeros(L), *sums = scratch.zeros(L);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < shape.items(); ++item) {
      const Rows all{0, N};
      shape.gather_transposed(qkv, KEY, item, kt, L, few, D);
      shape.gather(qkv, VALUE, item, all, v, D);
      // What this thread will probably do next, as the threads take turns.
      const int64_t after = std::min(item + 1, shape.items() - 1);
      Fetch<T, 4, false> next(shape, after, all, {{qkv, KEY}, {qkv, VALUE}, {qkv, QUERY}});
      for (int64_t i = 0; i < N; i += BLOCK) {
        const Rows rows{i, std::min(BLOCK, N - i)};
        const int64_t computed = padded(rows.count, ROWS);
        shape.gather(qkv, QUERY, item, rows, q, D, scale);
        product<T>(computed, L, width, q, D, 1, kt, p, next);
        for (int64_t r = 0; r < computed; r += ROWS) {
          mask<T, ROWS>(p + r * L, N, L);
          maxima<T, ROWS>(p + r * L, L, tops + i + r);
          exponentials<T, ROWS>(p + r * L, L, tops + i + r, sums + i + r);
        }
        product<T>(computed, D, N, p, L, 1, v, o, Fetch<T, 8, true>(shape, item, rows, {{mixed, MIXED}}));
        for (int64_t r = 0; r < computed; ++r) scaled<T>(o + r * D, o + r * D, D, Vec<T>(1 / sums[i + r]));
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
    Scratch<T> scratch(3 * M * D + 3 * L * D + LANES<T> * D + 2 * M * L);
    T *q = scratch.zeros(M * D), *g = scratch.zeros(M * D), *o = scratch.zeros(M * D), *k = scratch.zeros(L * D);
    T *kt = scratch.zeros(L * D), *vt = scratch.zeros(L * D), *few = scratch.zeros(LANES<T> * D);
    T *p = scratch.zeros(M * L), *s = scratch.zeros(M * L);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < shape.items(); ++item) {
      const Rows all{0, N};
      shape.gather(qkv, QUERY, item, all, q, D, scale);
      shape.gather(qkv, KEY, item, all, k, D);
      shape.gather(grad, MIXED, item, all, g, D);
      shape.gather(mixed, MIXED, item, all, o, D);
      shape.gather_transposed(qkv, KEY, item, kt, L, few, D);
      shape.gather_transposed(qkv, VALUE, item, vt, L, few, D);
      const int64_t after = std::min(item + 1, shape.items() - 1);
      Fetch<T, 4, false> next(shape, after, all,
                              {{qkv, QUERY}, {qkv, KEY}, {qkv, VALUE}, {grad, MIXED}, {mixed, MIXED}});
      for (int64_t i = 0; i < N; i += BLOCK) {
        const int64_t last = std::min(i + BLOCK, N), computed = padded(last - i, ROWS);
        product<T>(computed, L, width, q + i * D, D, 1, kt, p + i * L, next);
        product<T>(computed, L, width, g + i * D, D, 1, vt, s + i * L, next);
        for (int64_t row = i; row < last; ++row) {
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
      const auto to = [&](Slot slot) { return Fetch<T, 8, true>(shape, item, all, {{grad_qkv, slot}}); };
      product<T>(M, D, N, s, L, 1, k, o, to(QUERY));
      shape.scatter(grad_qkv, QUERY, item, all, o, D, scale);
      product<T>(M, D, N, s, 1, L, q, o, to(KEY));
      shape.scatter(grad_qkv, KEY, item, all, o, D);
      product<T>(M, D, N, p, 1, L, g, o, to(VALUE));
      shape.scatter(grad_qkv, VALUE, item, all, o, D);
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

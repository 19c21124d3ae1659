// Heads of a feature in parts: their rows, gathered to dense blocks and scattered, and fetched before.

#pragma once

#include "tile.h"

#include <algorithm>
#include <cstdint>
#include <initializer_list>

namespace {

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

// Every token of a feature has so many vectors for each head; `index` says which is meant.
struct Slot {
  int64_t of, index;
};
constexpr Slot QUERY{3, 0}, KEY{3, 1}, VALUE{3, 2}, MIXED{1, 0};

struct Rows {
  int64_t first, count;
};

// Tokens in as few blocks as can be of up to `most`, a multiple of ROWS; but for the last they are whole tiles.
struct Blocks {
  int64_t tokens, size, count;
  Blocks(int64_t tokens, int64_t most) : tokens(tokens) {
    const int64_t blocks = (tokens + most - 1) / most;
    size = padded((tokens + blocks - 1) / blocks, ROWS);
    count = (tokens + size - 1) / size;
  }
  Rows operator[](int64_t n) const { return {n * size, std::min(size, tokens - n * size)}; }
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
  void gather_transposed(const T* const* from, Slot slot, int64_t item, Rows rows, T* block, int64_t columns, T* few,
                         int64_t stride) const {
    constexpr int L = LANES<T>;
    for (int64_t n = 0; n < rows.count; n += L) {
      gather(from, slot, item, {rows.first + n, std::min<int64_t>(L, rows.count - n)}, few, stride);
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
    Rows rows;
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

  // Of some sources there may be nothing to fetch, of none with no rows.
  Fetch(const Heads<T>& shape, int64_t item, std::initializer_list<Source> sources)
      : shape_(shape), item_(item), top_(sources.begin()->parts[0]) {
    for (const Source& source : sources)
      if (source.rows.count > 0) sources_[count_++] = source;
    if (count_ > 0) begin();
  }

  // The column for a tile of so many terms; when there are no more, one line again and again.
  Column take(int64_t terms) {
    const Column column{top_ + row_ * step_, step_};
    row_ += (terms + every - 1) / every;
    if (source_ < count_ && row_ >= sources_[source_].rows.count) advance();
    return column;
  }

 private:
  void begin() {
    const auto [parts, slot, rows] = sources_[source_];
    top_ = parts[part_] + shape_.offset(slot, item_, rows, part_) + line_;
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
    source_ < count_ ? begin() : void(step_ = 0);
  }
  // Whether the head before has it in its own line. There are not so many tiles that they could fetch it again.
  bool fetched() const {
    const auto [parts, slot, rows] = sources_[source_];
    const int64_t first = shape_.offset(slot, item_, rows, part_) % LINE<T>;
    return first > 0 && first + shape_.widths[part_] <= LINE<T>;
  }

  const Heads<T>& shape_;
  const int64_t item_;
  Source sources_[5];
  int64_t count_ = 0, source_ = 0, part_ = 0, line_ = 0, row_ = 0, step_ = 0;
  const T* top_;
};

}  // namespace

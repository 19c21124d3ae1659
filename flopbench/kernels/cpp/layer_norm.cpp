// The layer norm of a feature's parts, and the residual sum before it; layer_norm.py says what they compute and why
// they are here.

#include "signatures.h"
#include "vector.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace {

// `run` with each vector's offset and how many of its lanes count.
template <typename T, typename Run>
inline void vectors(int64_t width, Run run) {
  int64_t at = 0;
  for (; at + LANES<T> <= width; at += LANES<T>) run(at, LANES<T>);
  if (at < width) run(at, width - at);
}

template <typename T>
inline T sum(Vec<T> x) {
  return at::vec::vec_reduce_all<T>([](Vec<T> x, Vec<T> y) { return x + y; }, x);
}

// One row: y of the sums that `added` has made, which is x where there is no branch.
template <typename T>
struct Norm {
  int64_t parts;
  const int64_t *widths, *irreps, *dimensions;
  T eps;
  const T *const *gain, *shift;

  void run(const T* const* x, T* const* y) const {
    T mean[MOST_PARTS];
    Vec<T> squares(T(0));
    T order(0);
    for (int64_t p = 0; p < parts; ++p) {
      const int64_t width = widths[p], d = dimensions[irreps[p]];
      Vec<T> total(T(0));
      vectors<T>(width, [&](int64_t at, int64_t count) { total = total + Vec<T>::loadu(x[p] + at, count); });
      mean[p] = sum(total) / width;
      Vec<T> own(T(0));
      vectors<T>(width, [&](int64_t at, int64_t count) {
        const Vec<T> centred = Vec<T>::loadu(x[p] + at, count) - Vec<T>(mean[p]);
        own = own + Vec<T>::set(Vec<T>(T(0)), centred * centred, count);
      });
      squares = squares + own * Vec<T>(T(1) / (width * d));
      order += d;  // Once for each of an irrep's d rows.
    }
    const T scale = T(1) / std::sqrt((sum(squares) + eps) / order);
    for (int64_t p = 0; p < parts; ++p)
      vectors<T>(widths[p], [&](int64_t at, int64_t count) {
        const Vec<T> normed = (Vec<T>::loadu(x[p] + at, count) - Vec<T>(mean[p])) * Vec<T>(scale);
        Vec<T> result = normed * Vec<T>::loadu(gain[irreps[p]] + at, count);
        if (p == 0) result = result + Vec<T>::loadu(shift + at, count);
        result.store(y[p] + at, count);
      });
  }
};

template <typename T>
void run(int64_t parts, int64_t rows, const int64_t* widths, const int64_t* irreps, const int64_t* dimensions,
         double eps, int64_t added, int64_t scaled, int64_t threads, const T* const* x, const T* const* branch,
         const T* const* gamma, const T* const* gain, const T* shift, T* const* sums, T* const* y) {
  const Norm<T> norm{parts, widths, irreps, dimensions, T(eps), gain, shift};
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const T* from[MOST_PARTS];
    T* to[MOST_PARTS];
    for (int64_t p = 0; p < parts; ++p) {
      const int64_t first = row * widths[p];
      from[p] = x[p] + first, to[p] = y[p] + first;
      if (!added) continue;
      T* const total = sums[p] + first;
      vectors<T>(widths[p], [&](int64_t at, int64_t count) {
        const Vec<T> more = Vec<T>::loadu(branch[p] + first + at, count), own = Vec<T>::loadu(from[p] + at, count);
        const Vec<T> scale = scaled ? Vec<T>::loadu(gamma[irreps[p]] + at, count) : Vec<T>(T(1));
        at::vec::fmadd(more, scale, own).store(total + at, count);
      });
      from[p] = total;
    }
    norm.run(from, to);
  }
}

}  // namespace

#define EXPORT(T)                                                                                                   \
  extern "C" void layer_norm_rows_##T(int64_t parts, int64_t rows, const int64_t* widths, const int64_t* irreps,    \
                                      const int64_t* dimensions, double eps, int64_t added, int64_t scaled,         \
                                      int64_t threads, const T* const* x, const T* const* branch,                   \
                                      const T* const* gamma, const T* const* gain, const T* shift, T* const* sums,  \
                                      T* const* y) {                                                                \
    run<T>(parts, rows, widths, irreps, dimensions, eps, added, scaled, threads, x, branch, gamma, gain, shift,     \
           sums, y);                                                                                                \
  }

EXPORT(float)
EXPORT(double)

// The GELU in the transform of parts and its gradient; gelu.py says what they compute and why they are here.

#include "gelu.h"
#include "signatures.h"

#include <algorithm>
#include <utility>

namespace {

// What a thread takes at a time, in elements of each point.
constexpr int64_t CHUNK = 4096;

// Rows of a point lie `stride` apart, from `x`, `g` and `y` on.
template <typename T>
struct Point {
  int64_t stride;
  const T *x, *g;
  T* y;
};

// y = of the transforms of x and g, back in parts. Called for whole vectors and for what is left of the last.
template <typename T, int P, typename Of>
inline void transformed(const Transform<T, P>& transform, const T* const* x, const T* const* g, T* const* y,
                        int64_t at, int64_t count, Of of) {
  Vec<T> u[P], v[P];
  for (int p = 0; p < P; ++p) {
    u[p] = Vec<T>::loadu(x[p] + at, count);
    v[p] = Vec<T>::loadu(g[p] + at, count);
  }
  transform.from_parts(u);
  transform.from_parts(v);
  for (int p = 0; p < P; ++p) u[p] = of(u[p], v[p]);
  transform.to_parts(u);
  for (int p = 0; p < P; ++p) u[p].store(y[p] + at, count);
}

template <typename T, int P, typename Of>
void run(const Slice* slices, int64_t rows, int64_t width, const Point<T>* points, int64_t threads, Of of) {
  const Transform<T, P> transform(slices);
  const int64_t chunks = (width + CHUNK - 1) / CHUNK;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t n = 0; n < rows * chunks; ++n) {
    const int64_t row = n / chunks, begin = n % chunks * CHUNK, end = std::min(width, begin + CHUNK);
    const T *x[P], *g[P];
    T* y[P];
    for (int p = 0; p < P; ++p) {
      const int64_t first = row * points[p].stride;
      x[p] = points[p].x + first, g[p] = points[p].g + first, y[p] = points[p].y + first;
    }
    int64_t at = begin;
    for (; at + LANES<T> <= end; at += LANES<T>) transformed<T, P>(transform, x, g, y, at, LANES<T>, of);
    if (at < end) transformed<T, P>(transform, x, g, y, at, end - at, of);
  }
}

template <typename T, typename Of>
void run(int64_t count, const Slice* slices, int64_t rows, const int64_t* channels, int64_t threads, const T* const* x,
         const T* const* g, T* const* y, Of of) {
  Point<T> points[MOST_POINTS];
  int64_t width = slices[0].width;
  bool dense = true;
  for (int64_t n = 0; n < count; ++n) {
    const auto [p, first, _, sign] = slices[n];
    points[n] = {channels[p], x[p] + first, g[p] + first, y[p] + first};
    dense &= channels[p] == width;
  }
  // Where every part is a point, rows need not be told apart.
  if (dense) width *= std::exchange(rows, 1);
  with_points(count, [&](auto P) { run<T, P()>(slices, rows, width, points, threads, of); });
}

}  // namespace

#define EXPORT(T)                                                                                                 \
  extern "C" void gelu_parts_##T(int64_t count, const Slice* slices, int64_t rows, const int64_t* channels,       \
                                 int64_t threads, const T* const* x, T* const* y) {                               \
    run<T>(count, slices, rows, channels, threads, x, x, y, [](Vec<T> x, Vec<T>) { return gelu(x); });            \
  }                                                                                                               \
  extern "C" void gelu_parts_backward_##T(int64_t count, const Slice* slices, int64_t rows,                       \
                                          const int64_t* channels, int64_t threads, const T* const* x,            \
                                          const T* const* g, T* const* y) {                                       \
    run<T>(count, slices, rows, channels, threads, x, g, y,                                                       \
           [](Vec<T> x, Vec<T> g) { return gelu_derivative(x) * g; });                                            \
  }

EXPORT(float)
EXPORT(double)

// The GELU in mirror pairs and its gradient; gelu.py says what they compute and why they are here.

#include "gelu.h"
#include "signatures.h"

#include <algorithm>

namespace {

// What a thread takes at a time, in elements of each part.
constexpr int64_t CHUNK = 4096;

// y = of the mirror pairs of x and g, back in parts. Called for whole vectors and for what is left of the last.
template <typename T, int P, typename Of>
inline void pairs(const T* const* x, const T* const* g, T* const* y, int64_t at, int64_t count, Of of) {
  Vec<T> u[P], v[P];
  for (int p = 0; p < P; ++p) {
    u[p] = Vec<T>::loadu(x[p] + at, count);
    v[p] = Vec<T>::loadu(g[p] + at, count);
  }
  transform<T, P>(u);
  transform<T, P>(v);
  for (int p = 0; p < P; ++p) u[p] = of(u[p], v[p]);
  transform<T, P>(u);
  for (int p = 0; p < P; ++p) u[p].store(y[p] + at, count);
}

template <typename T, int P, typename Of>
void run(int64_t size, const T* const* x, const T* const* g, T* const* y, int64_t threads, Of of) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t begin = 0; begin < size; begin += CHUNK) {
    const int64_t end = std::min(size, begin + CHUNK);
    int64_t at = begin;
    for (; at + LANES<T> <= end; at += LANES<T>) pairs<T, P>(x, g, y, at, LANES<T>, of);
    if (at < end) pairs<T, P>(x, g, y, at, end - at, of);
  }
}

template <typename T, typename Of>
void with_parts(int64_t parts, int64_t size, const T* const* x, const T* const* g, T* const* y, int64_t threads,
                Of of) {
  switch (parts) {
    case 1:
      return run<T, 1>(size, x, g, y, threads, of);
    case 2:
      return run<T, 2>(size, x, g, y, threads, of);
    default:
      return run<T, 4>(size, x, g, y, threads, of);
  }
}

}  // namespace

#define EXPORT(T)                                                                                                \
  extern "C" void gelu_parts_##T(int64_t parts, int64_t size, int64_t threads, const T* const* x, T* const* y) { \
    with_parts<T>(parts, size, x, x, y, threads, [](Vec<T> x, Vec<T>) { return gelu(x); });                      \
  }                                                                                                              \
  extern "C" void gelu_parts_backward_##T(int64_t parts, int64_t size, int64_t threads, const T* const* x,       \
                                          const T* const* g, T* const* y) {                                      \
    with_parts<T>(parts, size, x, g, y, threads, [](Vec<T> x, Vec<T> g) { return gelu_derivative(x) * g; });     \
  }

EXPORT(float)
EXPORT(double)

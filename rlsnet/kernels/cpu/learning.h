// Recursive least squares.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../arguments.h"
#include "covariance.h"
#include "simd.h"
#include "threads.h"

// P[i..i+ROWS] -= sum_q u_q[i..i+ROWS] u_q^T. Products of two numbers are exact within a fused multiply-add, so that P stays
// symmetric to the last bit.
template <typename T, int ROWS>
inline void DowndateRows(T* P, const T* u, int64_t n_u, int64_t inputs, int64_t i) {
  auto tile = [&](const V<T>* old, int64_t j, auto vectors) {
    constexpr int VECTORS = decltype(vectors)::value;
    V<T> acc[ROWS][VECTORS];
    for (int a = 0; a < ROWS; ++a)
      for (int b = 0; b < VECTORS; ++b) acc[a][b] = old ? old[a] : Load(P + (i + a) * inputs + j + b * Simd<T>::N);
    for (const T* uq = u; uq < u + n_u * inputs; uq += inputs)
      for (int b = 0; b < VECTORS; ++b) {
        const V<T> column = Load(uq + j + b * Simd<T>::N);
        for (int a = 0; a < ROWS; ++a) acc[a][b] -= uq[i + a] * column;
      }
    for (int a = 0; a < ROWS; ++a)
      for (int b = 0; b < VECTORS; ++b) Store(P + (i + a) * inputs + j + b * Simd<T>::N, acc[a][b]);
  };
  V<T> end[ROWS];
  for (int a = 0; a < ROWS; ++a) end[a] = Load(P + (i + a + 1) * inputs - Simd<T>::N);
  ForEachTile<T, VECTOR_BYTES == 64 ? 4 : 2>(  // at most half of the registers
      inputs, [&](int64_t j, auto vectors) { tile(nullptr, j, vectors); },
      [&](int64_t j) { tile(end, j, std::integral_constant<int, 1>()); });
}

// P -= sum_q u_q u_q^T.
template <typename T>
void Downdate(T* P, const T* u, int64_t n_u, int64_t inputs) {
  int64_t i = 0;
  if (inputs < Simd<T>::N) {
    for (int64_t q = 0; q < n_u; ++q)
      for (i = 0; i < inputs; ++i)
        for (int64_t j = 0; j < inputs; ++j)
          P[i * inputs + j] = std::fma(-u[q * inputs + i], u[q * inputs + j], P[i * inputs + j]);
    return;
  }
  for (; i + 4 <= inputs; i += 4) DowndateRows<T, 4>(P, u, n_u, inputs, i);
  for (; i < inputs; ++i) DowndateRows<T, 1>(P, u, n_u, inputs, i);
}

// Sum of vectors, each times a number: the product with a few rows of a matrix.
template <typename T>
struct Terms {
  std::vector<const T*> vector;
  std::vector<T> factor;
  int64_t count = 0;
  explicit Terms(int64_t most) : vector(most), factor(most) {}
  void Add(const T* v, T f) {
    vector[count] = v;
    factor[count++] = f;
  }
  // sum[l] = sum_t factor[t]*vector[t][l], l < n.
  void Sum(T* sum, int64_t n) const {
    const T *const *v = vector.data(), *f = factor.data();
    const int64_t terms = count;
    if (n < Simd<T>::N) {
      std::fill(sum, sum + n, T(0));
      for (int64_t t = 0; t < terms; ++t)
        for (int64_t l = 0; l < n; ++l) sum[l] += f[t] * v[t][l];
      return;
    }
    auto tile = [&](int64_t l, auto vectors) {
      constexpr int VECTORS = decltype(vectors)::value;
      V<T> acc[VECTORS] = {};
      for (int64_t t = 0; t < terms; ++t)
        for (int b = 0; b < VECTORS; ++b) acc[b] += f[t] * Load(v[t] + l + b * Simd<T>::N);
      for (int b = 0; b < VECTORS; ++b) Store(sum + l + b * Simd<T>::N, acc[b]);
    };
    ForEachTile<T, 8>(n, tile, [&](int64_t l) { tile(l, std::integral_constant<int, 1>()); });
  }
};

// P = factor*(P - sum_q u_q u_q^T) for one group; P is in place, or an array for it.
template <typename T>
void ApplyPending(const StoredP<T>& all, int64_t group, T* P, const T* u, int64_t n_u, T factor) {
  const int64_t inputs = all.inputs();
  if (n_u == 0 && factor == 1) return;
  if (!all.plain()) all.Get(group, P);
  Downdate(P, u, n_u, inputs);
  if (factor != 1)
    for (int64_t l = 0; l < inputs * inputs; ++l) P[l] *= factor;
  if (!all.plain()) all.Put(group, P);
}

// Inputs of a group before its update: filtered spikes x, and the inputs that spiked with the increase of x.
template <typename T>
struct Gathered {
  std::vector<T> x, s;
  std::vector<int32_t> rows;
  int64_t n_rows = 0;
  explicit Gathered(int64_t inputs) : x(inputs), s(inputs), rows(inputs) {}
};

// Groups that a thread takes at a time.
inline int64_t Grain(int64_t groups) { return std::max<int64_t>(16, std::min<int64_t>(512, groups / 16)); }

// One update of all groups, in place: each group by one thread, in a fixed order, so that the result does not depend on threads.
template <typename T>
void Update(const Pool& pool, const Learn<T>& a, const StoredP<T>& all) {
  const int64_t groups = a.groups, inputs = a.inputs, size = a.size, most = a.most, n = a.neurons, n_u = *a.count;
  const bool textbook = a.flags[0], apply = a.flags[1], dense = *a.refresh;
  const T decay = *a.decay, lambda = *a.forgetting;
  const int64_t now = dense ? 0 : n_u;  // index of the u of this update
  auto range = [&](int64_t begin, int64_t end) {
    Gathered<T> both[2] = {Gathered<T>(inputs), Gathered<T>(inputs)};
    std::vector<T> k(inputs), e(size);
    Terms<T> terms(inputs + most + 1);
    std::vector<T> buffer(all.plain() ? 0 : inputs * inputs);  // for P of a group, or the rows of P that are needed
    // One group ahead of the update, so that the rows of P are prefetched.
    auto gather = [&](int64_t i) {
      Gathered<T>& at = both[i & 1];
      const int32_t* from = a.pre + i * inputs;
      const T *rr = a.r, *ss = a.arrived;
      for (int64_t l = 0; l < inputs; ++l) at.x[l] = from[l] < 0 ? 0 : rr[from[l]];
      if (dense) return;
      int64_t count = 0;
      for (int64_t l = 0; l < inputs; ++l) {
        const T s = from[l] < 0 ? 0 : ss[from[l]];
        at.rows[count] = l;
        at.s[count] = s;
        count += s != 0;
      }
      at.n_rows = count;
      auto fetch = [](const T* from, int64_t n) {
        for (int64_t l = 0; l < n; l += 64 / sizeof(T)) __builtin_prefetch(from + l);
      };
      for (int64_t c = 0; c < count; ++c) all.Fetch(i, at.rows[c]);
      fetch(a.u + i * most * inputs, n_u * inputs);
      fetch(a.g + i * inputs, inputs);
      if (size == 1) fetch(a.w + i * inputs, inputs);
    };
    gather(begin);
    for (int64_t i = begin; i < end; ++i) {
      if (i + 1 < end) gather(i + 1);
      const Gathered<T>& at = both[i & 1];
      T* P = all.plain() ? all.At(i) : buffer.data();
      T* u = a.u + i * most * inputs;
      T* g = a.g + i * inputs;
      T* w = a.w + i * inputs * size;
      T& factor = a.factor[i];
      const int64_t first = i * size, members = std::min(size, n - first);
      const T* wanting = a.residual + first;
      bool on = false;  // whether any neuron of the group is trained
      for (int64_t s = 0; s < members; ++s) on |= wanting[s] == wanting[s];
      on &= apply;
      terms.count = 0;
      if (dense) {
        ApplyPending(all, i, P, u, n_u, factor);
        factor = 1;
        if (!all.plain()) all.Get(i, P);
        for (int64_t l = 0; l < inputs; ++l) terms.Add(P + l * inputs, at.x[l]);
      } else {
        terms.Add(g, decay);
        for (int64_t c = 0; c < at.n_rows; ++c) {
          if (!all.plain()) all.Row(i, at.rows[c], P + c * inputs);
          terms.Add(P + (all.plain() ? at.rows[c] : c) * inputs, factor * at.s[c]);
        }
        for (int64_t q = 0; q < n_u; ++q) {
          T sum = 0;
          if (at.n_rows == inputs) sum = Dot(u + q * inputs, at.s.data(), inputs);
          else for (int64_t c = 0; c < at.n_rows; ++c) sum += u[q * inputs + at.rows[c]] * at.s[c];
          terms.Add(u + q * inputs, -factor * sum);
        }
      }
      terms.Sum(k.data(), inputs);
      const T den = 1 / (lambda + Dot(at.x.data(), k.data(), inputs)), root = on ? std::sqrt(den / factor) : 0;
      const T kept = on ? den : 1, step = on ? (textbook ? den : 1) : 0;
      for (int64_t l = 0; l < inputs; ++l) {
        g[l] = kept * k[l];
        u[now * inputs + l] = root * k[l];
      }
      if (on) factor /= lambda;
      if (size == 1) {
        const T error = on ? step * (Dot(w, at.x.data(), inputs) + wanting[0]) : 0;
        for (int64_t l = 0; l < inputs; ++l) w[l] -= k[l] * error;
      } else {
        std::fill(e.begin(), e.end(), T(0));
        for (int64_t s = 0; s < members; ++s) e[s] = wanting[s];
        for (int64_t l = 0; l < inputs; ++l)
          for (int64_t s = 0; s < members; ++s) e[s] += w[l * size + s] * at.x[l];
        for (int64_t s = 0; s < members; ++s) e[s] = e[s] == e[s] ? e[s] : 0;
        for (int64_t l = 0; l < inputs; ++l)
          for (int64_t s = 0; s < members; ++s) w[l * size + s] -= step * k[l] * e[s];
      }
    }
  };
  Parallel(pool, groups, Grain(groups), range);
}

// P after all pending updates.
template <typename T>
void Flush(const Pool& pool, const Learn<T>& a, const StoredP<T>& all) {
  Parallel(pool, a.groups, Grain(a.groups), [&](int64_t begin, int64_t end) {
    std::vector<T> buffer(all.plain() ? 0 : all.inputs() * all.inputs());
    for (int64_t i = begin; i < end; ++i) {
      T* P = all.plain() ? all.At(i) : buffer.data();
      ApplyPending(all, i, P, a.u + i * a.most * a.inputs, int64_t{*a.count}, a.factor[i]);
    }
  });
}

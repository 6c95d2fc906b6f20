// Recursive least squares.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "../arguments.h"
#include "covariance.h"
#include "simd.h"
#include "threads.h"

// Inputs of a group before its update: filtered spikes x, and the inputs that spiked with the increase of x.
template <typename T>
struct Gathered {
  T *x, *s;
  int32_t* rows;
  int64_t n_rows;
};

// Memory of a thread.
template <typename T>
struct Scratch {
  Gathered<T> gathered[2];
  T *k, *w, *product, *factor, *e, *buffer;  // factor: of the vectors in a product

  Scratch(int64_t inputs, int64_t most, int64_t size, int64_t room) {
    const int64_t row = Padded<T>(inputs), rest = LINE<T>;
    T* next = numbers_.Of(7 * row + rest + Padded<T>(most) + Padded<T>(size) + room + rest);
    const auto take = [&](int64_t n) { return std::exchange(next, next + n); };
    rows_.resize(2 * row);
    for (int i = 0; i < 2; ++i) gathered[i] = {take(row), take(row), rows_.data() + i * row, 0};
    k = take(row), w = take(row), product = take(row + rest);
    factor = take(Padded<T>(most)), e = take(Padded<T>(size)), buffer = take(room + rest);
  }

 private:
  Room<T> numbers_;
  std::vector<int32_t> rows_;
};

// Groups that a thread takes at a time: some 2^17 numbers, but for each thread several times.
template <typename T>
int64_t Grain(const Pool& pool, const Learn<T>& a) {
  const int64_t numbers = int64_t{a.inputs} * (a.inputs / 8 + a.most / 2 + 2 * a.size + 8);
  return std::clamp<int64_t>(a.groups / (4 * pool.threads), 1, std::max<int64_t>(1, (1 << 17) / std::max<int64_t>(1, numbers)));
}

// One update of all groups, in place: each group by one thread, in a fixed order, so that the result does not depend on threads.
template <typename T>
class GroupUpdate {
 public:
  GroupUpdate(const Learn<T>& a, const StoredP<T>& all)
      : a_(a),
        all_(all),
        n_u_(*a.count),
        row_(Padded<T>(a.inputs)),
        dense_(*a.refresh),
        now_(dense_ ? 0 : n_u_),
        room_(a.inputs, a.most, a.size, all.room()) {}

  void Range(int64_t begin, int64_t end) {
    Gather(begin);
    for (int64_t i = begin; i < end; ++i) {
      if (i + 1 < end) Gather(i + 1);
      One(i);
    }
  }

 private:
  // What the update of a group needs of its inputs, one group ahead of it, so that rows of P and vectors u are fetched meanwhile.
  void Gather(int64_t i) {
    Gathered<T>& at = room_.gathered[i & 1];
    const int64_t inputs = a_.inputs, size = a_.size;
    const int32_t* from = a_.pre + i * inputs;
    const T *r = a_.r, *arrived = a_.arrived;
    for (int64_t l = 0; l < inputs; ++l) at.x[l] = from[l] < 0 ? 0 : r[from[l]];
    if (dense_) return;
    int64_t count = 0;
    for (int64_t l = 0; l < inputs; ++l) {
      const T s = from[l] < 0 ? 0 : arrived[from[l]];
      at.rows[count] = l;
      at.s[count] = s;
      count += s != 0;
    }
    at.n_rows = count;
    all_.FetchRows(i, at.rows, count);
    Fetch(a_.u + i * a_.most * row_, n_u_ * row_ * sizeof(T));
    Fetch(a_.g + i * row_, row_ * sizeof(T));
    if (size == 1) Fetch(a_.w + i * inputs, inputs * sizeof(T));
  }

  void One(int64_t i) {
    const Gathered<T>& at = room_.gathered[i & 1];
    const int64_t first = i * a_.size, members = std::min<int64_t>(a_.size, a_.neurons - first);
    const T *residual = a_.residual + first, lambda = *a_.forgetting;
    T *k = room_.k, *u = a_.u + i * a_.most * row_, *g = a_.g + i * row_, &factor = a_.factor[i];
    bool on = false;  // whether any neuron of the group is trained
    for (int64_t s = 0; s < members; ++s) on |= residual[s] == residual[s];
    on &= a_.flags[1];
    if (dense_) {
      all_.Apply(i, u, n_u_, factor, at.x, k, room_.buffer);
      factor = 1;
    } else if (all_.plain()) {
      SparseProduct(at, all_.At(i), at.rows, at.s, at.n_rows, factor, u, g);
    } else {
      const int32_t row = 0;
      const T one = 1;
      all_.Product(i, at.rows, at.s, at.n_rows, room_.product);
      SparseProduct(at, room_.product, &row, &one, 1, factor, u, g);
    }
    V<T> xk = {};
    for (int64_t l = 0; l < row_; l += Simd<T>::N) xk += Load(at.x + l) * Load(k + l);
    const T den = 1 / (lambda + Sum<T>(xk)), root = on ? std::sqrt(den / factor) : 0, kept = on ? den : 1;
    for (int64_t l = 0; l < row_; l += Simd<T>::N) {
      Store(g + l, kept * Load(k + l));
      Store(u + now_ * row_ + l, root * Load(k + l));
    }
    if (on) factor /= lambda;
    const T step = on ? (a_.flags[0] ? den : 1) : 0;
    T* w = a_.w + i * a_.inputs * a_.size;
    if (a_.size == 1) ChangeWeights(at.x, on ? *residual : 0, step, w);
    else ChangeGroup(at.x, residual, members, step, w);
  }

  // k = decay*g + factor*(sum_c s[c] P[rows[c]] - sum_q u_q (u_q.s)), with P [L, row] or another matrix of such rows.
  void SparseProduct(const Gathered<T>& at, const T* P, const int32_t* rows, const T* s, int64_t n_rows, T factor, const T* u, const T* g) {
    T* const f = room_.factor;
    std::fill(f, f + n_u_, T(0));
    for (int64_t c = 0; c < at.n_rows; ++c)
      for (int64_t q = 0; q < n_u_; ++q) f[q] += u[q * row_ + at.rows[c]] * at.s[c];
    for (int64_t q = 0; q < n_u_; ++q) f[q] *= -factor;
    ForEachTile<T, 8>(row_, [&](int64_t l, auto vectors) {
      constexpr int VECTORS = decltype(vectors)::value, CHAINS = VECTORS < 8 ? 2 : 1;
      V<T> acc[2][VECTORS];
      for (int b = 0; b < VECTORS; ++b) acc[0][b] = *a_.decay * Load(g + l + b * Simd<T>::N), acc[1][b] = V<T>{};
      const auto add = [&](int chain, const T* from, T by) {
        for (int b = 0; b < VECTORS; ++b) acc[chain][b] += by * Load(from + l + b * Simd<T>::N);
      };
      for (int64_t c = 0; c < n_rows; ++c) add(0, P + rows[c] * row_, factor * s[c]);
      int64_t q = 0;
      for (; q + CHAINS <= n_u_; q += CHAINS)
        for (int chain = 0; chain < CHAINS; ++chain) add(chain, u + (q + chain) * row_, f[q + chain]);
      for (; q < n_u_; ++q) add(0, u + q * row_, f[q]);
      for (int b = 0; b < VECTORS; ++b) Store(room_.k + l + b * Simd<T>::N, CHAINS == 2 ? acc[0][b] + acc[1][b] : acc[0][b]);
    });
  }

  // The weights w [L] of a neuron; `step` is 0 if it is not trained.
  void ChangeWeights(const T* x, T residual, T step, T* w) {
    T* const own = room_.w;
    std::copy(w, w + a_.inputs, own);
    V<T> product = {};
    for (int64_t l = 0; l < row_; l += Simd<T>::N) product += Load(own + l) * Load(x + l);
    if (step == 0) return;
    const T error = step * (Sum<T>(product) + residual);
    for (int64_t l = 0; l < row_; l += Simd<T>::N) Store(own + l, Load(own + l) - error * Load(room_.k + l));
    std::copy(own, own + a_.inputs, w);
  }

  // The weights w [L, S] of a group; tiles of columns stay in the cache between the error and the change.
  void ChangeGroup(const T* x, const T* residual, int64_t members, T step, T* w) {
    const int64_t inputs = a_.inputs, size = a_.size, n = size / Simd<T>::N * Simd<T>::N;
    T *const e = room_.e, *const k = room_.k;
    for (int64_t s = 0; s < size; ++s) e[s] = s < members ? residual[s] : std::numeric_limits<T>::quiet_NaN();
    ForEachTile<T, 4>(n, [&](int64_t s, auto vectors) {
      constexpr int VECTORS = decltype(vectors)::value;
      V<T> error[VECTORS];
      for (int b = 0; b < VECTORS; ++b) error[b] = Load(e + s + b * Simd<T>::N);
      for (int64_t l = 0; l < inputs; ++l)
        for (int b = 0; b < VECTORS; ++b) error[b] += x[l] * Load(w + l * size + s + b * Simd<T>::N);
      for (int b = 0; b < VECTORS; ++b) error[b] = error[b] == error[b] ? step * error[b] : V<T>{};
      for (int64_t l = 0; l < inputs; ++l)
        for (int b = 0; b < VECTORS; ++b) {
          T* const at = w + l * size + s + b * Simd<T>::N;
          Store(at, Load(at) - k[l] * error[b]);
        }
    });
    for (int64_t l = 0; l < inputs; ++l)
      for (int64_t s = n; s < size; ++s) e[s] += w[l * size + s] * x[l];
    for (int64_t s = n; s < size; ++s) e[s] = e[s] == e[s] ? step * e[s] : 0;
    for (int64_t l = 0; l < inputs; ++l)
      for (int64_t s = n; s < size; ++s) w[l * size + s] -= k[l] * e[s];
  }

  const Learn<T>& a_;
  const StoredP<T>& all_;
  const int64_t n_u_, row_;
  const bool dense_;
  const int64_t now_;  // index of the u of this update
  Scratch<T> room_;
};

// Things that threads use one after the other: as many as threads work at the same time.
template <typename Thing>
class Shared {
 public:
  template <typename Make, typename Use>
  void With(const Make& make, const Use& use) {
    std::unique_ptr<Thing> thing;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!idle_.empty()) thing = std::move(idle_.back()), idle_.pop_back();
    }
    if (!thing) thing = make();
    use(*thing);
    std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(thing));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Thing>> idle_;
};

template <typename T>
void Update(const Pool& pool, const Learn<T>& a, const StoredP<T>& all) {
  Shared<GroupUpdate<T>> updates;
  Parallel(pool, a.groups, Grain(pool, a), [&](int64_t begin, int64_t end) {
    updates.With([&] { return std::make_unique<GroupUpdate<T>>(a, all); }, [&](GroupUpdate<T>& update) { update.Range(begin, end); });
  });
}

// P after all pending updates.
template <typename T>
void Flush(const Pool& pool, const Learn<T>& a, const StoredP<T>& all) {
  const int64_t row = Padded<T>(all.inputs());
  Shared<Scratch<T>> rooms;
  Parallel(pool, a.groups, Grain(pool, a), [&](int64_t begin, int64_t end) {
    rooms.With([&] { return std::make_unique<Scratch<T>>(all.inputs(), 0, 0, all.room()); }, [&](Scratch<T>& room) {
      for (int64_t i = begin; i < end; ++i) all.Apply(i, a.u + i * a.most * row, *a.count, a.factor[i], room.w, room.k, room.buffer);
    });
  });
}

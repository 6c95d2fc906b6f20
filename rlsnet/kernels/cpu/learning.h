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

// Filtered spikes of a source, and by how much they increased since the last update.
template <typename T>
struct Source {
  T r, arrived;
};

// Inputs of a group before its update: filtered spikes x, and the inputs that spiked with the increase of x.
template <typename T>
struct Gathered {
  T *x, *s;
  int32_t* rows;
  int64_t n_rows;

  void From(const int32_t* pre, int64_t inputs, const Source<T>* sources) {
    n_rows = 0;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
      const __m512i even = _mm512_slli_epi32((__m512i)Counted<T>(), 1), odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
      const auto pairs = [&](int64_t l, unsigned which) {  // r and arrived of eight inputs, 0 where there is none
        const __m256i from = _mm256_maskz_loadu_epi32(which, pre + l);
        const unsigned known = _mm256_mask_cmpge_epi32_mask(which, from, _mm256_setzero_si256());
        return (__m512)_mm512_mask_i32gather_pd(_mm512_setzero_pd(), known, from, sources, 8);
      };
      for (int64_t l = 0; l < inputs; l += 16) {
        const unsigned which = FirstLanes<T>(inputs - l);
        const __m512 low = pairs(l, which & 0xFF), high = pairs(l + 8, which >> 8);
        const __m512 arrived = _mm512_permutex2var_ps(low, odd, high);
        const unsigned spiked = _mm512_cmp_ps_mask(arrived, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        _mm512_storeu_ps(x + l, _mm512_permutex2var_ps(low, even, high));
        _mm512_storeu_ps(s + n_rows, _mm512_maskz_compress_ps(spiked, arrived));
        _mm512_storeu_si512(rows + n_rows, _mm512_maskz_compress_epi32(spiked, (__m512i)(Counted<T>() + static_cast<int32_t>(l))));
        n_rows += __builtin_popcount(spiked);
      }
      return;
    }
#endif
    for (int64_t l = 0; l < inputs; ++l) {
      const Source<T> source = pre[l] < 0 ? Source<T>{} : sources[pre[l]];
      x[l] = source.r, s[n_rows] = source.arrived, rows[n_rows] = l;
      n_rows += source.arrived != 0;
    }
  }
};

// Memory of a thread.
template <typename T>
struct Scratch {
  Gathered<T> gathered[2];
  T *k, *product, *factor, *e, *buffer;  // factor: of the vectors in a product

  Scratch(int64_t inputs, int64_t most, int64_t size, int64_t room) {
    const int64_t row = Padded<T>(inputs), rest = LINE<T>;
    T* next = numbers_.Of(6 * row + 3 * rest + Padded<T>(most) + Padded<T>(size) + room + rest);
    const auto take = [&](int64_t n) { return std::exchange(next, next + n); };
    rows_.resize(2 * (row + rest));
    for (int i = 0; i < 2; ++i) gathered[i] = {take(row), take(row + rest), rows_.data() + i * (row + rest), 0};
    k = take(row), product = take(row + rest);
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
  GroupUpdate(const Learn<T>& a, const StoredP<T>& all, const Source<T>* sources)
      : a_(a),
        all_(all),
        sources_(sources),
        n_u_(*a.count),
        row_(Padded<T>(a.inputs)),
        dense_(*a.refresh),
        now_(dense_ ? 0 : n_u_),
        room_(a.inputs, a.most, a.size, all.room()) {}

  void Range(int64_t begin, int64_t end) {
    Gather(begin);
    for (int64_t i = begin; i < end; ++i) {
      if (i + 1 < end) Gather(i + 1);
      else room_.gathered[(i + 1) & 1].n_rows = 0;
      One(i);
    }
  }

 private:
  // Factors of the rows of a matrix [L, row], and vectors u.
  struct Operands {
    const T *P, *s;
    const int32_t* rows;
    int64_t n_rows;
    const T* u;
  };

  // What the update of a group needs of its inputs, one group ahead of it, so that its memory is fetched meanwhile.
  void Gather(int64_t i) {
    Gathered<T>& at = room_.gathered[i & 1];
    at.From(a_.pre + i * a_.inputs, a_.inputs, sources_);
    if (dense_) return;
    if (!all_.plain()) all_.FetchRows(i, at.rows, at.n_rows);
    Fetch(a_.g + i * row_, row_ * sizeof(T));
    if (a_.size == 1) Fetch(a_.w + i * a_.inputs, a_.inputs * sizeof(T));
  }

  // Rows of P of inputs that spiked, which are read where they are.
  Operands InPlace(int64_t i, const T* u) const {
    const Gathered<T>& at = room_.gathered[i & 1];
    return {all_.At(i), at.s, at.rows, at.n_rows, u};
  }

  void One(int64_t i) {
    const Gathered<T>& at = room_.gathered[i & 1];
    const int64_t first = i * a_.size, members = std::min<int64_t>(a_.size, a_.neurons - first), inputs = a_.inputs;
    const T *residual = a_.residual + first, lambda = *a_.forgetting;
    T *k = room_.k, *u = a_.u + i * a_.most * row_, *g = a_.g + i * row_, *w = a_.w + i * inputs * a_.size, &factor = a_.factor[i];
    const T* next_u = u + a_.most * row_;
    bool on = false;  // whether any neuron of the group is trained
    for (int64_t s = 0; s < members; ++s) on |= residual[s] == residual[s];
    on &= a_.flags[1];
    if (dense_) {
      all_.Apply(i, u, n_u_, factor, at.x, k, room_.buffer, next_u);
      factor = 1;
    } else if (all_.plain()) {
      SparseProduct(at, InPlace(i, u), factor, g, InPlace(i + 1, next_u));
    } else {
      const int32_t row = 0;
      const T one = 1;
      all_.Product(i, at.rows, at.s, at.n_rows, room_.product);
      SparseProduct(at, {room_.product, &one, &row, 1, u}, factor, g, {nullptr, nullptr, nullptr, 0, next_u});
    }
    V<T> xk = {}, xw = {};
    for (int64_t l = 0; l < row_; l += Simd<T>::N) {
      xk += Load(at.x + l) * Load(k + l);
      if (a_.size == 1) xw += Load(at.x + l) * LoadFew(w + l, inputs - l);
    }
    const T den = 1 / (lambda + Sum<T>(xk)), root = on ? std::sqrt(den / factor) : 0, kept = on ? den : 1;
    const T step = on ? (a_.flags[0] ? den : 1) : 0, error = on ? step * (Sum<T>(xw) + *residual) : 0;
    for (int64_t l = 0; l < row_; l += Simd<T>::N) {
      const V<T> own = Load(k + l);
      Store(g + l, kept * own);
      Store(u + now_ * row_ + l, root * own);
      if (a_.size == 1 && on) StoreFew(w + l, LoadFew(w + l, inputs - l) - error * own, inputs - l);
    }
    if (on) factor /= lambda;
    if (a_.size > 1) ChangeGroup(at.x, residual, members, step, w);
  }

  // k = decay*g + factor*(sum_c s[c] P[rows[c]] - sum_q u_q (u_q.s)), where u.s is that of the inputs that spiked; what the next product
  // reads is fetched meanwhile, part by part, as a processor waits for few lines of memory at a time.
  void SparseProduct(const Gathered<T>& at, const Operands& own, T factor, const T* g, const Operands& next) {
    T* const f = room_.factor;
    for (int64_t q = 0; q < n_u_; ++q) {
      T sum = 0;
      for (int64_t c = 0; c < at.n_rows; ++c) sum += own.u[q * row_ + at.rows[c]] * at.s[c];
      f[q] = -factor * sum;
    }
    ForEachTile<T, 8>(row_, [&](int64_t l, auto vectors) {
      constexpr int VECTORS = decltype(vectors)::value, CHAINS = VECTORS < 8 ? 2 : 1;
      V<T> acc[2][VECTORS];
      for (int b = 0; b < VECTORS; ++b) acc[0][b] = *a_.decay * Load(g + l + b * Simd<T>::N), acc[1][b] = V<T>{};
      const auto add = [&](int chain, const T* from, T by) {
        for (int b = 0; b < VECTORS; ++b) acc[chain][b] += by * Load(from + l + b * Simd<T>::N);
      };
      const auto fetch = [&](const T* from) {
        for (int b = 0; b < VECTORS; b += LINE<T> / Simd<T>::N) __builtin_prefetch(from + l + b * Simd<T>::N);
      };
      int64_t c = 0, q = 0;
      for (; c < own.n_rows; ++c) {
        add(0, own.P + own.rows[c] * row_, factor * own.s[c]);
        if (c < next.n_rows) fetch(next.P + next.rows[c] * row_);
      }
      for (; c < next.n_rows; ++c) fetch(next.P + next.rows[c] * row_);
      for (; q + CHAINS <= n_u_; q += CHAINS)
        for (int chain = 0; chain < CHAINS; ++chain) {
          add(chain, own.u + (q + chain) * row_, f[q + chain]);
          fetch(next.u + (q + chain) * row_);
        }
      for (; q < n_u_; ++q) {
        add(0, own.u + q * row_, f[q]);
        fetch(next.u + q * row_);
      }
      for (int b = 0; b < VECTORS; ++b) Store(room_.k + l + b * Simd<T>::N, CHAINS == 2 ? acc[0][b] + acc[1][b] : acc[0][b]);
    });
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
  const Source<T>* sources_;
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
  const std::unique_ptr<Source<T>[]> sources(new Source<T>[a.sources]);
  Parallel(pool, a.sources, 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) sources[j] = {a.r[j], a.arrived[j]};
  });
  Shared<GroupUpdate<T>> updates;
  Parallel(pool, a.groups, Grain(pool, a), [&](int64_t begin, int64_t end) {
    updates.With([&] { return std::make_unique<GroupUpdate<T>>(a, all, sources.get()); }, [&](GroupUpdate<T>& update) { update.Range(begin, end); });
  });
}

// P after all pending updates.
template <typename T>
void Flush(const Pool& pool, const Learn<T>& a, const StoredP<T>& all) {
  const int64_t row = Padded<T>(all.inputs());
  Shared<Scratch<T>> rooms;
  Parallel(pool, a.groups, Grain(pool, a), [&](int64_t begin, int64_t end) {
    rooms.With([&] { return std::make_unique<Scratch<T>>(all.inputs(), 0, 0, all.room()); }, [&](Scratch<T>& room) {
      for (int64_t i = begin; i < end; ++i) {
        const T* u = a.u + i * a.most * row;
        all.Apply(i, u, *a.count, a.factor[i], room.product, room.k, room.buffer, u + a.most * row);
      }
    });
  });
}

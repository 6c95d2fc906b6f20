// Delivery of spikes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../arguments.h"
#include "noise.h"
#include "threads.h"

// x / d for x < 2^31, without a division.
struct Divider {
  uint64_t inverse;
  explicit Divider(uint64_t d) : inverse((uint64_t{1} << 63) / d + 1) {}
  int64_t operator()(uint64_t x) const { return static_cast<int64_t>((static_cast<unsigned __int128>(x) * inverse) >> 63); }
};

// Calls f(j) for each neuron that spiked, in order.
template <typename F>
void ForEachSpike(const bool* spiked, int64_t n, const F& f) {
  int64_t j = 0;
  for (; j + 64 <= n; j += 64) {
    uint64_t any[8];
    std::memcpy(any, spiked + j, 64);
    if (any[0] | any[1] | any[2] | any[3] | any[4] | any[5] | any[6] | any[7])
      for (int64_t i = j; i < j + 64; ++i)
        if (spiked[i]) f(i);
  }
  for (; j < n; ++j)
    if (spiked[j]) f(j);
}

// Procedural synapses: postsynaptic neurons of a spike, drawn again at each spike as in connectivity.targets_of.
class Draw {
 public:
  Draw(int64_t n, const uint32_t* stream) : n_(n) {
    if (stream == nullptr) return;
    stream_[0] = stream[0], stream_[1] = stream[1];
    a_ = static_cast<uint32_t>(std::sqrt(static_cast<double>(n - 2))) + 1;
    b_ = (n - 1 + a_ - 1) / a_;
  }
  template <typename F>
  void ForEachTarget(int64_t j, int64_t degree, const F& f) const {
    const uint32_t s0 = Mix(stream_[0] ^ Mix(static_cast<uint32_t>(j) + 0x9E3779B9u));  // rng.fold
    const uint32_t s1 = Mix(stream_[1] + s0 * 0x85EBCA6Bu + 1u);
    for (int64_t k = 0; k < degree; ++k) {
      uint32_t x = k;
      do x = Walk(x, s0, s1);
      while (x >= n_ - 1);
      const int64_t i = j + 1 + x;
      f(i < n_ ? i : i - n_);
    }
  }

 private:
  uint32_t Walk(uint32_t x, uint32_t s0, uint32_t s1) const {  // one pass of rng.permute
    uint32_t left = x / b_, right = x % b_;
    auto draw = [&](uint32_t round, uint32_t side, uint32_t size) {
      return ((Mix(Mix((side + round * 0x9E3779B9u) ^ s0) + s1) >> 16) * size) >> 16;
    };
    for (uint32_t round = 0; round < 4; ++round) {
      left += draw(2 * round, right, a_);
      left -= left < a_ ? 0 : a_;
      right += draw(2 * round + 1, left, b_);
      right -= right < b_ ? 0 : b_;
    }
    return left * b_ + right;
  }
  int64_t n_;
  uint32_t stream_[2] = {0, 0}, a_ = 1, b_ = 1;
};

constexpr int64_t AHEAD = 32;  // weights to prefetch, as they are far apart in memory
constexpr int64_t WORTH_A_THREAD = 12000;  // targets of spikes in a step from which on several threads are faster than one


// Delivery of the spikes of a step in place, one neuron after the other; trials side by side by several threads.
template <typename T>
void Deliver(const Pool& pool, const Delivery<T>& a) {
  const int64_t n = a.neurons;
  const bool any_static = a.stream || a.post;
  const Draw draw(n, a.stream);
  const Divider by_inputs(std::max(a.inputs, 1));
  const auto trial = [&](int64_t b) {
    T *filters = a.filters + b * (2 + a.channels) * n, *r = a.r + b * a.sources;
    int* counts = a.n_delivered + b * a.sources;
    ForEachSpike(reinterpret_cast<const bool*>(a.spiked) + b * a.sources, a.sources, [&](int64_t j) {
      const int64_t filter = 2 + (a.channel ? a.channel[j] : 0);
      const T unit = a.gain[filter];
      r[j] += unit;
      counts[j] += 1;
      if (any_static && j < n) {
        const int channel = a.excitatory[j] ? 0 : 1;
        T* into = filters + channel * n;
        const T one = a.gain[channel];
        if (a.stream)
          draw.ForEachTarget(j, a.indptr[j + 1] - a.indptr[j], [&](int64_t i) { into[i] += one; });
        else if (a.weight)
          for (int64_t e = a.indptr[j]; e < a.indptr[j + 1]; ++e) into[a.post[e]] += one * a.weight[e];
        else
          for (int64_t e = a.indptr[j]; e < a.indptr[j + 1]; ++e) into[a.post[e]] += one;
      }
      if (a.w) {
        T* into = filters + filter * n;
        const int *slot = a.out_slot, first_out = a.out_indptr[j], last = a.out_indptr[j + 1];
        if (a.size == 1) {
          for (int64_t o = first_out; o < last; ++o) {
            __builtin_prefetch(a.w + slot[std::min<int64_t>(o + AHEAD, last - 1)]);
            into[by_inputs(slot[o])] += unit * a.w[slot[o]];
          }
        } else {
          for (int64_t o = first_out; o < last; ++o) {
            const int64_t first = by_inputs(slot[o]) * a.size, end = std::min<int64_t>(a.size, n - first);
            const T* from = a.w + int64_t{slot[o]} * a.size;
            for (int64_t s = 0; s < end; ++s) into[first + s] += unit * from[s];
          }
        }
      }
    });
  };
  const int64_t static_targets = any_static ? a.indptr[a.sources] : 0, plastic_targets = a.w ? int64_t{a.out_indptr[a.sources]} * a.size : 0;
  const int64_t targets = a.trials * (static_targets + plastic_targets) / 2000;  // of a step of 0.1 ms at 5 Hz
  Parallel(pool, a.trials, targets < WORTH_A_THREAD ? a.trials : 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) trial(b);
  });
}

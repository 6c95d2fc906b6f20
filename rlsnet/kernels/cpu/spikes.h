// Delivery of spikes by ranges of targets: a thread adds what spikes bring to its own neurons, in the order of their sources. So results
// do not depend on the number of threads, and the currents of a range stay in the cache of a processor.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "../arguments.h"
#include "noise.h"
#include "simd.h"
#include "threads.h"

// x / d for x < 2^31, without a division.
struct Divider {
  uint64_t inverse;
  explicit Divider(uint64_t d) : inverse((uint64_t{1} << 63) / d + 1) {}
  int64_t operator()(uint64_t x) const { return static_cast<int64_t>((static_cast<unsigned __int128>(x) * inverse) >> 63); }
};

// Calls f(j) for each neuron that spiked, in order.
template <typename F>
void ForEachSpike(const unsigned char* spiked, int64_t n, const F& f) {
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

// Flags of n neurons as words of 32 bits, as delivery.pack: bit b of word k is flag b*W + k, W the number of words.
inline void PackFlags(const unsigned char* flags, int64_t n, uint32_t* words) {
  const int64_t width = (n + 31) / 32;
  std::fill(words, words + width, 0);
  for (int64_t bit = 0; bit * width < n; ++bit)
    for (int64_t k = 0, end = std::min(width, n - bit * width); k < end; ++k) words[k] |= uint32_t{flags[bit * width + k]} << bit;
}
inline void UnpackFlags(const uint32_t* words, int64_t n, int64_t width, unsigned char* flags) {
  for (int64_t bit = 0; bit * width < n; ++bit)
    for (int64_t k = 0, end = std::min(width, n - bit * width); k < end; ++k) flags[bit * width + k] = words[k] >> bit & 1;
}

// The plastic filter of a source.
template <typename T>
int FilterOf(const Delivery<T>& a, int64_t j) {
  return 2 + (a.channel ? a.channel[j] : 0);
}

// A spike on its way: its source, and where the synapses of the source are.
struct Spike {
  int source, begin, end, out_begin, out_end;
  template <typename T>
  static Spike Of(const Delivery<T>& a, int j) {
    Spike spike = {j, 0, 0, 0, 0};
    if (a.post || a.stream) spike.begin = a.indptr[j], spike.end = a.indptr[j + 1];
    if (a.w && j < a.own) spike.out_begin = a.out_indptr[j], spike.out_end = a.out_indptr[j + 1];
    return spike;
  }
};

// Procedural synapses: postsynaptic neurons of a spike, drawn again at each spike as in connectivity.targets_of.
class Draw {
 public:
  template <typename T>
  explicit Draw(const Delivery<T>& a) : n_(a.neurons), a_(a.rows), b_(a.columns) {
    if (a.stream) stream_[0] = a.stream[0], stream_[1] = a.stream[1];
  }
  // The targets of a spike, in memory of this thread.
  const std::vector<int>& Of(const Spike& spike) const {
    thread_local std::vector<int> drawn;
    drawn.resize(spike.end - spike.begin);
    Targets(spike.source, drawn.size(), drawn.data());
    return drawn;
  }

 private:
  // The first `degree` targets of neuron j.
  void Targets(uint32_t j, uint32_t degree, int* to) const {
    const Key key = Key::Fold(stream_, j);
    const uint32_t others = n_ - 1, a = a_, b = b_, n = n_;
    for (uint32_t k = 0; k < degree; ++k) {  // in vectors
      const uint32_t x = Walk(k, key, a, b), i = j + 1 + x;
      to[k] = x < others ? static_cast<int>(i < n ? i : i - n) : -1 - static_cast<int>(x);
    }
    for (uint32_t k = 0; k < degree; ++k)
      if (to[k] < 0) {  // rarely
        uint32_t x = -1 - to[k];
        do x = Walk(x, key, a, b);
        while (x >= others);
        const uint32_t i = j + 1 + x;
        to[k] = i < n ? i : i - n;
      }
  }
  static uint32_t Walk(uint32_t x, const Key key, uint32_t a, uint32_t b) {  // one pass of rng.permute
    uint32_t left = x / b, right = x - left * b;
    const auto draw = [&](uint32_t round, uint32_t side, uint32_t size) { return ((key.Bits(side + round * 0x9E3779B9u) >> 16) * size) >> 16; };
    for (uint32_t round = 0; round < 4; ++round) {
      left += draw(2 * round, right, a);
      left -= left < a ? 0 : a;
      right += draw(2 * round + 1, left, b);
      right -= right < b ? 0 : b;
    }
    return left * b + right;
  }
  uint32_t n_, a_, b_, stream_[2] = {0, 0};
};

// The filter of its static synapses.
template <typename T>
int ChannelOf(const Delivery<T>& a, const Spike& spike) {
  return a.excitatory[spike.source < a.own ? spike.source : spike.source % a.own] ? 0 : 1;
}

// Spikes that arrive in one step of a trial, in the order of their sources: those of each range of sources, and if there are delays those
// of each range with the first delay, and so on.
struct SpikeList {
  std::vector<std::vector<Spike>> of_range;
  int64_t size() const {
    int64_t n = 0;
    for (const std::vector<Spike>& spikes : of_range) n += spikes.size();
    return n;
  }
  template <typename F>
  void ForEach(const F& f) const {
    for (const std::vector<Spike>& spikes : of_range)
      for (const Spike& spike : spikes) f(spike);
  }
};

// First position in begin..end of ascending values with a value of at least `limit`, looked for around a guess.
inline int64_t FirstAtLeast(const int* values, int64_t begin, int64_t end, int64_t limit, int64_t guess) {
  int64_t low = begin, high = end;  // values before low are smaller, those from high on are not
  int64_t at = std::min(std::max(guess, begin), end - 1), reach = 8;
  if (begin == end) return end;
  if (values[at] < limit) {
    for (low = at + 1; low < end && (at = std::min(low + reach, end) - 1, values[at] < limit); reach *= 4) low = at + 1;
    high = low < end ? at : end;
  } else {
    for (high = at; high > begin && (at = std::max(high - reach, begin), values[at] >= limit); reach *= 4) high = at;
    low = high > begin ? at + 1 : begin;
  }
  return std::lower_bound(values + low, values + high, limit) - values;
}

constexpr int64_t AHEAD = 32;                // lines of the cache with weights that are prefetched, as they are far apart in memory
constexpr int64_t WORTH_A_THREAD = 12000;    // targets of spikes in a step from which on several threads are faster than one
#ifndef RLSNET_MOST_IN_RANGE
#define RLSNET_MOST_IN_RANGE (1 << 17)
#endif
constexpr int64_t MOST_IN_RANGE = RLSNET_MOST_IN_RANGE;  // neurons whose currents stay in the second-level cache
constexpr double MOST_SORTED = 0.01;         // share of neurons that spike in a step, up to which their synapses are sorted
constexpr int64_t FEWEST_IN_RANGE = 1024;    // neurons that are worth a thread

// Number of places of plastic synapses.
template <typename T>
int64_t SlotsOf(const Delivery<T>& a) {
  return (a.neurons + a.size - 1) / a.size * int64_t{a.inputs};
}

// The ranges into which neurons are divided, and the plastic synapses of their groups: a group that is cut belongs to two ranges.
struct Ranges {
  int64_t neurons, count, size;
  bool many;  // more than threads, as their currents would not stay in the cache otherwise
  Ranges(int64_t neurons, int64_t threads) : neurons(neurons) {
    const int64_t for_cache = (neurons + MOST_IN_RANGE - 1) / MOST_IN_RANGE;
    const int64_t for_threads = std::min(threads, std::max<int64_t>(1, neurons / FEWEST_IN_RANGE));
    many = for_cache > for_threads;
    count = (std::max(for_cache, for_threads) + for_threads - 1) / for_threads * for_threads;  // each thread has as many
    size = ((neurons + count - 1) / count + 63) / 64 * 64;
  }
  int64_t Begin(int64_t range) const { return std::min(range * size, neurons); }
  int64_t End(int64_t range) const { return Begin(range + 1); }
  template <typename T>
  int64_t FirstSlot(const Delivery<T>& a, int64_t range) const {
    return Begin(range) / a.size * a.inputs;
  }
  template <typename T>
  int64_t EndSlot(const Delivery<T>& a, int64_t range) const {
    return (End(range) + a.size - 1) / a.size * a.inputs;
  }
};

// Position in begin..end of ascending values below `all` from which on they are at least `limit`; values are spread evenly.
inline int64_t Find(const int* values, int64_t begin, int64_t end, int64_t limit, int64_t all, int64_t from) {
  if (limit <= 0 || limit >= all) return limit <= 0 ? from : end;
  return FirstAtLeast(values, from, end, limit, begin + (end - begin) * limit / all);
}

// The part of begin..end, after `from`, with values of at least `low` and below `high`.
inline std::pair<int64_t, int64_t> Between(const int* values, int64_t begin, int64_t end, int64_t low, int64_t high, int64_t all, int64_t from) {
  const int64_t first = Find(values, begin, end, low, all, from);
  return {first, Find(values, begin, end, high, all, first)};
}

// Adds to the currents of targets first..end: one number for each synapse, or that times its weight.
template <typename T>
void AddStatic(const int* targets, const T* weights, int64_t first, int64_t end, T one, T* into) {
  if (weights)
    for (int64_t e = first; e < end; ++e) into[targets[e]] += one * weights[e];
  else
    for (int64_t e = first; e < end; ++e) into[targets[e]] += one;
}

// Plastic synapses of a spike in a range.
struct Run {
  const int *slot, *end;
  int filter;
};

// Synapses of the spikes of a step, sorted by the ranges of their targets. A thread reads, or draws, those of a share of the spikes, and
// puts them aside for each range; after that, the thread of a range adds them, share by share, and so in the order of their sources.
// So each row of a large connectivity is read once, and in sequence.
template <typename T>
class SortedSynapses {
 public:
  SortedSynapses(const Delivery<T>& a, const Ranges& ranges)
      : a_(a), draw_(a), ranges_(ranges), by_size_(ranges.size), aside_(ranges.count * ranges.count) {}

  static bool Helps(const Delivery<T>& a, const Ranges& ranges) { return a.stream || ranges.many; }

  // Whether the spikes of a step are so few that their synapses take little memory: at the start of a trial, every sixth neuron may fire.
  static bool Fits(const Delivery<T>& a, const SpikeList& list) { return list.size() <= MOST_SORTED * a.sources + 1; }

  // Share number `share` of as many as there are ranges. The rows of a spike are fetched while those of the one before are put aside.
  void Collect(const SpikeList& list, int64_t share) {
    const int64_t all = list.size(), begin = all * share / ranges_.count, end = all * (share + 1) / ranges_.count;
    for (int64_t range = 0; range < ranges_.count; ++range) At(share, range).Clear();
    int64_t n = 0;
    const Spike* before = nullptr;
    list.ForEach([&](const Spike& spike) {
      const bool own = n >= begin && n < end;
      ++n;
      if (!own) return;
      if (a_.post) Fetch(a_.post + spike.begin, (spike.end - spike.begin) * sizeof(int));
      if (a_.w) Fetch(a_.out_slot + spike.out_begin, (spike.out_end - spike.out_begin) * sizeof(int));
      if (before) PutAside(*before, share);
      before = &spike;
    });
    if (before) PutAside(*before, share);
  }

  // Adds what a range receives through static synapses.
  void Static(int64_t range, const T* gain, T* filters) const {
    for (int channel = 0; channel < 2; ++channel)
      for (int64_t share = 0; share < ranges_.count; ++share) {
        const Aside& aside = At(share, range);
        const std::vector<int>& targets = aside.targets[channel];
        const T* weights = a_.weight ? aside.weights[channel].data() : nullptr;
        AddStatic(targets.data(), weights, 0, targets.size(), gain[channel], filters + static_cast<int64_t>(channel) * a_.neurons);
      }
  }

  // Plastic synapses of a range.
  void Runs(int64_t range, std::vector<Run>& runs) const {
    for (int64_t share = 0; share < ranges_.count; ++share) {
      const Aside& aside = At(share, range);
      const int* slot = aside.slots.data();
      for (const auto& [count, filter] : aside.runs) runs.push_back({slot, slot + count, filter}), slot += count;
    }
  }

 private:
  struct Aside {
    std::vector<int> targets[2], slots;  // targets of excitatory and of inhibitory spikes
    std::vector<T> weights[2];
    std::vector<std::pair<int64_t, int>> runs;  // number of slots, and filter, of each spike
    void Clear() {
      for (int channel = 0; channel < 2; ++channel) targets[channel].clear(), weights[channel].clear();
      slots.clear(), runs.clear();
    }
  };

  void PutAside(const Spike& spike, int64_t share) {
    if (spike.begin < spike.end) a_.stream ? Drawn(spike, share) : Stored(spike, share);
    if (spike.out_begin < spike.out_end) Plastic(spike, share);
  }

  void Drawn(const Spike& spike, int64_t share) {
    const int channel = ChannelOf(a_, spike);
    for (const int target : draw_.Of(spike)) At(share, by_size_(target)).targets[channel].push_back(target);
  }

  void Stored(const Spike& spike, int64_t share) {
    const int channel = ChannelOf(a_, spike);
    int64_t from = spike.begin;
    for (int64_t range = 0; range < ranges_.count; ++range) {
      const int64_t to = Find(a_.post, spike.begin, spike.end, ranges_.End(range), a_.neurons, from);
      Aside& aside = At(share, range);
      Append(aside.targets[channel], a_.post, from, to);
      if (a_.weight) Append(aside.weights[channel], a_.weight, from, to);
      from = to;
    }
  }

  void Plastic(const Spike& spike, int64_t share) {
    int64_t from = spike.out_begin;
    for (int64_t range = 0; range < ranges_.count; ++range) {
      const int64_t low = ranges_.FirstSlot(a_, range), high = ranges_.EndSlot(a_, range);
      const auto [first, end] = Between(a_.out_slot, spike.out_begin, spike.out_end, low, high, SlotsOf(a_), from);
      from = first;  // the next range may begin within the same group
      Aside& aside = At(share, range);
      if (first < end) Append(aside.slots, a_.out_slot, first, end), aside.runs.emplace_back(end - first, FilterOf(a_, spike.source));
    }
  }

  template <typename V>
  static void Append(std::vector<V>& to, const V* values, int64_t begin, int64_t end) {
    to.insert(to.end(), values + begin, values + end);
  }
  Aside& At(int64_t share, int64_t range) { return aside_[share * ranges_.count + range]; }
  const Aside& At(int64_t share, int64_t range) const { return aside_[share * ranges_.count + range]; }

  const Delivery<T>& a_;
  Draw draw_;
  Ranges ranges_;
  Divider by_size_;
  std::vector<Aside> aside_;
};

// Delivery to the neurons of a range.
template <typename T>
class Deliverer {
 public:
  Deliverer(const Delivery<T>& a, const Ranges& ranges, int64_t range)
      : a_(a),
        draw_(a),
        range_(range),
        begin_(ranges.Begin(range)),
        end_(ranges.End(range)),
        first_slot_(ranges.FirstSlot(a, range)),
        end_slot_(ranges.EndSlot(a, range)),
        slots_(SlotsOf(a)),
        by_inputs_(std::max(a.inputs, 1)) {}

  // Adds the spikes of a list to the filters [2+T, N] of their trial.
  void operator()(const SpikeList& list, const T* gain, T* filters) {
    runs_.clear();
    list.ForEach([&](const Spike& spike) {
      Static(spike, gain, filters);
      if (spike.out_begin == spike.out_end) return;
      const auto [first, end] = Between(a_.out_slot, spike.out_begin, spike.out_end, first_slot_, end_slot_, slots_, spike.out_begin);
      if (first < end) runs_.push_back({a_.out_slot + first, a_.out_slot + end, FilterOf(a_, spike.source)});
    });
    Plastic(gain, filters);
  }

  // The same for synapses that are already sorted.
  void operator()(const SortedSynapses<T>& sorted, const T* gain, T* filters) {
    runs_.clear();
    sorted.Static(range_, gain, filters);
    sorted.Runs(range_, runs_);
    Plastic(gain, filters);
  }

 private:
  void Static(const Spike& spike, const T* gain, T* filters) const {
    if (spike.begin == spike.end) return;
    const int channel = ChannelOf(a_, spike);
    T* into = filters + static_cast<int64_t>(channel) * a_.neurons;
    const T one = gain[channel];
    if (a_.stream) {
      for (const int target : draw_.Of(spike))
        if (target >= begin_ && target < end_) into[target] += one;
      return;
    }
    const auto [first, end] = Between(a_.post, spike.begin, spike.end, begin_, end_, a_.neurons, spike.begin);
    AddStatic(a_.post, a_.weight, first, end, one, into);
  }

  // A walk through the runs that is some synapses ahead of the additions, and prefetches their weights.
  class Prefetcher {
   public:
    Prefetcher(const Delivery<T>& a, const std::vector<Run>& runs)
        : w_(a.w), size_(a.size), bytes_(std::min<int64_t>(a.size * sizeof(T), MOST_FETCHED)), run_(runs.data()), end_(run_ + runs.size()) {
      if (run_ != end_) next_ = run_->slot;
      for (int64_t i = 0; i < AHEAD * 64 / std::max<int64_t>(bytes_, 64); ++i) Next();
    }
    void Next() {
      if (run_ == end_) return;
      const char* from = reinterpret_cast<const char*>(w_ + *next_ * size_);
      for (int64_t byte = 0; byte < bytes_; byte += 64) __builtin_prefetch(from + byte);
      if (++next_ == run_->end && ++run_ != end_) next_ = run_->slot;
    }

   private:
    static constexpr int64_t MOST_FETCHED = 512;  // the processor fetches what follows by itself
    const T* w_;
    int64_t size_, bytes_;
    const Run *run_, *end_;
    const int* next_ = nullptr;
  };

  // Weights of neurons with inputs of their own, or of groups.
  void Plastic(const T* gain, T* filters) const {
    if (a_.size == 1)
      return EachSynapse(gain, filters, [&](int slot, T unit, T* into) { into[by_inputs_(slot)] += unit * a_.w[slot]; });
    EachSynapse(gain, filters, [&](int slot, T unit, T* into) {
      const int64_t start = by_inputs_(slot) * a_.size, first = std::max(start, begin_), last = std::min(start + a_.size, end_);
      const T* from = a_.w + int64_t{slot} * a_.size - start;
      for (int64_t i = first; i < last; ++i) into[i] += unit * from[i];
    });
  }

  // Calls add(slot, gain, filter [N]) for the plastic synapses of all runs.
  template <typename F>
  void EachSynapse(const T* gain, T* filters, const F& add) const {
    Prefetcher ahead(a_, runs_);
    for (const Run& run : runs_) {
      T* into = filters + static_cast<int64_t>(run.filter) * a_.neurons;
      const T unit = gain[run.filter];
      for (const int* slot = run.slot; slot < run.end; ++slot) {
        ahead.Next();
        add(*slot, unit, into);
      }
    }
  }

  const Delivery<T>& a_;
  Draw draw_;
  int64_t range_, begin_, end_, first_slot_, end_slot_, slots_;
  Divider by_inputs_;
  std::vector<Run> runs_;
};

// A spike of source j of a trial, counted at the source and put on a list.
template <typename T>
void Enlist(const Delivery<T>& a, int64_t trial, int j, const T* gain, std::vector<Spike>& list) {
  if (j < a.own) {
    const int64_t flat = trial * a.own + j;
    a.r[flat] += gain[FilterOf(a, j)];
    a.n_delivered[flat] += 1;
  }
  list.push_back(Spike::Of(a, j));
}

// Delivery of the spikes of a step in place.
template <typename T>
void Deliver(const Pool& pool, const Delivery<T>& a) {
  const int64_t static_targets = a.post || a.stream ? a.indptr[a.sources] : 0, plastic_targets = a.w ? int64_t{a.out_indptr[a.own]} * a.size : 0;
  const bool many = (static_targets + plastic_targets) / 2000 * a.trials >= WORTH_A_THREAD;  // of a step of 0.1 ms at 5 Hz
  const Ranges ranges(a.neurons, many ? pool.threads : 1);
  std::vector<SpikeList> lists(a.trials, SpikeList{std::vector<std::vector<Spike>>(1)});
  std::vector<SortedSynapses<T>> sorted(SortedSynapses<T>::Helps(a, ranges) ? a.trials : 0, SortedSynapses<T>(a, ranges));
  const auto sort = [&](int64_t trial) { return !sorted.empty() && SortedSynapses<T>::Fits(a, lists[trial]); };
  const Pool team = {many ? pool.threads : 1, pool.schedule};
  Parallel(team, a.trials, 1, [&](int64_t begin, int64_t end) {
    for (int64_t trial = begin; trial < end; ++trial)
      ForEachSpike(a.spiked + trial * a.sources, a.sources, [&](int64_t j) { Enlist(a, trial, j, a.gain, lists[trial].of_range[0]); });
  });
  const auto each = [&](const auto& f) {
    Parallel(team, a.trials * ranges.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) f(task % a.trials, task / a.trials);
    });
  };
  if (!sorted.empty())
    each([&](int64_t trial, int64_t range) {
      if (sort(trial)) sorted[trial].Collect(lists[trial], range);
    });
  each([&](int64_t trial, int64_t range) {
    T* filters = a.filters + trial * (2 + a.channels) * a.neurons;
    Deliverer<T> deliver(a, ranges, range);
    sort(trial) ? deliver(sorted[trial], a.gain, filters) : deliver(lists[trial], a.gain, filters);
  });
}

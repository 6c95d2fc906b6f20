// Time steps of LIF and feed-forward neurons: all steps of a call, on all threads. A task is a range of the neurons of a trial; in each
// step it delivers to its neurons the spikes that arrive, moves them, and lists which of their spikes arrive in the next step. So the tasks
// of a step need not wait for each other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../arguments.h"
#include "noise.h"
#include "spikes.h"
#include "threads.h"

constexpr int64_t BLOCK = 256;  // neurons whose intermediate values stay in the first-level cache

// Values of a block of neurons: of each, or one repeated.
template <typename V>
class OfBlock {
 public:
  explicit OfBlock(const PerNeuron<V>& parameter) : parameter_(parameter) {
    if (!parameter.stride) std::fill(repeated_, repeated_ + BLOCK, parameter.values[0]);
  }
  const V* At(int64_t n) const { return parameter_.stride ? parameter_.values + n : repeated_; }

 private:
  const PerNeuron<V>& parameter_;
  V repeated_[BLOCK];
};

// What a step needs to know beside the arguments.
template <typename T>
struct Moment {
  int64_t step, i, row;        // of this call, of the trial (from 1), and within its block
  bool last, renormalise;      // of this call; of its block
  const T *decay, *next_gain;  // of the filters, in this step and in the next one
};

// A range of the neurons of a trial; the last one also has the feed-forward neurons.
template <typename T>
class Task {
 public:
  Task(const Steps<T>& a, int64_t trial, const Ranges& ranges, int64_t range)
      : a_(a),
        d_(a.delivery),
        trial_(trial),
        begin_(ranges.Begin(range)),
        end_(ranges.End(range)),
        range_(range),
        feedforward_(range == ranges.count - 1),
        deliverer_(a.delivery, ranges, range),
        rate_(a.rate),
        threshold_(a.threshold),
        reset_(a.reset),
        noise_scale_(a.noise_scale),
        background_gain_(a.background.gain),
        past_(a.rows) {}

  // Number of lists of the spikes of a range that arrive in a step: without delays one, and otherwise one for each delay.
  static int64_t ListsOfRange(const Steps<T>& a) { return a.rows ? a.delay_count : 1; }

  int64_t trial() const { return trial_; }
  int64_t range() const { return range_; }

  // Spikes that are still to be delivered when the call begins.
  void Begin(SpikeList& list) {
    const T* gain = a_.factors + 2 + d_.channels;
    if (!a_.rows) return EachOfOwn(d_.spiked + trial_ * d_.own, [&](int j) { Enlist(d_, trial_, j, gain, OfDelay(list, 0)); });
    for (int row = 0; row < a_.rows; ++row) EachOfOwn(RingRow(row), [&](int j) { past_[row].push_back(j); });
    if (!*a_.early) Arrive(*a_.i + 1, gain, list);
  }

  template <typename Spikes>
  void Deliver(const Spikes& spikes, const T* gain) {
    deliverer_(spikes, gain, filters());
  }

  // Moves the neurons by a step; spikes that arrive in the next one are put on the list.
  void Move(const Moment<T>& now, SpikeList& list) {
    for (int64_t k = 0; k < ListsOfRange(a_); ++k) OfDelay(list, k).clear();
    if (a_.rows) past_[now.i % a_.rows].clear();
    for (int64_t n = begin_; n < end_; n += BLOCK) MoveBlock(now, n, std::min(BLOCK, end_ - n), OfDelay(list, 0));
    if (feedforward_)
      for (int64_t x = 0; x < d_.own - d_.neurons; ++x) MoveFeedforward(now, x, OfDelay(list, 0));
    if (!a_.rows) return;
    if (!now.last) return Arrive(now.i + 1, now.next_gain, list);
    for (int64_t step = std::max<int64_t>(0, now.step + 1 - a_.rows); step <= now.step; ++step) KeepRow((now.i - now.step + step) % a_.rows);
  }

 private:
  unsigned char* RingRow(int row) const { return a_.ring + (trial_ * a_.rows + row) * d_.own; }

  // Calls f(j) for each of the own neurons that spiked, from flags of all [N+X].
  template <typename F>
  void EachOfOwn(const unsigned char* spiked, const F& f) const {
    ForEachSpike(spiked + begin_, end_ - begin_, [&](int64_t j) { f(begin_ + j); });
    if (feedforward_) ForEachSpike(spiked + d_.neurons, d_.own - d_.neurons, [&](int64_t x) { f(d_.neurons + x); });
  }

  // Spikes of the own neurons that arrive with delay k; the list has the order of delays, ranges, neurons.
  std::vector<Spike>& OfDelay(SpikeList& list, int64_t k) const {
    return list.of_range[k * (list.of_range.size() / ListsOfRange(a_)) + range_];
  }

  // Lists the spikes that arrive in step i of the trial, as step.arriving does.
  void Arrive(int64_t i, const T* gain, SpikeList& list) {
    const bool by_class = a_.delays[0] != a_.delays[1];
    for (int k = 0; k < a_.delay_count; ++k) {
      if (k == 1 && !by_class) continue;
      const std::vector<int>& spikes = past_[(i + a_.rows - a_.delays[k]) % a_.rows];
      std::vector<Spike>& own = OfDelay(list, k);
      for (const int j : spikes) {
        if (k > 1) Enlist(d_, trial_, (k - 1) * d_.own + j, gain, own);
        else if (!by_class || (j >= d_.neurons || d_.excitatory[j]) == (k == 0)) Enlist(d_, trial_, j, gain, own);
      }
    }
  }

  // Writes the own spikes of a row of the ring.
  void KeepRow(int row) const {
    unsigned char* flags = RingRow(row);
    std::fill(flags + begin_, flags + end_, 0);
    if (feedforward_) std::fill(flags + d_.neurons, flags + d_.own, 0);
    for (const int j : past_[row]) flags[j] = 1;
  }

  T* filters() const { return d_.filters + trial_ * (2 + d_.channels) * d_.neurons; }

  // Calls f(to, key, begin, end) for the random numbers of a block of neurons: those of each part of the network have a key of their own,
  // and count from 0.
  template <typename F>
  void OfParts(T* to, const unsigned* keys, int64_t n, int64_t count, const F& f) const {
    for (const int64_t end = n + count; n < end;) {
      const int64_t part = n / a_.part, begin = n - part * a_.part, size = std::min(end - n, a_.part - begin);
      f(to, keys + 2 * part, begin, begin + size);
      n += size, to += size;
    }
  }
  void NormalsOfParts(T* to, const unsigned* keys, int64_t step, int64_t n, int64_t count) const {
    OfParts(to, keys, n, count, [=](T* to, const unsigned* key, int64_t begin, int64_t end) { Normals(to, Key::Fold(key, step), begin, end); });
  }

  // Adds the current from the background to that through static synapses, as inputs.background.
  void AddBackground(int64_t i, int64_t n, int64_t count, T* __restrict u_bal) const {
    const Background<T>& b = a_.background;
    T u[BLOCK], spikes[BLOCK] = {};
    for (int draw = 0; draw < b.draws; ++draw) {
      OfParts(u, b.key + 2 * a_.parts * trial_, n, count, [=](T* to, const unsigned* key, int64_t begin, int64_t end) {
        const Key of_step = Key::Fold(key, i);
        const uint32_t words[2] = {of_step.a, of_step.b};
        Uniforms(to, Key::Fold(words, draw), begin, end);
      });
      for (int64_t k = 0; k < b.most && CountAbove(count, u, b.limits + k * d_.neurons + n, spikes); ++k) {}
    }
    T* __restrict current = b.current + trial_ * d_.neurons + n;
    const T* gain = background_gain_.At(n);
    for (int64_t k = 0; k < count; ++k) current[k] = b.decay * current[k] + gain[k] * spikes[k];
    for (int64_t k = 0; k < count; ++k) u_bal[k] += current[k];
  }

  // Adds 1 to the numbers of those with u above the limit; whether there are any.
  static bool CountAbove(int64_t count, const T* __restrict u, const T* __restrict limit, T* __restrict number) {
    int any = 0;
    for (int64_t k = 0; k < count; ++k) {
      const int above = u[k] > limit[k];
      number[k] += above;
      any |= above;
    }
    return any;
  }

  // Currents of a block of neurons through static and plastic synapses; renormalised filters are kept.
  void Currents(const Moment<T>& now, int64_t n, int64_t count, T* __restrict u_bal, T* __restrict u_plas) const {
    T *exc = filters() + n, *inh = exc + d_.neurons;
    for (int64_t c = 2; c < 2 + d_.channels; ++c) {
      T* filter = exc + c * d_.neurons;
      const T decay = now.decay[c];
      if (c == 2)
        for (int64_t i = 0; i < count; ++i) u_plas[i] = filter[i] * decay;
      else
        for (int64_t i = 0; i < count; ++i) u_plas[i] += filter[i] * decay;
      if (now.renormalise)
        for (int64_t i = 0; i < count; ++i) filter[i] *= decay;
    }
    if (!d_.post && !d_.stream) {
      std::fill(u_bal, u_bal + count, T(0));
      return;
    }
    const T decay_exc = now.decay[0], decay_inh = now.decay[1];
    if (a_.class_weight) {
      const unsigned char* excitatory = d_.excitatory + n;
      const T ee = a_.class_weight[0], ei = a_.class_weight[1], ie = a_.class_weight[2], ii = a_.class_weight[3];
      for (int64_t i = 0; i < count; ++i)
        u_bal[i] = exc[i] * decay_exc * (excitatory[i] ? ee : ei) + inh[i] * decay_inh * (excitatory[i] ? ie : ii);
    } else {
      for (int64_t i = 0; i < count; ++i) u_bal[i] = exc[i] * decay_exc + inh[i] * decay_inh;
    }
    if (now.renormalise)
      for (int64_t i = 0; i < count; ++i) exc[i] *= decay_exc, inh[i] *= decay_inh;
  }

  // Adds the stimulus of a block of neurons to their drive. `after` is that with which a filtered rate is computed: a process has moved on.
  void Stimulate(const Moment<T>& now, int64_t n, int64_t count, T* __restrict drive, T* __restrict after) const {
    if (a_.given_stimulus.values) {
      const int64_t since = now.i - a_.stim_on, bin = since > 0 ? (since - 1) / a_.given_stimulus.steps : 0;
      const T* values = a_.given_stimulus.values + (int64_t{*a_.condition} * a_.given_stimulus.bins + bin) * d_.neurons + n;
      for (int64_t i = 0; i < count; ++i) after[i] = bin < a_.given_stimulus.bins ? values[i] : T(0);
      for (int64_t i = 0; i < count; ++i) drive[i] += after[i];
      return;
    }
    const Process<T>& process = a_.stimulus;
    const T* present = process.values + (now.step & 1) * d_.neurons + n;
    for (int64_t i = 0; i < count; ++i) drive[i] += present[i];
    if (trial_ != 0 && !(now.renormalise && a_.expected)) return;
    T xi[BLOCK];
    NormalsOfParts(xi, process.key, now.i, n, count);
    for (int64_t i = 0; i < count; ++i) after[i] = present[i] + process.pull * (process.mean - present[i]) + process.noise * xi[i];
    if (trial_ == 0) std::copy(after, after + count, process.values + ((now.step + 1) & 1) * d_.neurons + n);
  }

  // Firing rates of neurons at constant inputs, 1/ms, by linear interpolation (RateTable in model/network.py), filtered.
  void Expect(int64_t n, int64_t count, T decay, const T* __restrict input, T* __restrict expected) const {
    const T start = *a_.table_start, step = *a_.table_step;
    const int last = a_.nodes - 2, nodes = a_.nodes, *kind = a_.kind + n;
    const T* rates = a_.rate_table;
    for (int64_t i = 0; i < count; ++i) {
      const T position = (input[i] - start) / step, known = position > 0 ? position : T(0);
      const int node = known < last ? static_cast<int>(known) : last, at = kind[i] * nodes + node;
      const T rate = rates[at] + (rates[at + 1] - rates[at]) * (known - node);
      expected[i] = decay * expected[i] + (1 - decay) * rate;
    }
  }

  void MoveBlock(const Moment<T>& now, int64_t n, int64_t count, std::vector<Spike>& own) {
    T u_bal[BLOCK], u_plas[BLOCK], drive[BLOCK], after[BLOCK], noise[BLOCK];
    int fired[BLOCK];
    const int64_t at = trial_ * d_.neurons + n;
    const T* bias = a_.bias + n;
    Currents(now, n, count, u_bal, u_plas);
    if (a_.background.limits) AddBackground(now.i, n, count, u_bal);
    if (d_.w)
      for (int64_t i = 0; i < count; ++i) drive[i] = bias[i] + u_bal[i] + u_plas[i];
    else
      for (int64_t i = 0; i < count; ++i) drive[i] = bias[i] + u_bal[i];
    std::fill(after, after + count, T(0));
    if (a_.stimulated) Stimulate(now, n, count, drive, after);
    T* v = a_.v + at;
    int* until = a_.until + at;
    if (a_.noise) {
      const T* scale = noise_scale_.At(n);
      T* to = a_.noise == 1 ? v : drive;
      NormalsOfParts(noise, a_.noise_key + 2 * a_.parts * trial_, now.i, n, count);
      for (int64_t i = 0; i < count; ++i) to[i] += scale[i] * noise[i];
    }
    const bool any = Integrate(now.i, count, v, until, drive, rate_.At(n), threshold_.At(n), reset_.At(n), fired);
    if (now.renormalise) Renormalise(now, n, count, u_bal, u_plas, after);
    if (now.last) std::copy(fired, fired + count, d_.spiked + trial_ * d_.own + n);
    if (!any) return;
    for (int64_t i = 0; i < count; ++i)
      if (fired[i]) {
        until[i] = now.i + a_.refractory.values[(n + i) * a_.refractory.stride];
        Fire(now, n + i, own);
      }
  }

  // One Euler step of the neurons that are not refractory, and the reset of those that fire; whether any of them fires.
  static bool Integrate(int i, int64_t count, T* __restrict v, const int* __restrict until, const T* __restrict drive,
                        const T* __restrict rate, const T* __restrict threshold, const T* __restrict reset, int* __restrict fired) {
    int any = 0;
    for (int64_t k = 0; k < count; ++k) {
      const int active = until[k] < i;
      const T gain = active ? rate[k] : T(0), moved = v[k] + gain * (drive[k] - v[k]);
      const int fires = active & (moved > threshold[k] ? 1 : 0);
      v[k] = fires ? reset[k] : moved;
      fired[k] = fires;
      any |= fires;
    }
    return any;
  }

  // At the end of a block: decay of the filtered spikes, sum of the currents, filtered rates.
  void Renormalise(const Moment<T>& now, int64_t n, int64_t count, const T* u_bal, const T* u_plas, T* after) const {
    const int64_t at = trial_ * d_.neurons + n;
    T *r = d_.r + trial_ * d_.own + n, *u_sum = a_.u_sum + at;
    const T weight = now.row + 1;
    if (d_.channel)
      for (int64_t i = 0; i < count; ++i) r[i] *= now.decay[FilterOf(d_, n + i)];
    else
      for (int64_t i = 0; i < count; ++i) r[i] *= now.decay[2];
    for (int64_t i = 0; i < count; ++i) u_sum[i] += weight * (u_bal[i] + u_plas[i]);
    if (!a_.expected) return;
    for (int64_t i = 0; i < count; ++i) after[i] += a_.bias[n + i] + (u_bal[i] + u_plas[i]);
    if (!d_.channel) return Expect(n, count, now.decay[2], after, a_.expected + at);
    for (int64_t i = 0; i < count; ++i) Expect(n + i, 1, now.decay[FilterOf(d_, n + i)], after + i, a_.expected + at + i);
  }

  // One step of feed-forward neuron x.
  void MoveFeedforward(const Moment<T>& now, int64_t x, std::vector<Spike>& own) {
    const int64_t count = d_.own - d_.neurons, since = now.i - a_.stim_off, j = d_.neurons + x, flat = trial_ * d_.own + j;
    T rate = a_.rates.values[(now.step & 1) * count + x];
    if (trial_ == 0) {
      T next = rate;
      if (a_.moving && since > 0) {
        T xi;
        Normals(&xi, Key::Fold(a_.rates.key, since), x, x + 1);
        next = rate + a_.rates.pull * (a_.rates.mean - rate) + a_.rates.noise * xi;
      }
      a_.rates.values[((now.step + 1) & 1) * count + x] = next;
    }
    if (a_.given_rates.values) {
      const int64_t bin = std::min<int64_t>(since > 0 ? (since - 1) / a_.given_rates.steps : 0, a_.given_rates.bins - 1);
      rate = a_.given_rates.values[(int64_t{*a_.condition} * a_.given_rates.bins + bin) * count + x];
    }
    const bool fired = Uniform(Key::Fold(a_.spike_key + 2 * trial_, since).Bits(x), T()) < rate * a_.seconds && (since > 0 || a_.before);
    if (now.renormalise) d_.r[flat] *= now.decay[FilterOf(d_, j)];
    if (now.last) d_.spiked[flat] = fired;
    if (fired) Fire(now, j, own);
  }

  // Puts a spike on the list for its delivery in the next step or among the past ones, and, if wanted, in the packed words (delivery.pack).
  void Fire(const Moment<T>& now, int64_t j, std::vector<Spike>& own) {
    if (a_.rows) past_[now.i % a_.rows].push_back(j), a_.fired[trial_ * d_.own + j] += 1;
    else if (!now.last) Enlist(d_, trial_, j, now.next_gain, own);
    if (!a_.words || j >= d_.neurons) return;
    const int64_t width = (d_.neurons + 31) / 32;
    __atomic_fetch_or(a_.words + (trial_ * a_.steps + now.step) * width + j % width, 1u << (j / width), __ATOMIC_RELAXED);
  }

  const Steps<T>& a_;
  const Delivery<T>& d_;
  int64_t trial_, begin_, end_, range_;
  bool feedforward_;
  Deliverer<T> deliverer_;
  OfBlock<T> rate_, threshold_, reset_, noise_scale_, background_gain_;
  std::vector<std::vector<int>> past_;  // own spikes of the last D steps: those of step s in s % D
};

// All steps of a call. The spikes of the last step are not delivered.
template <typename T>
void RunSteps(const Pool& pool, const Steps<T>& a) {
  const Delivery<T>& d = a.delivery;
  const int64_t filters = 2 + d.channels, before = *a.i, each_threads = std::max<int64_t>(1, (pool.threads + d.trials - 1) / d.trials);
  const Ranges ranges(d.neurons, each_threads);
  std::vector<Task<T>> tasks;
  for (int64_t range = 0; range < ranges.count; ++range)
    for (int64_t trial = 0; trial < d.trials; ++trial) tasks.emplace_back(a, trial, ranges, range);
  std::vector<SpikeList> lists[2];  // of the trials, in turn: what arrives in this step, and in the next one
  for (auto& list : lists) list.assign(d.trials, SpikeList{std::vector<std::vector<Spike>>(ranges.count * Task<T>::ListsOfRange(a))});
  std::vector<SortedSynapses<T>> sorted(SortedSynapses<T>::Helps(d, ranges) ? d.trials : 0, SortedSynapses<T>(d, ranges));
  for (Task<T>& task : tasks) task.Begin(lists[0][task.trial()]);
  const int64_t phases = sorted.empty() ? 1 : 2;
  InSteps(pool, a.steps * phases, tasks.size(), [&](int64_t turn, int64_t index) {
    const int64_t step = turn / phases, row = step % a.block;
    Task<T>& task = tasks[index];
    const SpikeList& arriving = lists[step & 1][task.trial()];
    const bool sort = !sorted.empty() && SortedSynapses<T>::Fits(d, arriving);
    if (phases == 2 && turn % 2 == 0) {
      if (sort) sorted[task.trial()].Collect(arriving, task.range());
      return;
    }
    const bool last = step == a.steps - 1, renormalise = last || row == a.block - 1;
    const int64_t next = renormalise ? 0 : row + 1;
    const T *decay = a.factors + row * 2 * filters, *gain = decay + filters;
    sort ? task.Deliver(sorted[task.trial()], gain) : task.Deliver(arriving, gain);
    task.Move({step, before + step + 1, row, last, renormalise, decay, a.factors + (2 * next + 1) * filters}, lists[(step + 1) & 1][task.trial()]);
  });
}

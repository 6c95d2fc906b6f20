// Native kernels without XLA, on small problems made by a hash, so that they can also run in an emulated processor.
//
// Printed is, for each quantity, a line with its name, the precision, the number of threads, L and S, and then its numbers.
// test_harness.py makes the same problems and computes the same with NumPy.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <thread>
#include <vector>

#define RLSNET_MOST_IN_RANGE 1200  // so that the trials below have more ranges than one thread, and as many as four threads use

#include "../../rlsnet/kernels/cpu/learning.h"
#include "../../rlsnet/kernels/cpu/spikes.h"
#include "../../rlsnet/kernels/cpu/steps.h"

constexpr int GROUPS = 40, UPDATES = 8, MOST = 3, TRIALS = 2;

uint32_t Hash(uint32_t stream, uint32_t i) { return Mix(i ^ Mix(stream)); }

// Numbers in [0, 1) with 16 bits, which are exact in both precisions.
double Fraction(uint32_t stream, uint32_t i) { return (Hash(stream, i) >> 16) * 0x1p-16; }

template <typename T>
void Print(const char* name, int threads, int inputs, int size, const std::vector<T>& values) {
  std::printf("%s float%d %d %d %d", name, static_cast<int>(8 * sizeof(T)), threads, inputs, size);
  for (T value : values) std::printf(" %.17g", static_cast<double>(value));
  std::printf("\n");
}

// A pool whose threads end when it does.
struct Workers {
  std::vector<std::thread> all;
  Pool pool;
  explicit Workers(int threads) : pool{threads, [this](std::function<void()> work) { all.emplace_back(std::move(work)); }} {}
  ~Workers() {
    for (std::thread& each : all) each.join();
  }
};

template <typename T>
void Run(int threads, int inputs, int size) {
  const int n = GROUPS * size, row = Padded<T>(inputs);  // row: length of the rows of P, u and g
  const auto made = [](uint32_t stream, int count, double low, double high) {
    std::vector<T> values(count);
    for (int i = 0; i < count; ++i) values[i] = static_cast<T>(low + (high - low) * Fraction(stream, i));
    return values;
  };

  std::vector<int> pre(GROUPS * inputs);
  for (int i = 0; i < GROUPS * inputs; ++i) pre[i] = Hash(1, i) % 16 ? static_cast<int>(Hash(2, i) % n) : -1;
  std::vector<T> P(GROUPS * inputs * row), w = made(3, GROUPS * inputs * size, -1, 1), u(GROUPS * MOST * row), g(GROUPS * row);
  std::vector<T> factor(GROUPS, T(1)), r(n), scale;
  for (int i = 0; i < GROUPS; ++i)
    for (int l = 0; l < inputs; ++l) P[(i * inputs + l) * row + l] = pre[i * inputs + l] < 0 ? 0 : 1;
  const StoredP<T> stored(P.data(), NumberType::ENGINE, false, scale.data(), inputs, row);

  Learn<T> a = {};
  const bool flags[] = {true, true};
  const T decay = 0.875, forgetting = 0.96875;
  bool refresh = true;
  int count = 0;
  a.groups = GROUPS, a.inputs = inputs, a.size = size, a.neurons = a.sources = n, a.most = MOST;
  a.flags = flags, a.refresh = &refresh, a.count = &count, a.decay = &decay, a.forgetting = &forgetting, a.pre = pre.data();
  a.w = w.data(), a.u = u.data(), a.factor = factor.data(), a.g = g.data(), a.r = r.data();
  for (int m = 0; m < UPDATES; ++m) {
    std::vector<T> arrived = made(10 + m, n, 0, 1), residual = made(30 + m, n, -1, 1);
    for (int j = 0; j < n; ++j) {
      if (m > 0 && Hash(50 + m, j) % 4) arrived[j] = 0;
      if (Hash(70 + m, j) % 8 == 0) residual[j] = std::numeric_limits<T>::quiet_NaN();
      r[j] = decay * r[j] + arrived[j];
    }
    a.arrived = arrived.data(), a.residual = residual.data();
    refresh = m == 0 || count == MOST;
    Workers workers(threads);
    Update(workers.pool, a, stored);
    count = refresh ? 1 : count + 1;
  }
  Workers workers(threads);
  Flush(workers.pool, a, stored);
  Print("w", threads, inputs, size, w);
  std::vector<T> last;  // group
  for (int l = 0; l < inputs; ++l) last.insert(last.end(), P.end() - (inputs - l) * row, P.end() - (inputs - l) * row + inputs);
  Print("P", threads, inputs, size, last);

  std::vector<int> indptr = {0}, post, out_indptr = {0}, out_slot;
  std::vector<unsigned char> excitatory(n), spiked(TRIALS * n);
  for (int j = 0; j < n; ++j) {
    excitatory[j] = Hash(90, j) % 2;
    for (uint32_t k = 0; k < Hash(91, j) % 20; ++k) post.push_back(Hash(92, 32 * j + k) % n);
    std::sort(post.begin() + indptr.back(), post.end());
    indptr.push_back(post.size());
    for (int slot = 0; slot < GROUPS * inputs; ++slot)
      if (pre[slot] == j) out_slot.push_back(slot);
    out_indptr.push_back(out_slot.size());
  }
  for (int i = 0; i < TRIALS * n; ++i) spiked[i] = Hash(93, i) % 4 == 0;
  const std::vector<T> weight = made(94, post.size(), -1, 1), gain = made(95, 3, 0.5, 1);
  std::vector<T> filters = made(96, TRIALS * 3 * n, 0, 1), traces(TRIALS * n);
  std::vector<int> delivered(TRIALS * n);
  Delivery<T> d = {};
  d.neurons = d.sources = d.own = n, d.trials = TRIALS, d.inputs = inputs, d.size = size, d.channels = 1, d.excitatory = excitatory.data();
  d.indptr = indptr.data(), d.post = post.data(), d.weight = weight.data(), d.out_indptr = out_indptr.data(), d.out_slot = out_slot.data();
  d.w = w.data(), d.filters = filters.data(), d.r = traces.data(), d.n_delivered = delivered.data(), d.spiked = spiked.data();
  d.gain = gain.data();
  Deliver(workers.pool, d);
  Print("filters", threads, inputs, size, filters);
  Print("r", threads, inputs, size, traces);
  Print("delivered", threads, inputs, size, std::vector<T>(delivered.begin(), delivered.end()));
}

// Time steps of two trials of 2,200 neurons and some feed-forward ones: ranges of targets, noise, refractory neurons, packed spikes. In
// groups of more than one neuron, of which ranges cut some, static synapses have weights.
template <typename T>
void RunTrials(int threads, int size) {
  const int n = 2200, x = 3, all = n + x, degree = 12, inputs = 4, steps = 35, block = 10, slots = (n + size - 1) / size * inputs;
  std::vector<int> indptr, post, out_indptr = {0}, out_slot;
  std::vector<unsigned char> excitatory(n), spiked(TRIALS * all);
  std::vector<T> v(TRIALS * n), bias(n), w(slots * size), weight(n * degree), filters(TRIALS * 3 * n), r(TRIALS * all), u_sum(TRIALS * n), rates(2 * x, 400), none(2 * n);
  std::vector<int> pre(slots), until(TRIALS * n), delivered(TRIALS * all);
  for (int j = 0; j <= all; ++j) indptr.push_back(std::min(j, n) * degree);
  for (int j = 0; j < n; ++j) {
    excitatory[j] = Hash(100, j) % 2, bias[j] = static_cast<T>(0.5 + Fraction(101, j));
    for (int k = 0; k < degree; ++k) post.push_back(Hash(102, degree * j + k) % n);
    std::sort(post.end() - degree, post.end());
  }
  for (int slot = 0; slot < slots; ++slot) pre[slot] = Hash(103, slot) % all;
  for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<T>(4 * Fraction(104, i) - 2);
  for (size_t e = 0; e < weight.size(); ++e) weight[e] = static_cast<T>(0.5 + Fraction(107, e));
  for (int j = 0; j < all; ++j) {
    for (int slot = 0; slot < slots; ++slot)
      if (pre[slot] == j) out_slot.push_back(slot);
    out_indptr.push_back(out_slot.size());
  }
  for (int i = 0; i < TRIALS * n; ++i) v[i] = static_cast<T>(Fraction(105, i));
  for (int i = 0; i < TRIALS * all; ++i) spiked[i] = Hash(106, i) % 32 == 0;
  std::vector<T> factors;
  for (int row = 1; row <= block; ++row) {
    const double tau[] = {3, 3, 150};
    for (double each : tau) factors.push_back(static_cast<T>(std::pow(1 - 0.1 / each, row)));
    for (double each : tau) factors.push_back(static_cast<T>(1 / (each * std::pow(1 - 0.1 / each, row))));
  }
  const T rate = T(0.01), threshold = 1, reset = 0, noise = T(0.05), class_weight[] = {T(0.25), T(0.5), T(-0.5), T(-1)};
  const int refractory = 3, before = 0;
  const unsigned noise_key[] = {1, 2, 3, 4}, spike_key[] = {5, 6, 7, 8};
  std::vector<unsigned> words(TRIALS * steps * ((n + 31) / 32));
  Steps<T> a = {};
  Delivery<T>& d = a.delivery;
  d.neurons = n, d.sources = all, d.trials = TRIALS, d.inputs = inputs, d.size = size, d.channels = 1, d.excitatory = excitatory.data();
  d.indptr = indptr.data(), d.post = post.data(), d.out_indptr = out_indptr.data(), d.out_slot = out_slot.data(), d.w = w.data();
  d.weight = size > 1 ? weight.data() : nullptr;
  d.filters = filters.data(), d.r = r.data(), d.n_delivered = delivered.data(), d.spiked = spiked.data();
  a.steps = steps, a.block = block, a.i = &before, a.rate = {&rate, 0}, a.threshold = {&threshold, 0}, a.reset = {&reset, 0};
  a.noise_scale = {&noise, 0}, a.refractory = {&refractory, 0}, a.noise = 1, a.noise_key = noise_key, a.bias = bias.data();
  a.class_weight = class_weight, a.factors = factors.data(), a.v = v.data(), a.until = until.data(), a.u_sum = u_sum.data();
  a.stimulus.values = none.data(), a.rates.values = rates.data(), a.spike_key = spike_key, a.before = true, a.seconds = T(1e-4);
  a.words = words.data();
  Workers workers(threads);
  RunSteps(workers.pool, a);
  Print("v", threads, inputs, size, v);
  Print("filters", threads, inputs, size, filters);
  Print("r", threads, inputs, size, r);
  Print("spikes", threads, inputs, size, std::vector<T>(words.begin(), words.end()));
}

int main() {
  for (int threads : {1, 4})
    for (int size : {1, 7}) {
      RunTrials<float>(threads, size);
      RunTrials<double>(threads, size);
    }
  for (int threads : {1, 4})
    for (int inputs : {5, 29, 64})
      for (int size : {1, 4}) {
        Run<float>(threads, inputs, size);
        Run<double>(threads, inputs, size);
      }
  std::vector<float> normal(1000);
  Normals(normal.data(), Key{7, 11}, 0, 1000);
  Print("normal", 1, 0, 0, normal);
}

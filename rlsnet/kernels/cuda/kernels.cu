// The hot loops on a GPU: time steps, delivery of spikes, and recursive least squares. NVRTC compiles this file for a GPU;
// emulation.cc compiles the same file for a CPU, where tests run it.
//
// The same is computed in JAX, in a simpler form, by simulation/step.py, simulation/delivery.py, model/rng.py and learning/deferred.py.
#include "../arguments.h"

#ifndef CUDA_EMULATION
#include "grid_barrier.h"
#define SHARED(T, name)                                \
  extern __shared__ __align__(16) char shared_bytes[]; \
  T* name = reinterpret_cast<T*>(shared_bytes)
#endif

#define INLINE static __device__ __forceinline__

// --- Random numbers: model/rng.py ---------------------------------------------------------------------------------------

INLINE unsigned mix(unsigned x) {
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}

struct Key {
  unsigned a, b;
  INLINE Key fold(const unsigned* stream, unsigned counter) {
    const unsigned a = mix(stream[0] ^ mix(counter + 0x9E3779B9u));
    return {a, mix(stream[1] + a * 0x85EBCA6Bu + 1u)};
  }
  __device__ unsigned bits(unsigned counter) const { return mix(mix(counter ^ a) + b); }
};

// Uniform in (0, 1): the middle of one of 2^23 or 2^32 cells.
INLINE float uniform(unsigned bits, float) { return (static_cast<float>(bits >> 9) + 0.5f) * 1.1920928955078125e-07f; }
INLINE double uniform(unsigned bits, double) { return (bits + 0.5) * 2.3283064365386963e-10; }

// The standard normal quantile: for float by the polynomials of M. Giles, "Approximating the erfinv function", GPU Computing Gems,
// Jade edition (2012), as in cpu/noise.h.
INLINE double quantile(double u) { return normcdfinv(u); }
INLINE float quantile(float u) {
  const float w = -logf(4 * u * (1 - u));
  const bool inner = w < 5;
  const float s = inner ? w - 2.5f : sqrtf(w) - 3;
  float p = inner ? 2.81022636e-08f : -0.000200214257f;
  p = fmaf(p, s, inner ? 3.43273939e-07f : 0.000100950558f);
  p = fmaf(p, s, inner ? -3.5233877e-06f : 0.00134934322f);
  p = fmaf(p, s, inner ? -4.39150654e-06f : -0.00367342844f);
  p = fmaf(p, s, inner ? 0.00021858087f : 0.00573950773f);
  p = fmaf(p, s, inner ? -0.00125372503f : -0.0076224613f);
  p = fmaf(p, s, inner ? -0.00417768164f : 0.00943887047f);
  p = fmaf(p, s, inner ? 0.246640727f : 1.00167406f);
  p = fmaf(p, s, inner ? 1.50140941f : 2.83297682f);
  return p * (2 * u - 1) * 1.41421356237f;
}

template <typename T>
INLINE T normal(const Key& key, unsigned counter) {
  return quantile(uniform(key.bits(counter), T()));
}

// Postsynaptic neuron of procedural synapse k of neuron j, as in connectivity.targets_of: rng.permute on a grid of rows x columns points.
template <typename T>
INLINE int drawn_target(const Delivery<T>& a, unsigned j, unsigned k) {
  const Key key = Key::fold(a.stream, j);
  const auto move = [&](unsigned round, unsigned side, unsigned size) {
    return ((key.bits(side + round * 0x9E3779B9u) >> 16) * size) >> 16;
  };
  unsigned x = k;
  do {
    unsigned left = x / a.columns, right = x % a.columns;
    for (unsigned round = 0; round < 4; ++round) {
      left += move(2 * round, right, a.rows);
      left -= left < a.rows ? 0 : a.rows;
      right += move(2 * round + 1, left, a.columns);
      right -= right < a.columns ? 0 : a.columns;
    }
    x = left * a.columns + right;
  } while (x >= static_cast<unsigned>(a.neurons) - 1);
  const unsigned target = j + 1 + x;
  return target < static_cast<unsigned>(a.neurons) ? target : target - a.neurons;
}

// --- Spikes -----------------------------------------------------------------------------------------------------------

INLINE unsigned thread_of_grid() { return blockIdx.x * blockDim.x + threadIdx.x; }
INLINE unsigned threads_of_grid() { return gridDim.x * blockDim.x; }

template <typename T>
INLINE unsigned static_targets(const Delivery<T>& a, int j) {
  return a.post || a.stream ? a.indptr[j + 1] - a.indptr[j] : 0;
}

// All targets of a spike of source j.
template <typename T>
INLINE unsigned targets_of(const Delivery<T>& a, int j) {
  return static_targets(a, j) + (a.w && j < a.own ? (a.out_indptr[j + 1] - a.out_indptr[j]) * a.size : 0);
}

template <typename T>
INLINE int filter_of(const Delivery<T>& a, int j) {  // the plastic filter of a source
  return 2 + (a.channel ? a.channel[j] : 0);
}

// Puts a spike of source j (flat number `flat` through all trials) on the list for its delivery, and counts it at the source.
template <typename T>
INLINE void enlist(const Delivery<T>& a, unsigned flat, int j, int* list, SpikeCount* count, const T* gain) {
  if (j < a.own) {
    const unsigned at = a.own == a.sources ? flat : flat / a.sources * a.own + j;
    a.r[at] += gain[filter_of(a, j)];
    a.n_delivered[at] += 1;
  }
  const unsigned targets = targets_of(a, j);
  if (targets > MOST_NARROW) {
    list[a.trials * a.sources - 1 - atomicAdd(&count->wide, 1u)] = flat;
  } else {
    list[atomicAdd(&count->narrow, 1u)] = flat;
    atomicMax(&count->most, targets);
  }
}

// Enlists the spikes in `spiked`.
template <typename T>
INLINE void enlist_all(const Delivery<T>& a, int* list, SpikeCount* count, const T* gain) {
  for (unsigned flat = thread_of_grid(); flat < static_cast<unsigned>(a.trials * a.sources); flat += threads_of_grid())
    if (a.spiked[flat]) enlist(a, flat, flat % a.sources, list, count, gain);
}

// One spike to its target number e, if it has so many; the static ones first.
template <typename T>
INLINE void reach(const Delivery<T>& a, unsigned flat, unsigned e, const T* gain) {
  const int trial = flat / a.sources, j = flat - trial * a.sources;
  T* filters = a.filters + static_cast<long long>(trial) * (2 + a.channels) * a.neurons;
  const unsigned n_static = static_targets(a, j);
  if (e < n_static) {
    const int own = a.excitatory[j < a.own ? j : j % a.own] ? 0 : 1, edge = a.indptr[j] + e;
    const int target = a.stream ? drawn_target(a, j, e) : a.post[edge];
    atomicAdd(filters + own * a.neurons + target, a.weight ? gain[own] * a.weight[edge] : gain[own]);
    return;
  }
  if (!a.w || j >= a.own) return;
  unsigned output = e - n_static, member = 0;
  if (a.size > 1) output /= a.size, member = e - n_static - output * a.size;
  const int start = a.out_indptr[j], filter = filter_of(a, j);
  if (output >= static_cast<unsigned>(a.out_indptr[j + 1] - start)) return;
  const int slot = a.out_slot[start + output], target = slot / a.inputs * a.size + member;
  if (target < a.neurons)
    atomicAdd(filters + static_cast<long long>(filter) * a.neurons + target, gain[filter] * a.w[static_cast<long long>(slot) * a.size + member]);
}

// Delivers the spikes of a list. 32 targets of a narrow spike are the turn of a warp; a wide spike is shared out to all threads.
template <typename T>
INLINE void deliver_list(const Delivery<T>& a, const int* list, const SpikeCount* count, const T* gain) {
  const unsigned lane = threadIdx.x % 32, warps = threads_of_grid() / 32;
  const unsigned parts = (__ldcg(&count->most) + 31) / 32, turns = __ldcg(&count->narrow) * parts;
  for (unsigned turn = thread_of_grid() / 32; turn < turns; turn += warps) {
    const unsigned spike = turn / parts;
    reach(a, __ldcg(list + spike), (turn - spike * parts) * 32 + lane, gain);
  }
  const unsigned wide = __ldcg(&count->wide);
  for (unsigned spike = 0; spike < wide; ++spike) {
    const unsigned flat = __ldcg(list + a.trials * a.sources - 1 - spike), targets = targets_of(a, flat % a.sources);
    for (unsigned e = thread_of_grid(); e < targets; e += threads_of_grid()) reach(a, flat, e, gain);
  }
}

// --- Time steps -------------------------------------------------------------------------------------------------------

// What one step needs to know beside the arguments.
template <typename T>
struct Moment {
  int step, i, row;  // of this call, of the trial (from 1), and within its block
  bool last;         // of this call
  bool renormalise;  // the last of a block
  const T *decay, *next_gain;  // of the filters, in this step and in the next one
  int* list;
  SpikeCount* count;
};

template <typename V>
INLINE V of_neuron(const PerNeuron<V>& parameter, int n) {
  return parameter.values[n * parameter.stride];
}

// Records a spike: for its delivery in the next step and, if wanted, in the packed words.
template <typename T>
INLINE void fire(const Steps<T>& a, const Moment<T>& now, unsigned flat, int trial, int j) {
  if (!now.last) enlist(a.delivery, flat, j, now.list, now.count, now.next_gain);
  if (a.words && j < a.delivery.neurons) {
    const int width = (a.delivery.neurons + 31) / 32;
    atomicOr(a.words + (static_cast<long long>(trial) * a.steps + now.step) * width + j % width, 1u << (j / width));
  }
}

// Firing rate of a neuron at a constant input, 1/ms, by linear interpolation; RateTable in model/network.py.
template <typename T>
INLINE T table_rate(const Steps<T>& a, int n, T drive) {
  const T position = (drive - *a.table_start) / *a.table_step, known = position > 0 ? position : 0;
  const int last = a.nodes - 2, node = known < last ? static_cast<int>(known) : last;
  const T* rates = a.rate_table + static_cast<long long>(a.kind[n]) * a.nodes + node;
  return rates[0] + (rates[1] - rates[0]) * (known - node);
}

// Present value of a process, and the next one.
template <typename T>
INLINE T present(const Process<T>& process, const Moment<T>& now, int n, int count) {
  return __ldcg(process.values + (now.step & 1) * count + n);
}
template <typename T>
INLINE T moved(const Process<T>& process, T value, Key key, int n) {
  return value + process.pull * (process.mean - value) + process.noise * normal<T>(key, n);
}

// Value from a file in step `since`, from 1; row of the last bin if `hold`, else 0 after it.
template <typename T>
INLINE T value_of(const Given<T>& given, int condition, int since, int n, int count, bool hold) {
  int bin = since > 0 ? (since - 1) / given.steps : 0;
  if (bin >= given.bins) {
    if (!hold) return 0;
    bin = given.bins - 1;
  }
  return given.values[(static_cast<long long>(condition) * given.bins + bin) * count + n];
}

// Stimulus of neuron n in a step, and that with which a filtered rate is computed after it: the process has moved on then.
template <typename T>
struct Stimulus {
  T now, after;
};
template <typename T>
INLINE Stimulus<T> stimulate(const Steps<T>& a, const Moment<T>& now, int trial, int n) {
  const int count = a.delivery.neurons;
  if (a.given_stimulus.values) {
    const T value = value_of(a.given_stimulus, *a.condition, now.i - a.stim_on, n, count, false);
    return {value, value};
  }
  const T value = present(a.stimulus, now, n, count);
  T next = value;
  if (trial == 0 || (now.renormalise && a.expected)) {
    const int part = n / a.part;
    next = moved(a.stimulus, value, Key::fold(a.stimulus.key + 2 * part, now.i), n - part * a.part);
  }
  if (trial == 0) a.stimulus.values[((now.step + 1) & 1) * count + n] = next;
  return {value, next};
}

// One step of neuron n.
template <typename T>
INLINE void move_neuron(const Steps<T>& a, const Moment<T>& now, unsigned flat, int trial, int n) {
  const Delivery<T>& d = a.delivery;
  const long long at = static_cast<long long>(trial) * d.neurons + n;
  T* filters = d.filters + static_cast<long long>(trial) * (2 + d.channels) * d.neurons + n;
  // All that is read of a neuron is asked for before the first of it is used: reads that wait for each other cost a multiple.
  const bool has_static = d.post || d.stream, excitatory = has_static && a.class_weight && d.excitatory[n];
  T v = a.v[at], exc = has_static ? __ldcg(filters) : 0, inh = has_static ? __ldcg(filters + d.neurons) : 0;
  T plastic = __ldcg(filters + 2ll * d.neurons), drive = a.bias[n];
  const T rate = of_neuron(a.rate, n), threshold = of_neuron(a.threshold, n);
  const int until = a.until[at];
  T noise = 0;
  if (a.noise) {
    const int part = n / a.part;
    noise = of_neuron(a.noise_scale, n) * normal<T>(Key::fold(a.noise_key + 2 * (trial * a.parts + part), now.i), n - part * a.part);
  }
  exc *= now.decay[0], inh *= now.decay[1], plastic *= now.decay[2];
  if (now.renormalise) {
    if (has_static) filters[0] = exc, filters[d.neurons] = inh;
    filters[2ll * d.neurons] = plastic;
  }
  for (int c = 3; c < 2 + d.channels; ++c) {
    T* filter = filters + static_cast<long long>(c) * d.neurons;
    const T current = __ldcg(filter) * now.decay[c];
    if (now.renormalise) *filter = current;
    plastic += current;
  }
  if (a.class_weight) {
    const int own = excitatory ? 0 : 1;
    exc *= a.class_weight[own], inh *= a.class_weight[2 + own];
  }
  const T u = exc + inh;
  drive += u;
  if (d.w) drive += plastic;
  Stimulus<T> stimulus = {0, 0};
  if (a.stimulated) {
    stimulus = stimulate(a, now, trial, n);
    drive += stimulus.now;
  }
  if (a.noise == 1) v += noise;
  else if (a.noise) drive += noise;
  const bool active = until < now.i;
  if (active) v = v + rate * (drive - v);
  const bool fired = active && v > threshold;
  if (fired) {
    v = of_neuron(a.reset, n);
    a.until[at] = now.i + of_neuron(a.refractory, n);
  }
  a.v[at] = v;
  if (now.renormalise) {
    const T decay = now.decay[filter_of(d, n)];
    d.r[flat] *= decay;
    a.u_sum[at] += (now.row + 1) * (u + plastic);
    if (a.expected) a.expected[at] = decay * a.expected[at] + (1 - decay) * table_rate(a, n, a.bias[n] + (u + plastic) + stimulus.after);
  }
  if (now.last) d.spiked[flat] = fired;
  if (fired) fire(a, now, flat, trial, n);
}

// One step of feed-forward neuron x.
template <typename T>
INLINE void move_feedforward(const Steps<T>& a, const Moment<T>& now, unsigned flat, int trial, int x) {
  const Delivery<T>& d = a.delivery;
  const int count = d.sources - d.neurons, since = now.i - a.stim_off;
  T rate = present(a.rates, now, x, count);
  if (trial == 0) {
    const T next = a.moving && since > 0 ? moved(a.rates, rate, Key::fold(a.rates.key, since), x) : rate;
    a.rates.values[((now.step + 1) & 1) * count + x] = next;
  }
  if (a.given_rates.values) rate = value_of(a.given_rates, *a.condition, since, x, count, true);
  const bool spikes = uniform(Key::fold(a.spike_key + 2 * trial, since).bits(x), T()) < rate * a.seconds;
  const bool fired = spikes && (since > 0 || a.before);
  if (now.renormalise) d.r[flat] *= now.decay[filter_of(d, d.neurons + x)];
  if (now.last) d.spiked[flat] = fired;
  if (fired) fire(a, now, flat, trial, d.neurons + x);
}

// All steps of a call. Spikes of a step are listed, and delivered at the start of the next one.
template <typename T>
INLINE void run_steps(const Steps<T>& a) {
  const Delivery<T>& d = a.delivery;
  const int all = d.trials * d.sources, filters = 2 + d.channels;
  const int before = *a.i;
  unsigned wanted = 0;
  enlist_all(d, d.list, d.count, a.factors + filters);
  grid_barrier(a.barrier, wanted);
  for (int step = 0, row = 0; step < a.steps; ++step) {
    const T *decay = a.factors + row * 2 * filters, *gain = decay + filters;
    deliver_list(d, d.list + (step & 1) * all, d.count + step % 3, gain);
    if (thread_of_grid() == 0) d.count[(step + 2) % 3] = {0, 0, 0};
    grid_barrier(a.barrier, wanted);
    const bool last = step == a.steps - 1, renormalise = last || row == a.block - 1;
    const int next = renormalise ? 0 : row + 1;
    const Moment<T> now = {step, before + step + 1, row, last, renormalise, decay, a.factors + (2 * next + 1) * filters,
                           d.list + ((step + 1) & 1) * all, d.count + (step + 1) % 3};
    for (unsigned flat = thread_of_grid(); flat < static_cast<unsigned>(all); flat += threads_of_grid()) {
      const int trial = flat / d.sources, j = flat - trial * d.sources;
      if (j < d.neurons) move_neuron(a, now, flat, trial, j);
      else move_feedforward(a, now, flat, trial, j - d.neurons);
    }
    if (!last) grid_barrier(a.barrier, wanted);
    row = next;
  }
}

// --- Recursive least squares: a block for a group ---------------------------------------------------------------------

// V neighbouring numbers, which are read and written at once.
template <typename T, int V>
struct alignas(sizeof(T) * V) Vector {
  T of[V];
};
template <int V, typename T>
INLINE Vector<T, V> load(const T* from) {
  return *reinterpret_cast<const Vector<T, V>*>(from);
}
template <int V, typename T>
INLINE void store(T* to, const Vector<T, V>& values) {
  *reinterpret_cast<Vector<T, V>*>(to) = values;
}

// A block's threads as slices x width, where a thread reads V neighbouring columns: first + thread % width of n/V.
struct Slices {
  int width, count, own, column;
  INLINE Slices of(int columns) {
    const int threads = blockDim.x, width = columns < threads ? columns : threads, thread = threadIdx.x;
    return {width, threads / width, thread / width, thread % width};
  }
  __device__ bool has(int column, int columns) const { return own < count && column < columns; }
};

// Sum over slices of `sum`, for the threads of slice 0; all threads of a block have to call it. With several slices there is one pass over
// the columns only, so `partial` is not written again before another barrier.
template <int V, typename T>
INLINE Vector<T, V> over_slices(const Slices& slices, Vector<T, V> sum, T* partial) {
  store<V>(partial + threadIdx.x * V, sum);
  __syncthreads();
  if (slices.own == 0)
    for (int s = 1; s < slices.count; ++s) {
      const Vector<T, V> more = load<V>(partial + (s * slices.width + slices.column) * V);
      for (int c = 0; c < V; ++c) sum.of[c] += more.of[c];
    }
  return sum;
}

// Over all threads of a block, for all of them: sums of two numbers, and whether a condition holds for any.
template <typename T>
struct Total {
  T product, current;
  bool any;
};
template <typename T>
INLINE Total<T> over_block(Total<T> own, T* room) {
  for (int lanes = 16; lanes; lanes /= 2) {
    own.product += __shfl_xor_sync(~0u, own.product, lanes);
    own.current += __shfl_xor_sync(~0u, own.current, lanes);
  }
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32 * 2] = own.product, room[threadIdx.x / 32 * 2 + 1] = own.current;
  Total<T> total = {0, 0, __syncthreads_or(own.any) != 0};
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) total.product += room[2 * warp], total.current += room[2 * warp + 1];
  return total;
}

// Room of a block in shared memory; bytes: handlers.cc, SharedBytes.
template <typename T>
struct Room {
  T *u, *x, *coefficient, *k, *partial, *sums, *dots;  // [Q, padded L] (dense only), 3 x [padded L], [threads*4], [64], [Q]
  int *rows, *votes;                                   // [padded L], [32]
  __device__ Room(T* first, int vectors, int stride, int most) {
    u = first, x = u + vectors * stride, coefficient = x + stride, k = coefficient + stride, partial = k + stride;
    sums = partial + 4 * blockDim.x, dots = sums + 64;
    rows = reinterpret_cast<int*>(dots + padded(most)), votes = rows + stride;
  }
};

// Pending vectors of a group into shared memory; zeros pad each to a multiple of 4.
template <typename T>
INLINE void stage_pending(const T* u, int pending, int inputs, T* room) {
  const int stride = padded(inputs), all = pending * stride;
  constexpr int BATCH = 8;  // reads that do not wait for each other
  for (int first = threadIdx.x; first < all; first += BATCH * blockDim.x) {
    T held[BATCH];
#pragma unroll
    for (int b = 0; b < BATCH; ++b) {
      const int at = first + b * blockDim.x, q = at / stride, l = at - q * stride;
      held[b] = at < all && l < inputs ? u[q * inputs + l] : 0;
    }
#pragma unroll
    for (int b = 0; b < BATCH; ++b)
      if (first + b * static_cast<int>(blockDim.x) < all) room[first + b * blockDim.x] = held[b];
  }
  __syncthreads();
}

// P = factor*(P - sum_q u_q u_q^T) for one group, with u in shared memory; and k = P x, where x is not null. A thread keeps TILE_ROWS x V
// numbers in registers. P stays symmetric to the bit, as the products of (i, j) and (j, i) are the same.
template <typename T, int V>
INLINE void apply_pending(T* P, const T* u, int pending, int inputs, T factor, const T* x, T* k, T* partial) {
  const int stride = padded(inputs), columns = inputs / V;
  const Slices slices = Slices::of(columns);
  for (int first = 0; first < columns; first += slices.width) {
    const int c = (first + slices.column) * V;
    Vector<T, V> sum = {};
    if (slices.has(first + slices.column, columns))
      for (int i = TILE_ROWS * slices.own; i < inputs; i += TILE_ROWS * slices.count) {
        Vector<T, V> p[TILE_ROWS];
#pragma unroll
        for (int d = 0; d < TILE_ROWS; ++d)
          if (i + d < inputs) p[d] = load<V>(P + (i + d) * inputs + c);
#pragma unroll 4
        for (int q = 0; q < pending; ++q) {
          const Vector<T, V> own = load<V>(u + q * stride + c);
#pragma unroll
          for (int d = 0; d < TILE_ROWS; ++d) {
            const T row = u[q * stride + i + d];
#pragma unroll
            for (int n = 0; n < V; ++n) p[d].of[n] = fma(-row, own.of[n], p[d].of[n]);
          }
        }
#pragma unroll
        for (int d = 0; d < TILE_ROWS; ++d)
          if (i + d < inputs) {
            for (int n = 0; n < V; ++n) p[d].of[n] *= factor;
            store<V>(P + (i + d) * inputs + c, p[d]);
            if (x)
              for (int n = 0; n < V; ++n) sum.of[n] = fma(p[d].of[n], x[i + d], sum.of[n]);
          }
      }
    if (!x) continue;
    sum = over_slices<V>(slices, sum, partial);
    if (slices.own == 0 && c < inputs) store<V>(k + c, sum);
  }
  __syncthreads();
}

// k = decay*g + factor*(P s - sum_q u_q (u_q.s)) for one group, where s has few entries: it needs the rows of P of inputs that spiked.
template <typename T, int V>
INLINE void sparse_product(const T* P, const T* u, const T* g, int n_rows, int pending, int inputs, T factor, T decay, const Room<T>& room) {
  const int lane = threadIdx.x % 32, columns = inputs / V;
  for (int q = threadIdx.x / 32; q < pending; q += blockDim.x / 32) {
    T sum = 0;
    for (int t = lane; t < n_rows; t += 32) sum = fma(u[q * inputs + room.rows[t]], room.coefficient[t], sum);
    for (int lanes = 16; lanes; lanes /= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    if (lane == 0) room.dots[q] = sum;
  }
  __syncthreads();
  const Slices slices = Slices::of(columns);
  for (int first = 0; first < columns; first += slices.width) {
    const int c = (first + slices.column) * V;
    Vector<T, V> sum = {}, last = {};
    if (slices.has(first + slices.column, columns)) {
      if (slices.own == 0) last = load<V>(g + c);
#pragma unroll 4
      for (int t = slices.own; t < n_rows; t += slices.count) {
        const Vector<T, V> row = load<V>(P + room.rows[t] * inputs + c);
        for (int n = 0; n < V; ++n) sum.of[n] = fma(room.coefficient[t], row.of[n], sum.of[n]);
      }
#pragma unroll 4
      for (int q = slices.own; q < pending; q += slices.count) {
        const Vector<T, V> row = load<V>(u + q * inputs + c);
        for (int n = 0; n < V; ++n) sum.of[n] = fma(-room.dots[q], row.of[n], sum.of[n]);
      }
    }
    sum = over_slices<V>(slices, sum, room.partial);
    if (slices.own == 0 && c < inputs)
      for (int n = 0; n < V; ++n) room.k[c + n] = fma(factor, sum.of[n], decay * last.of[n]);
  }
  __syncthreads();
}

// Filtered spikes x of a group's inputs (to be read after a barrier) and, for the sparse product, the inputs that spiked, in order; returns
// the number of those.
template <typename T>
INLINE int gather(const Learn<T>& a, const int* pre, bool sparse, const Room<T>& room) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int n_rows = 0;
  for (int first = 0; first < a.inputs; first += blockDim.x) {
    const int l = first + threadIdx.x;
    T s = 0;
    if (l < a.inputs) {
      const int j = pre[l];
      const T x = j < 0 ? 0 : a.r[j];
      if (sparse && j >= 0) s = a.arrived[j];
      room.x[l] = x;
    }
    if (!sparse) continue;
    const unsigned votes = __ballot_sync(~0u, s != 0);
    if (lane == 0) room.votes[warp] = __popc(votes);
    __syncthreads();
    int place = n_rows + __popc(votes & ((1u << lane) - 1));
    for (unsigned w = 0; w < blockDim.x / 32; ++w) {
      if (w < warp) place += room.votes[w];
      n_rows += room.votes[w];
    }
    if (s != 0) room.rows[place] = l, room.coefficient[place] = s;
    __syncthreads();
  }
  return n_rows;
}

// w of a group of several neurons after the update: w -= step*k*error of each neuron that is trained.
template <typename T>
INLINE void change_group(T* w, const T* residual, int members, int size, int inputs, const Room<T>& room, T step) {
  const Slices slices = Slices::of(members);
  for (int first = 0; first < members; first += slices.width) {
    const int s = first + slices.column;
    const bool here = slices.has(s, members);
    Vector<T, 1> error = {0};
    if (here)
      for (int l = slices.own; l < inputs; l += slices.count) error.of[0] = fma(w[static_cast<long long>(l) * size + s], room.x[l], error.of[0]);
    error = over_slices<1>(slices, error, room.partial);
    if (slices.own == 0 && here) room.partial[slices.column] = error.of[0] + residual[s];
    __syncthreads();
    const T e = here ? room.partial[slices.column] : 0;
    if (here && e == e)  // not NaN
      for (int l = slices.own; l < inputs; l += slices.count) w[static_cast<long long>(l) * size + s] -= step * room.k[l] * e;
  }
}

// One update of all groups; see deferred.learn_in_place. DENSE: pending updates are applied to P, and k = P x; else the sparse product.
// Both are launched one after the other, and each returns at once if it is not its turn.
template <typename T, int V, bool DENSE>
INLINE void learn(const Learn<T>& a, T* shared) {
  if (*a.refresh != DENSE) return;
  const int pending = *a.count, place = DENSE ? 0 : pending;
  const T forgetting = *a.forgetting;
  const Room<T> room(shared, DENSE ? a.most : 0, padded(a.inputs), a.most);
  for (int group = blockIdx.x; group < a.groups; group += gridDim.x) {
    const long long row = static_cast<long long>(group) * a.inputs;
    T *P = a.P + row * a.inputs, *u = a.u + row * a.most, *g = a.g + row, *w = a.w + row * a.size;
    const int first = group * a.size, members = a.neurons - first < a.size ? a.neurons - first : a.size;
    const T* residual = a.residual + first;
    T factor = a.factor[group];
    const int n_rows = gather(a, a.pre + row, !DENSE, room);
    if (DENSE) {
      stage_pending(u, pending, a.inputs, room.u);
      apply_pending<T, V>(P, room.u, pending, a.inputs, factor, room.x, room.k, room.partial);
      factor = 1;
    } else {
      sparse_product<T, V>(P, u, g, n_rows, pending, a.inputs, factor, *a.decay, room);
    }
    Total<T> own = {0, 0, false};
    for (int l = threadIdx.x; l < a.inputs; l += blockDim.x) {
      own.product = fma(room.x[l], room.k[l], own.product);
      if (a.size == 1) own.current = fma(w[l], room.x[l], own.current);
    }
    for (int s = threadIdx.x; s < members; s += blockDim.x) own.any |= residual[s] == residual[s];  // not NaN
    const Total<T> total = over_block(own, room.sums);
    const bool on = total.any && a.flags[1];
    const T den = 1 / (forgetting + total.product), root = on ? sqrt(den / factor) : 0, kept = on ? den : 1, step = a.flags[0] ? den : 1;
    for (int l = threadIdx.x; l < a.inputs; l += blockDim.x) {
      g[l] = kept * room.k[l];
      u[place * a.inputs + l] = root * room.k[l];
      if (a.size == 1 && on) w[l] -= room.k[l] * (step * (total.current + residual[0]));
    }
    if (threadIdx.x == 0) a.factor[group] = on ? factor / forgetting : factor;
    if (a.size > 1 && on) change_group(w, residual, members, a.size, a.inputs, room, step);
  }  // what the next group writes before its first barrier, nobody reads any more
}

// P of all groups after their pending updates.
template <typename T, int V>
INLINE void flush(const Learn<T>& a, T* shared) {
  const int pending = *a.count;
  for (int group = blockIdx.x; group < a.groups; group += gridDim.x) {
    const long long row = static_cast<long long>(group) * a.inputs;
    stage_pending(a.u + row * a.most, pending, a.inputs, shared);
    apply_pending<T, V>(a.P + row * a.inputs, shared, pending, a.inputs, a.factor[group], nullptr, nullptr, nullptr);
  }
}

// --- Entry points -----------------------------------------------------------------------------------------------------

#define ENTRY(name, Arguments, threads, blocks, body) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name(Arguments a) { body; }
// Threads of a block, and blocks on a processor: of learn_sparse many, because its reads wait for each other.
#define ENTRIES_OF_LEARNING(suffix, T, V)                                                                                  \
  ENTRY(learn_dense_##suffix##_##V, Learn<T>, 256, 16 / sizeof(T), SHARED(T, room); (learn<T, V, true>(a, room)))          \
  ENTRY(learn_sparse_##suffix##_##V, Learn<T>, 128, 48 / sizeof(T), SHARED(T, room); (learn<T, V, false>(a, room)))        \
  ENTRY(flush_##suffix##_##V, Learn<T>, 256, 16 / sizeof(T), SHARED(T, room); (flush<T, V>(a, room)))
#define ENTRIES(suffix, T)                                                                                                 \
  ENTRY(steps_##suffix, Steps<T>, 512, 2, run_steps(a))                                                                    \
  ENTRY(enlist_##suffix, Delivery<T>, 512, 2, enlist_all(a, a.list, a.count, a.gain))                                      \
  ENTRY(deliver_##suffix, Delivery<T>, 512, 2, deliver_list(a, a.list, a.count, a.gain))                                   \
  ENTRIES_OF_LEARNING(suffix, T, 1)                                                                                        \
  ENTRIES_OF_LEARNING(suffix, T, 2)
ENTRIES(f32, float)
ENTRIES_OF_LEARNING(f32, float, 4)
ENTRIES(f64, double)

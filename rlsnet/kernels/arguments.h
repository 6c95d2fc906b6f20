// Arguments of the kernels, native or CUDA: one of these structs for each kernel. ffi_arrays.h fills them.
// Dimension letters as everywhere: N neurons, X feed-forward neurons, B trials side by side, G groups of S neurons with L inputs each,
// T time constants of plastic inputs, Q pending updates, Z networks that are computed as parts of one (model/joined.py). A pointer is null where the network has no such array.
#pragma once

// Spikes on their way from the step in which they are found to the step in which they are delivered.
struct SpikeCount {
  unsigned narrow, wide;  // neurons with at most MOST_NARROW targets, and with more
  unsigned most;          // most targets of a narrow one
};

// Delivery of spikes: the filters change at the targets, r and n_delivered at the source.
template <typename T>
struct Delivery {
  int neurons, sources, trials;     // N, N+X or with delays a multiple of it, B
  int own;                          // N+X: r and n_delivered; sources beyond have static synapses only, those of one delay
  int inputs, size, channels;       // L, S, T
  const unsigned char* excitatory;  // [N]
  const int *indptr, *post;         // [sources+1], [edges]; post is null without stored static synapses
  const T* weight;                  // [edges], or null: 1
  const unsigned* stream;           // [2] key of procedural synapses
  unsigned rows, columns;           // the grid of their permutation; see drawn_target
  const int *out_indptr, *out_slot, *channel;  // [N+X+1], [slots], [N+X]
  const T* w;                       // [G, L, S]
  T *filters, *r;                   // [B, 2+T, N], [B, N+X]
  int* n_delivered;                 // [B, N+X]
  unsigned char* spiked;            // [B, sources]
  const T* gain;                    // [2+T] of the delivery alone; `steps` has one for each row of its block
  int* list;                        // [2, B*sources] flat numbers of sources that spiked: narrow ones from the front, wide ones from the end
  SpikeCount* count;                // [3]
};

// Values of all neurons: one number, or one for each.
template <typename T>
struct PerNeuron {
  const T* values;
  int stride;  // 0 or 1
};

// An Ornstein-Uhlenbeck process x <- x + pull*(mean - x) + noise*xi, whose value in a step all trials of a condition share: trial 0 moves it.
template <typename T>
struct Process {
  const unsigned* key;  // [Z, 2]
  T* values;            // [2, n] in turn: of this step, and of the next one
  T mean, pull, noise;
};

// Values from a file, one row for each bin of so many steps, in place of a process.
template <typename T>
struct Given {
  const T* values;  // [C, bins, n]
  int bins, steps;
};

// Poisson spikes from outside of the network: sums of so many numbers, each the number of limits below a uniform random number.
template <typename T>
struct Background {
  const unsigned* key;  // [B, Z, 2]
  const T* limits;      // [most, N] probabilities of at most 0, 1, ... spikes; null: no background
  int most, draws;
  PerNeuron<T> gain;  // of the current, by a spike
  T decay;            // of the current in a step
  T* current;         // [B, N]
};

// Time steps of LIF neurons and feed-forward neurons, without perturbation.
template <typename T>
struct Steps {
  Delivery<T> delivery;
  int steps, block;                                   // steps of this call, and between two renormalisations of the filters
  const int* i;                                       // [1] steps done before
  PerNeuron<T> rate, threshold, reset, noise_scale;   // rate: dt/tau_m
  PerNeuron<int> refractory;                          // steps
  int noise;                                          // 0: none, 1: of the voltage, 2: a current
  const unsigned* noise_key;                          // [B, Z, 2]
  int parts, part;                                    // Z, and the neurons of a part, N/Z, whose random numbers count from 0
  const T *bias, *class_weight;                       // [N], [2, 2]
  const T* factors;                                   // [block, 2*(2+T)] decay and then gain of the filters
  T *v, *u_sum;                                       // [B, N]
  int* until;                                         // [B, N]
  T* expected;                                        // [B, N] filtered rates
  const T *rate_table, *table_start, *table_step;     // [kinds, nodes], [1], [1]
  const int* kind;                                    // [N] row of rate_table
  int nodes;
  const int* condition;                               // [1]
  bool stimulated;                                    // whether the stimulus is on
  int stim_on, stim_off;                              // steps
  Process<T> stimulus, rates;                         // n = N, threshold units; n = X, Hz, of feed-forward neurons
  Given<T> given_stimulus, given_rates;
  const unsigned* spike_key;                          // [B, 2] of feed-forward neurons
  bool before, moving;                                // whether they spike before stim_off; whether their rates are a process
  T seconds;                                          // dt/1000
  unsigned* words;                                    // [B, steps, ceil(N/32)] packed spikes
  int rows;                                           // D, steps of the longest delay; 0: all delays are one step
  unsigned char* ring;                                // [B, D, N+X] spikes of the last D steps: those of step s in row s % D
  int* fired;                                         // [B, N+X] spikes of the trial so far, with a ring
  const int* delays;                                  // [2+K] steps: of excitatory and of inhibitory neurons, and of the K static delays
  int delay_count;                                    // 2+K
  const bool* early;                                  // [1] whether the spikes that act in the first step are delivered already
  Background<T> background;
  unsigned* barrier;                                  // [1]
};

// One update of recursive least squares, or the application of pending updates to P.
template <typename T>
struct Learn {
  int groups, inputs, size, neurons, sources, most;  // sources: N+X; most: Q
  const bool *flags, *refresh;              // [2] textbook, apply; [1]
  const int* count;                         // [1] pending updates
  const T *decay, *forgetting;              // [1], [1]
  const T *r, *arrived, *residual;          // [N+X], [N+X], [N]
  const int* pre;                           // [G, L]
  T *P, *w, *u, *factor, *g;                // [G, L, L], [G, L, S], [G, Q, L], [G], [G, L]
};

constexpr unsigned MOST_NARROW = 2048;  // targets of a spike that warps share out; a spike with more goes to all threads
constexpr int TILE_ROWS = 4;            // rows of P that a thread keeps in registers

#ifdef __CUDACC__
__host__ __device__
#endif
constexpr int padded(int n) {  // length in shared memory of a vector of n numbers: a multiple of TILE_ROWS, and of what is read at once
  return (n + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
}

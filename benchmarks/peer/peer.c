/* The program that rlsnet is timed against on a CPU: the published algorithm (recursive least squares for each neuron of a balanced
 * network of leaky integrate-and-fire neurons, Arthur et al. 2023) in plain C, with OpenMP over neurons and OpenBLAS for the covariance
 * (ssymv and ssyr, or sspmv and sspr for packed storage). See run.sh for its arguments.
 *
 * Prints a line for each iteration: seconds, seconds in the updates, mean rates, correlation of current and target. Iteration 0
 * of `sinusoid` has no plastic input; it measures the mean currents that the targets are centred on.
 *
 * Names as in rlsnet: N neurons, half of them excitatory; K static inputs of each class; L plastic inputs, half of each class; P
 * covariance of the inputs; r filtered spikes; u currents; v voltages. Times in steps of 0.1 ms. */
#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#undef I

enum { STIM_ON = 8000, STIM_OFF = 10000, STRIDE = 4096 };
static const float DT = 0.1f;

extern void openblas_set_num_threads(int);
typedef unsigned long long u64;

static int N, n_exc, K, L, out_degree, packed, mouse;
static int n_steps, every, n_points;                 /* steps of a trial, steps between updates, updates of a trial */
static float lambda, mu, sigma;                      /* penalties, voltage noise a step */
static float W[4], bias_inh;                         /* static weights E<-E, I<-E, E<-I, I<-I; external input of I */
static int *post;                                    /* [N, out_degree] targets of static synapses */
static int *pre, *start, *out_neuron, *position;     /* [N, L] senders; outputs by sender: [N + 1], [N * L]; place of a weight there */
static float *w, *out_w;                             /* [N, L] plastic weights; the same by sender */
static float *P, *stimulus, *target, *current;       /* [N, PS]; [steps, N]; [n_points, N] both */
static size_t PS;                                    /* numbers of a neuron's P */
static float *mean_u, *phase, *u_exc, *u_inh, *u_plas, *u_bal, *r, *v, *u_sum;            /* [N] */
static float *in_exc, *in_inh, *in_plas, *arrived_exc, *arrived_inh, *arrived_plas, *spiked, *spiked_before; /* [N] of a step */
static int *last_spike;                              /* [N] step */
static float *r_rows, *k_rows;                       /* [threads, STRIDE] inputs of a neuron, P times them */

static u64 seed = 20231;

static inline u64 splitmix(u64 x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

static double uniform(void) { return (splitmix(seed++) >> 11) * (1.0 / 9007199254740992.0); }

static double normal(void) {
  double u = uniform(), z = uniform();
  return sqrt(-2 * log(u + 1e-300)) * cos(6.283185307179586 * z);
}

/* The sum of 8 bytes, close enough to a normal number for the voltage noise, and cheaper. */
static inline float noise(u64 h) {
  int sum = 0;
  for (int b = 0; b < 8; b++) sum += (h >> (8 * b)) & 255;
  return (sum - 1020) * (1.0f / 209.0f);
}

static void *array(size_t n, size_t size) {
  void *p = calloc(n, size);
  if (!p) {
    fprintf(stderr, "out of memory: %zu bytes\n", n * size);
    exit(1);
  }
  return p;
}

/* Static synapses: for each neuron, distinct targets at random (the start of a Fisher-Yates shuffle). */
static void draw_static(void) {
  int *order = array(N, sizeof(int));
  post = array((size_t)N * (out_degree + 1), sizeof(int));
  for (int i = 0; i < N; i++) order[i] = i;
  for (int i = 0; i < N; i++)
    for (int k = 0; k < out_degree; k++) {
      int q = k + splitmix(seed++) % (N - k), other = order[k];
      order[k] = order[q], order[q] = other;
      post[(size_t)i * out_degree + k] = order[k];
    }
  free(order);
}

/* Plastic synapses: senders of each neuron, and the same by sender for delivery. */
static void draw_plastic(void) {
  size_t n = (size_t)N * L;
  int *filled = array(N, sizeof(int));
  float weight = 20 / (2 * sqrtf(L / 2));
  pre = array(n, sizeof(int)), out_neuron = array(n, sizeof(int)), position = array(n, sizeof(int)), start = array(N + 1, sizeof(int));
  w = array(n, sizeof(float)), out_w = array(n, sizeof(float));
  for (size_t i = 0; i < n; i++) {
    int excitatory = (int)(i % L) < L / 2;
    pre[i] = (excitatory ? 0 : n_exc) + splitmix(seed++) % n_exc;
    w[i] = excitatory ? weight : -weight;
    start[pre[i] + 1]++;
  }
  for (int i = 0; i < N; i++) start[i + 1] += start[i];
  for (size_t i = 0; i < n; i++) {
    int q = start[pre[i]] + filled[pre[i]]++;
    out_neuron[q] = i / L, out_w[q] = w[i], position[i] = q;
  }
  free(filled);
}

/* P of each neuron: the inverse of lambda on the diagonal plus mu between all inputs of a class. */
static void init_P(void) {
  float b = -mu / (lambda * (lambda + L / 2 * mu)), a = 1 / lambda + b;
  PS = packed ? (size_t)L * (L + 1) / 2 : (size_t)L * L;
  P = malloc(sizeof(float) * PS * N); /* touched first by the thread that updates it */
  if (!P) exit(1);
#pragma omp parallel for
  for (int i = 0; i < N; i++) {
    float *p = P + PS * i;
    for (int column = 0; column < L; column++)
      for (int row = 0; row < (packed ? column + 1 : L); row++)
        *p++ = row == column ? a : (row < L / 2) == (column < L / 2) ? b : 0;
  }
}

/* An Ornstein-Uhlenbeck process for each neuron, the same in each trial. */
static void draw_stimulus(void) {
  stimulus = array((size_t)(STIM_OFF - STIM_ON) * N, sizeof(float));
  for (int t = 0; t < STIM_OFF - STIM_ON - 1; t++)
    for (int c = 0; c < N; c++) {
      size_t q = (size_t)t * N + c;
      stimulus[q + N] = stimulus[q] * (1 - DT / 20) + .2f * sqrtf(DT) * normal();
    }
}

static void allocate_state(void) {
  float **arrays[] = {&mean_u, &phase, &u_exc, &u_inh, &u_plas, &u_bal, &r, &v, &u_sum, &in_exc, &in_inh, &in_plas,
                      &arrived_exc, &arrived_inh, &arrived_plas, &spiked, &spiked_before};
  for (size_t i = 0; i < sizeof(arrays) / sizeof(*arrays); i++) *arrays[i] = array(N, sizeof(float));
  target = array((size_t)n_points * N, sizeof(float)), current = array((size_t)n_points * N, sizeof(float));
  last_spike = array(N, sizeof(int));
  r_rows = array((size_t)omp_get_max_threads() * STRIDE, sizeof(float));
  k_rows = array((size_t)omp_get_max_threads() * STRIDE, sizeof(float));
  for (int i = 0; i < N; i++) phase[i] = 1000 * uniform();
}

/* Sinusoids of a period of one second and random phase. */
static void make_targets(void) {
  for (int m = 0; m < n_points; m++)
    for (int c = 0; c < N; c++)
      target[(size_t)m * N + c] =
          .5f * sinf(((STIM_OFF + (m + 1) * every) * DT - phase[c]) * 6.2831853f / 1000) + (mouse ? -.2f : mean_u[c]);
}

static void start_trial(void) {
  float *zeroed[] = {arrived_exc, arrived_inh, arrived_plas, u_exc, u_inh, u_plas, r, spiked_before, u_sum};
  for (size_t i = 0; i < sizeof(zeroed) / sizeof(*zeroed); i++) memset(zeroed[i], 0, sizeof(float) * N);
  for (int c = 0; c < N; c++) v[c] = normal(), last_spike[c] = -1000;
}

/* One RLS update of all neurons towards learning point m; returns its seconds. */
static double learn(int m) {
  double begin = omp_get_wtime();
#pragma omp parallel for schedule(static)
  for (int c = 0; c < N; c++) {
    float *x = r_rows + STRIDE * omp_get_thread_num(), *k = k_rows + STRIDE * omp_get_thread_num(), *p = P + PS * c, *wc = w + (size_t)c * L;
    int *senders = pre + (size_t)c * L;
    for (int l = 0; l < L; l++) x[l] = r[senders[l]];
    if (packed) cblas_sspmv(CblasColMajor, CblasUpper, L, 1, p, x, 1, 0, k, 1);
    else cblas_ssymv(CblasColMajor, CblasUpper, L, 1, p, L, x, 1, 0, k, 1);
    float scale = 1 / (1 + cblas_sdot(L, x, 1, k, 1));
    if (packed) cblas_sspr(CblasColMajor, CblasUpper, L, -scale, k, 1, p);
    else cblas_ssyr(CblasColMajor, CblasUpper, L, -scale, k, 1, p, L);
    float error = cblas_sdot(L, wc, 1, x, 1) + u_bal[c] - target[(size_t)m * N + c];
    for (int l = 0; l < L; l++) wc[l] -= error * scale * k[l];
    current[(size_t)m * N + c] = u_sum[c] / every;
    u_sum[c] = 0;
  }
  for (size_t i = 0; i < (size_t)N * L; i++) out_w[position[i]] = w[i];
  return omp_get_wtime() - begin;
}

/* One step of all neurons; counts the spikes of both classes. */
static void move(int iteration, int i, long *spikes_exc, long *spikes_inh) {
  int calibration = iteration == 0;
  long exc = 0, inh = 0;
#pragma omp parallel for schedule(static) reduction(+ : exc, inh)
  for (int c = 0; c < N; c++) {
    u_exc[c] += (-DT * u_exc[c] + arrived_exc[c]) / 3;
    u_inh[c] += (-DT * u_inh[c] + arrived_inh[c]) / 3;
    u_bal[c] = u_exc[c] + u_inh[c];
    float u = u_bal[c];
    if (calibration) {
      if (i > n_steps / 2) mean_u[c] += u / (n_steps - n_steps / 2);
    } else {
      u_plas[c] += (-DT * u_plas[c] + arrived_plas[c]) / 150;
      u += u_plas[c];
      r[c] += (-DT * r[c] + spiked_before[c]) / 150;
      if (i > STIM_OFF) u_sum[c] += u;
    }
    float external = c < n_exc ? 1.5f * bias_inh : bias_inh;
    if (!calibration && i > STIM_ON && i < STIM_OFF) external += stimulus[(size_t)(i - STIM_ON - 1) * N + c];
    if (sigma > 0) v[c] += sigma * noise(splitmix(((u64)iteration << 48) + (u64)i * N + c));
    if (i - last_spike[c] > 1) {
      v[c] += DT * .1f * (external + u - v[c]);
      if (v[c] > 1) {
        v[c] = 0, spiked[c] = 1, last_spike[c] = i;
        if (c < n_exc) exc++;
        else inh++;
      }
    }
  }
  *spikes_exc += exc, *spikes_inh += inh;
}

/* Sends the spikes of step i to their targets. */
static void deliver(int i, int plastic) {
  for (int c = 0; c < N; c++) {
    if (last_spike[c] != i) continue;
    int *targets = post + (size_t)c * out_degree;
    float *to = c < n_exc ? in_exc : in_inh, to_exc = c < n_exc ? W[0] : W[2], to_inh = c < n_exc ? W[1] : W[3];
    for (int k = 0; k < out_degree; k++) to[targets[k]] += targets[k] < n_exc ? to_exc : to_inh;
    if (plastic)
      for (int k = start[c]; k < start[c + 1]; k++) in_plas[out_neuron[k]] += out_w[k];
  }
  memcpy(arrived_exc, in_exc, sizeof(float) * N), memcpy(arrived_inh, in_inh, sizeof(float) * N);
  memcpy(arrived_plas, in_plas, sizeof(float) * N), memcpy(spiked_before, spiked, sizeof(float) * N);
}

/* Mean correlation of target and current, averaged over a window of 1 s, over every 16th neuron. */
static double correlation(void) {
  double sum = 0;
  int half = 50 / (every / 10);
  for (int c = 0; c < N; c += 16) {
    double sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
    for (int m = 0; m < n_points; m++) {
      double x = target[(size_t)m * N + c], y = 0;
      int n = 0;
      for (int q = m - half; q <= m + half; q++)
        if (q >= 0 && q < n_points) y += current[(size_t)q * N + c], n++;
      y /= n;
      sx += x, sy += y, sxx += x * x, syy += y * y, sxy += x * y;
    }
    sum += (sxy - sx * sy / n_points) / sqrt((sxx - sx * sx / n_points) * (syy - sy * sy / n_points) + 1e-30);
  }
  return sum / ((N + 15) / 16);
}

/* One trial; returns its seconds. */
static double run_iteration(int iteration) {
  long exc = 0, inh = 0;
  double begin = omp_get_wtime(), learning = 0;
  if (iteration == 1) make_targets();
  start_trial();
  for (int i = 1; i <= n_steps; i++) {
    float *zeroed[] = {in_exc, in_inh, in_plas, spiked};
    for (int a = 0; a < 4; a++) memset(zeroed[a], 0, sizeof(float) * N);
    if (iteration && i > STIM_OFF && i % every == 0) learning += learn((i - STIM_OFF) / every - 1);
    move(iteration, i, &exc, &inh);
    deliver(i, iteration > 0);
  }
  double score = iteration ? correlation() : 0, trial = n_steps * 1e-4, seconds = omp_get_wtime() - begin;
  printf("iteration %d seconds %.3f rls %.3f rate_exc %.3f rate_inh %.3f correlation %.4f\n", iteration, seconds, learning,
         exc / (double)n_exc / trial, inh / (double)(N - n_exc) / trial, score);
  fflush(stdout);
  return seconds;
}

int main(int argc, char **argv) {
  if (argc < 7 || argc > 8 || atoi(argv[3]) < 1 || 2 * atoi(argv[3]) > STRIDE) {
    fprintf(stderr, "expected N K L/2 ITERATIONS PACKED SCENARIO [SECONDS]; see run.sh\n");
    return 2;
  }
  N = atoi(argv[1]), K = atoi(argv[2]), L = 2 * atoi(argv[3]), packed = atoi(argv[5]), mouse = !strcmp(argv[6], "mouse");
  n_exc = N / 2, out_degree = 2 * K, n_steps = mouse ? 40000 : 20000, every = mouse ? 200 : 100;
  n_points = (n_steps - STIM_OFF) / every;
  lambda = mouse ? 0.04f : 0.8f, mu = mouse ? 0.0f : 0.01f, sigma = mouse ? 0.65f * sqrtf(0.1f / 10) : 0;
  float J = K ? 20 / sqrtf(K) : 0, weights[4] = {.15f * J, J, -.75f * J, -J};
  memcpy(W, weights, sizeof(W));
  bias_inh = 0.08f * sqrtf(K);
  openblas_set_num_threads(1);
  draw_static();
  draw_plastic();
  init_P();
  draw_stimulus();
  allocate_state();
  double limit = argc > 7 ? atof(argv[7]) : INFINITY, taken = 0;
  for (int iteration = mouse ? 1 : 0; iteration <= atoi(argv[4]) && taken < limit; iteration++) {
    double seconds = run_iteration(iteration);
    if (iteration) taken += seconds;
  }
  return 0;
}

/* The least time that this machine needs for the memory accesses of rlsnet: what an ideal program could reach. C with OpenMP.
 *
 *     floor PROBE...     prints, as JSON, ns a unit on one core and on all cores for each probe, the best of several repetitions
 *
 *     pass=BYTES                         an array of this size is read and written in sequence; a unit is a byte, read or written
 *     read=BYTES                         the same, only read
 *     rows=BYTES,ROWS,GROUPS,SHARE       rows of P: of the ROWS rows of each group, a random share is read, one group after the other;
 *                                        rows have BYTES bytes, a multiple of 64; a unit is a byte
 *     adds=TARGETS,RUN,RUNS              static delivery: 1 is added to random targets, in RUNS runs (spikes) of RUN synapses, whose
 *                                        targets ascend and are read in sequence; a unit is an addition
 *     weighted=GROUPS,L,S,RUN,RUNS       plastic delivery: RUN random slots of the GROUPS*L are read in sequence for each of RUNS spikes,
 *                                        and the S weights w[slot] are added to the S currents of the group slot / L; a unit is an addition
 *
 * All accesses are independent of each other, and fetched ahead if that is faster. On all cores, each core has its own part of
 * the array, and of the targets of each run. Needs no more than 2 GB. */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPETITIONS = 7, LEAST_BYTES = 1 << 28, LINE = 64, LANES = LINE / 4 };
static const int64_t MOST_BYTES = (int64_t)1 << 31, MOST_INDICES = (int64_t)1 << 26;

/* What a probe works on; `list` has the elements of all threads one after the other, those of thread t from first[t]. */
typedef struct {
  uint32_t *data, *list;
  float *w, *into;
  int64_t n, row, size, rounds, *first; /* row: words of a row; size: S */
  double per_input;                     /* 1/L */
  int ahead;                            /* elements to fetch ahead */
} Work;

static volatile uint32_t sink;

static uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

/* A random number in [0, 1) for a counter. */
static double uniform(uint64_t counter) { return (mix(counter * 0x9E3779B97F4A7C15ull + 1) >> 11) * 0x1p-53; }

static void *array(int64_t bytes) {
  char *p = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
  if (!p) {
    fprintf(stderr, "out of memory: %lld bytes\n", (long long)bytes);
    exit(1);
  }
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < (bytes + LINE - 1) / LINE; i++) memset(p + i * LINE, 0, LINE);
  return p;
}

static void pass(const Work *a, int64_t begin, int64_t end) {
  for (int64_t round = 0; round < a->rounds; round++) {
    for (int64_t i = begin; i < end; i++) a->data[i] += 1;
    __asm__ volatile("" ::: "memory");
  }
}

static void read_all(const Work *a, int64_t begin, int64_t end) {
  uint32_t sum = 0;
  for (int64_t round = 0; round < a->rounds; round++) {
    for (int64_t i = begin; i < end; i++) sum += a->data[i];
    __asm__ volatile("" ::: "memory");
  }
  sink = sum;
}

static void rows(const Work *a, int64_t begin, int64_t end) {
  uint32_t sum[LANES] = {0};
  for (int64_t i = begin; i < end; i++) {
    const uint32_t *row = a->data + (int64_t)a->list[i] * a->row;
    if (a->ahead && i + a->ahead < end)
      for (int64_t l = 0; l < a->row; l += LANES) __builtin_prefetch(a->data + (int64_t)a->list[i + a->ahead] * a->row + l);
    for (int64_t l = 0; l < a->row; l += LANES)
      for (int lane = 0; lane < LANES; lane++) sum[lane] += row[l + lane];
  }
  for (int lane = 0; lane < LANES; lane++) sink += sum[lane];
}

static void adds(const Work *a, int64_t begin, int64_t end) {
  if (a->ahead) {
    for (int64_t i = begin; i < end; i++) {
      __builtin_prefetch(a->into + a->list[i + a->ahead < end ? i + a->ahead : i], 1);
      a->into[a->list[i]] += 1;
    }
    return;
  }
  for (int64_t i = begin; i < end; i++) a->into[a->list[i]] += 1;
}

static void weighted(const Work *a, int64_t begin, int64_t end) {
  const int64_t size = a->size;
  for (int64_t i = begin; i < end; i++) {
    const uint32_t slot = a->list[i];
    if (a->ahead && i + a->ahead < end)
      for (int64_t s = 0; s < size; s += LANES) __builtin_prefetch(a->w + a->list[i + a->ahead] * size + s);
    const float *w = a->w + slot * size;
    float *into = a->into + (int64_t)(slot * a->per_input) * size;
    for (int64_t s = 0; s < size; s++) into[s] += w[s];
  }
}

/* ns of `run` for all elements, the best of several repetitions; with a list, each thread has the elements of its targets. */
static double nanoseconds(const Work *a, int threads, void (*run)(const Work *, int64_t, int64_t)) {
  double best = INFINITY, start = 0;
  for (int repetition = 0; repetition < REPETITIONS; repetition++) {
#pragma omp parallel num_threads(threads)
    {
      const int t = omp_get_thread_num();
      const int64_t begin = threads > 1 && a->first ? a->first[t] : a->n * t / threads;
      const int64_t end = threads > 1 && a->first ? a->first[t + 1] : a->n * (t + 1) / threads;
#pragma omp barrier
#pragma omp master
      start = omp_get_wtime();
      run(a, begin, end);
    }
    const double taken = omp_get_wtime() - start;
    if (taken < best) best = taken;
  }
  return best * 1e9;
}

static void report(Work *a, const char *probe, double units, const int *aheads, void (*run)(const Work *, int64_t, int64_t)) {
  double best[2] = {INFINITY, INFINITY};
  for (int i = 0; i == 0 || aheads[i]; i++)
    for (int all = 0; all < 2; all++) {
      a->ahead = aheads[i];
      best[all] = fmin(best[all], nanoseconds(a, all ? omp_get_max_threads() : 1, run) / units);
    }
  printf(",\n \"%s\": {\"one\": %.5g, \"all\": %.5g}", probe, best[0], best[1]);
  fflush(stdout);
  free(a->data), free(a->list), free(a->w), free(a->into), free(a->first);
}

/* Elements of runs that ascend within a run: random numbers below `most`. */
static void draw_runs(Work *a, int64_t most, int64_t run, int64_t runs) {
  if (run * runs > MOST_INDICES) runs = MOST_INDICES / run;
  a->n = run * runs;
  a->list = array(4 * a->n);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < a->n; i++) a->list[i] = (uint32_t)((i % run + uniform(i)) * most / run);
}

/* The same list for threads that each have their own range of the numbers below `most`. */
static void by_thread(Work *a, int64_t most) {
  const int threads = omp_get_max_threads();
  uint32_t *sorted = array(4 * a->n);
  a->first = array(8 * (threads + 1));
  for (int64_t i = 0; i < a->n; i++) a->first[1 + a->list[i] * threads / most]++;
  for (int t = 0; t < threads; t++) a->first[t + 1] += a->first[t];
  int64_t *next = array(8 * threads);
  memcpy(next, a->first, 8 * threads);
  for (int64_t i = 0; i < a->n; i++) sorted[next[a->list[i] * threads / most]++] = a->list[i];
  free(a->list), free(next);
  a->list = sorted;
}

static int64_t number(char **text) { return strtoll(strtok_r(NULL, ",", text), NULL, 10); }

static int probe(const char *name) {
  static const int none[] = {0, 0}, some_rows[] = {0, 4, 16, 0}, some[] = {0, 32, 0};
  Work a = {0};
  char copy[200], *rest;
  snprintf(copy, sizeof copy, "%s", name);
  const char *kind = strtok_r(copy, "=", &rest);
  if (!strcmp(kind, "pass") || !strcmp(kind, "read")) {
    const int64_t bytes = number(&rest);
    const int written = kind[0] == 'p';
    a.n = bytes / 4, a.rounds = 1 + LEAST_BYTES / (bytes + 1), a.data = array(bytes);
    report(&a, name, 4.0 * a.n * a.rounds * (1 + written), none, written ? pass : read_all);
  } else if (!strcmp(kind, "rows")) {
    const int64_t bytes = number(&rest), per_group = number(&rest), groups = number(&rest);
    const double share = atof(rest);
    int64_t all = groups * per_group;
    if (all * bytes > MOST_BYTES) all = MOST_BYTES / bytes;
    a.row = bytes / 4, a.data = array(all * bytes), a.list = array(4 * all);
    for (int64_t i = 0; i < all; i++) {
      a.list[a.n] = i;
      a.n += uniform(i) < share;
    }
    report(&a, name, (double)bytes * a.n, some_rows, rows);
  } else if (!strcmp(kind, "adds")) {
    const int64_t targets = number(&rest), run = number(&rest), runs = number(&rest);
    draw_runs(&a, targets, run, runs), by_thread(&a, targets);
    a.into = array(4 * targets);
    report(&a, name, a.n, some, adds);
  } else if (!strcmp(kind, "weighted")) {
    const int64_t groups = number(&rest), inputs = number(&rest), run = (a.size = number(&rest), number(&rest)), runs = number(&rest);
    draw_runs(&a, groups * inputs, run, runs), by_thread(&a, groups * inputs);
    a.per_input = (1 + 1e-12) / inputs, a.w = array(4 * groups * inputs * a.size), a.into = array(4 * groups * a.size);
    report(&a, name, (double)a.n * a.size, some, weighted);
  } else {
    fprintf(stderr, "%s: expected pass, read, rows, adds or weighted; see the head of floor.c\n", name);
    return 2;
  }
  return 0;
}

int main(int argc, char **argv) {
  printf("{\"threads\": %d", omp_get_max_threads());
  for (int i = 1; i < argc; i++)
    if (probe(argv[i])) return 2;
  printf("}\n");
  return 0;
}

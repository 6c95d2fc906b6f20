// Time steps, delivery of spikes, and noise, for handlers.cc.

#include <algorithm>
#include <cstdint>

#include "../arguments.h"
#include "noise.h"
#include "spikes.h"
#include "steps.h"
#include "threads.h"

// Normal numbers [rows, n] of the counters first..first+n of a key [rows, 2] each.
void AllNormals(const Pool& pool, const uint32_t* keys, int64_t first, int64_t rows, int64_t n, float* to) {
  Parallel(pool, rows * n, 16384, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin / n; row * n < end; ++row) {
      const int64_t from = std::max(begin - row * n, int64_t{0});
      Normals(to + row * n + from, Key{keys[2 * row], keys[2 * row + 1]}, first + from, first + std::min(end - row * n, n));
    }
  });
}

#ifdef RLSNET_F32
template void Deliver<float>(const Pool&, const Delivery<float>&);
template void RunSteps<float>(const Pool&, const Steps<float>&);
#endif
#ifdef RLSNET_F64
template void Deliver<double>(const Pool&, const Delivery<double>&);
template void RunSteps<double>(const Pool&, const Steps<double>&);
#endif

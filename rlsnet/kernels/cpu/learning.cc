// Recursive least squares, for handlers.cc.

#include "../arguments.h"
#include "covariance.h"
#include "learning.h"
#include "threads.h"

#ifdef RLSNET_F32
template void Update<float>(const Pool&, const Learn<float>&, const StoredP<float>&);
template void Flush<float>(const Pool&, const Learn<float>&, const StoredP<float>&);
#endif
#ifdef RLSNET_F64
template void Update<double>(const Pool&, const Learn<double>&, const StoredP<double>&);
template void Flush<double>(const Pool&, const Learn<double>&, const StoredP<double>&);
#endif

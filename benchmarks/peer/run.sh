#!/usr/bin/env bash
# Builds the C program that rlsnet is timed against, and runs it on all cores:
#     benchmarks/peer/run.sh N K L/2 ITERATIONS PACKED SCENARIO [SECONDS]
# K is the number of static inputs of each class, L/2 that of plastic inputs of each class; PACKED is 1 for P as a triangle, else 0;
# SCENARIO is sinusoid or mouse; no further iteration starts after that many SECONDS of iterations (none: no limit).
# The default network: benchmarks/peer/run.sh 4096 205 29 5 0 sinusoid
# Timed in turn with rlsnet: python scripts/bench.py sinusoid --against peer
# Needs gcc with OpenMP (Debian: gcc), and OpenBLAS with its header (Debian: libopenblas-dev). OMP_NUM_THREADS sets the number of threads.
set -eu
program=$(python3 "$(dirname "${BASH_SOURCE[0]}")/../../scripts/bench_programs.py" peer)
exec "$program" "$@"

#!/usr/bin/env bash
# Builds the C program that rlsnet is timed against, where its source is newer than what was built, and runs it on two threads:
#     scripts/peer/run.sh N K L/2 ITERATIONS PACKED SCENARIO
# K is the number of static inputs of each class, L/2 that of plastic inputs of each class; PACKED is 1 for P as a triangle, else 0;
# SCENARIO is sinusoid or mouse. The default network: scripts/peer/run.sh 4096 205 29 5 0 sinusoid
# Timed in turn with rlsnet: python scripts/bench.py sinusoid --against peer
# Needs gcc with OpenMP, and OpenBLAS with its header (Debian: libopenblas-dev). OMP_NUM_THREADS changes the number of threads.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$here/../../build
program=$build/peer
if [ ! -x "$program" ] || [ "$here/peer.c" -nt "$program" ]; then
  mkdir -p "$build"
  ${CC:-gcc} -O3 -march=native -ffast-math -fopenmp "$here/peer.c" -o "$program" -lopenblas -lm
fi
OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} exec "$program" "$@"

#!/usr/bin/env bash
# Checks, times and profiles rlsnet on a GPU, in one command of at most nine minutes.
#
# A GPU machine with network, once and then as often as wanted, from the root of the repository:
#     pip install -e '.[cuda13,test]'
#     bash scripts/gpu_check.sh
#
# A GPU machine that reaches nothing outside, but has Python 3.12, jax[cuda13], pytest and NumPy, SciPy, h5py and Matplotlib:
#     bash scripts/gpu/prepare.sh      # on a machine with network: puts wheels of all else into .whl (a few MB, ignored by git)
#     bash scripts/gpu_check.sh        # on the GPU machine, in a copy of the working tree that has .whl
#
# A rehearsal without a GPU, on small networks, of every part that a CPU can run (two to four minutes on two cores):
#     DEVICE=cpu bash scripts/gpu_check.sh
#
#     bash scripts/gpu_check.sh --list     prints the parts and their limits in seconds, and runs nothing
#
# Settings, from the environment:
#     OUT      folder for the results (outputs/gpu_check)
#     DEVICE   gpu, or cpu for the rehearsal
#     PYTHON   the interpreter (python3)
#     LIMIT    seconds for all parts together (520; 300 on a CPU)
#     PATIENCE a whole number that multiplies all limits, for a busy machine (1)
#     CASES    cases of scripts/bench.py to time, shortest first (on a GPU those below; tiny on a CPU)
#
# Each part has a limit of its own; a part for which less than ten seconds are left is left out. Results, written after each part:
#     $OUT/gpu.md           tables of parts, tests, seconds, profile, speeds of the card, and the least times by scripts/gpu/model.py
#     $OUT/gpu.json         the same, with date, card, driver and versions
#     $OUT/log.txt          all output of all parts
#     $OUT/trace.json.gz    the trace behind the profile, for https://ui.perfetto.dev
# The exit status is 0 if every part that ran passed.
#
# Timed is the backend that engine.kernels=auto takes: the CUDA kernels, which NVRTC and a C++ compiler build at the first start, or else
# XLA's, and the log says why. bench_xla times the second case with XLA's. The least seconds of a step follow from the speeds of the card
# (copy, random atomic adds, barrier), which scripts/gpu/hardware.cu measures; that part needs nvcc.
set -u

DEVICE=${DEVICE:-gpu}
PYTHON=${PYTHON:-python3}
OUT=${OUT:-outputs/gpu_check}
PATIENCE=${PATIENCE:-1}
case $DEVICE in
  gpu)
    LIMIT=${LIMIT:-520}
    CASES=${CASES:-sinusoid mouse_decision_published mouse_decision mouse_decision_published_8_trials million_128 million}
    ;;
  cpu) LIMIT=${LIMIT:-300} CASES=${CASES:-tiny} ;;
  *) echo "DEVICE=$DEVICE: expected gpu or cpu" >&2; exit 2 ;;
esac
case ${1-} in
  "") LIST=false ;;
  --list) LIST=true ;;
  *) echo "$1: expected --list or no argument; see the head of $0" >&2; exit 2 ;;
esac
cases=($CASES)
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

# part NAME SECONDS COMMAND...: runs a command with a limit, its output to the log, its status and seconds to the report.
part() {
  local name=$1 limit=$(($2 * PATIENCE)) start=$SECONDS left=$((END - SECONDS)) status
  shift 2
  if $LIST; then
    echo "$name $limit"
    return
  fi
  if [ "$left" -lt 10 ]; then
    status="left out: no time"
  else
    echo "== $name" >>"$OUT/log.txt"
    timeout -k 5 $((limit < left ? limit : left)) "$@" >"$WORK/$name.txt" 2>&1
    case $? in
      0) status=passed ;;
      124 | 137) status="stopped at its limit" FAILED=1 ;;
      *) status=failed FAILED=1 ;;
    esac
    cat "$WORK/$name.txt" >>"$OUT/log.txt"
  fi
  printf '%s\t%s\t%s\n' "$name" "$status" $((SECONDS - start)) | tee -a "$WORK/parts.tsv"
  [ "$status" = failed ] && tail -n 5 "$WORK/$name.txt" | cut -c1-300
  "$PYTHON" scripts/gpu/report.py "$WORK" "$OUT"
}

# gpu_part: a part that a CPU cannot run.
gpu_part() {
  if [ "$DEVICE" = gpu ]; then
    part "$@"
  elif $LIST; then
    echo "$1 needs a GPU: left out"
  else
    printf '%s\tneeds a GPU: left out\t0\n' "$1" | tee -a "$WORK/parts.tsv"
  fi
}

# The speeds of the card.
hardware() {
  if [ "$DEVICE" = gpu ] && ! $LIST && ! command -v nvcc >/dev/null; then
    printf 'hardware\tneeds nvcc: left out\t0\n' | tee -a "$WORK/parts.tsv"
    return
  fi
  gpu_part hardware_build 60 nvcc -O3 -std=c++17 -arch=native scripts/gpu/hardware.cu -o "$WORK/hardware"
  gpu_part hardware 40 "$WORK/hardware"
}

# Seconds an iteration of each case: bench CASE...
bench() {
  local case limit timed
  for case in "$@"; do
    limit=100 timed="--only iteration simulation learning --iterations 3"
    [ "$case" = million ] && limit=150 timed="--only iteration --iterations 2"
    part "bench_$case" "$limit" "$PYTHON" scripts/bench.py "$case" $timed --device "$DEVICE" --json "$WORK/bench.json"
  done
}

# The second case without the CUDA kernels.
bench_xla() {
  gpu_part bench_xla 80 "$PYTHON" scripts/bench.py "${cases[1]-${cases[0]}}" --kernels fixed_shape --only iteration --iterations 3 \
    --device "$DEVICE" --json "$WORK/bench_xla.json"
}

# The least times by the model, beside what was measured.
model() {
  local card
  card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | grep -oiE 'a100|h100|h200|b200' | tr A-Z a-z)
  part model 30 "$PYTHON" scripts/gpu/model.py --device "${card:-h200}" --measured "$WORK"/bench*.json
}

# The longest operations of a short iteration.
profile() {
  local short=(trial.stim_on=10 trial.stim_off=20 trial.duration=100) network=(config=tiny)
  if [ "$DEVICE" = gpu ]; then  # the size of mouse_decision, without its recording
    network+=(network.n_neurons=66002 static=none plastic.n_inputs=128 noise.sigma=0.65)
  fi
  part profile 70 "$PYTHON" scripts/profile_iteration.py "${network[@]}" "${short[@]}" --device "$DEVICE" --trace "$WORK/trace"
}

END=$((SECONDS + LIMIT * PATIENCE)) FAILED=0 WORK=
if ! $LIST; then
  WORK=$(mktemp -d)
  trap 'rm -rf "$WORK"' EXIT
  mkdir -p "$OUT" || exit 2
  OUT=$(cd "$OUT" && pwd)
  : >"$OUT/log.txt"
  export PYTHONUNBUFFERED=1 RLSNET_CACHE=$WORK/cache XLA_PYTHON_CLIENT_MEM_FRACTION=.92 TF_CPP_MIN_LOG_LEVEL=2
  if [ -d .whl ]; then
    timeout 60 "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$WORK/site" .whl/*.whl >>"$OUT/log.txt" 2>&1
  fi
  export PYTHONPATH=$PWD:$WORK/site${PYTHONPATH:+:$PYTHONPATH}
fi

part environment 60 "$PYTHON" scripts/gpu/environment.py "$DEVICE"
if [ "$FAILED" != 0 ]; then
  echo "rlsnet does not run on a $DEVICE here; see $OUT/log.txt and the head of $0"
  exit 1
fi
hardware
part tests 170 env RLSNET_TEST_DEVICE="$DEVICE" "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider -o addopts= \
  -o junit_family=xunit1 --junitxml="$WORK/tests.xml" tests/kernels/test_gpu.py
bench "${cases[@]:0:3}"
profile
bench "${cases[@]:3}"
bench_xla
model
if ! $LIST; then
  find "$WORK/trace" -name '*.trace.json.gz' -size -15M -exec cp {} "$OUT/trace.json.gz" \; 2>>"$OUT/log.txt"
  "$PYTHON" scripts/gpu/report.py "$WORK" "$OUT"
  cat "$OUT/gpu.md"
  echo "results: $OUT"
fi
exit $FAILED

#!/usr/bin/env bash
# Wheels for a GPU machine that reaches nothing outside: rlsnet and those of its dependencies that such a machine lacks, into .whl.
#     bash scripts/gpu/prepare.sh      on a machine with network; then carry the working tree with .whl, and run scripts/gpu_check.sh
# The GPU machine itself must have the large packages in PRESENT, jax with its CUDA plugin first of all (4 GB: too much to carry).
# PYTHON_VERSION (3.12) is that of the GPU machine, an x86-64 one; PYTHON (python3) is an interpreter with pip here.
set -euo pipefail
PYTHON=${PYTHON:-python3}
PYTHON_VERSION=${PYTHON_VERSION:-3.12}
PRESENT="jax jaxlib numpy scipy h5py matplotlib contourpy cycler fonttools kiwisolver pillow pyparsing python-dateutil six ml-dtypes
  opt-einsum psutil pyyaml packaging typing-extensions jinja2 markupsafe"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf .whl
mkdir .whl
pip() { "$PYTHON" -m pip --disable-pip-version-check "$@"; }

pip wheel -q --no-deps -w .whl antlr4-python3-runtime==4.9.3 .  # the former has no wheel in the registry
target=(--only-binary=:all: --implementation cp --python-version "$PYTHON_VERSION")
for glibc in 17 24 27 28 31 34; do target+=(--platform "manylinux_2_${glibc}_x86_64"); done
target+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64 --platform any)
pip install -q --dry-run --ignore-installed --find-links .whl --target "$work/site" "${target[@]}" --report "$work/report.json" .whl/rlsnet-*.whl
"$PYTHON" - "$work/report.json" "$PRESENT rlsnet antlr4-python3-runtime" >"$work/missing.txt" <<'END'
import json
import re
import sys

present = set(sys.argv[2].split())
for entry in json.load(open(sys.argv[1]))["install"]:
    name = re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower()
    if name not in present:
        print(f"{name}=={entry['metadata']['version']}")
END
pip download -q --no-deps "${target[@]}" -d .whl -r "$work/missing.txt"
ls .whl
du -sh .whl

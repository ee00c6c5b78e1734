#!/usr/bin/env bash
# Everything that needs a GPU, most wanted first, in about 30 minutes; run from the root of the checkout, after
# `pip install --no-deps -e .` (bundles and records name the version that is installed).
#
#   [PYTHON=.venv/bin/python] [RESULTS=docs/results] kernels/benchmarks/gpu_session.sh [first part] [last part]
#
# Every part has its own limit and writes as it goes, so that a part that fails or runs out of time costs the
# others nothing. The log of a part is $RESULTS/logs/NAME.txt; a line a part is printed at the end. Parts 1 to 3
# are what was changed after it last failed or was stopped on a GPU (2026-11-27). Parts 1 to 3, 4 to 7, 8 to 11,
# 12 to 14 and 15 to 18 take less than ten minutes each. Where RESULTS is another folder, rows of
# wan_forward.json and the chosen tiles are taken over from docs/results first.
set -u
PYTHON=${PYTHON:-.venv/bin/python}
RESULTS=${RESULTS:-docs/results}
FIRST=${1:-1}
LAST=${2:-99}
TILES=$RESULTS/hybrid_attention_gradients.json
export PYTHONUNBUFFERED=1 TRITON_INTERPRET=0
mkdir -p "$RESULTS/logs"
for name in wan_forward.json hybrid_attention_gradients.json; do
  if [ ! -e "$RESULTS/$name" ] && [ -e "docs/results/$name" ]; then cp "docs/results/$name" "$RESULTS/"; fi
done
summary=()
number=0

part() { # name, limit in seconds, command
  local name=$1 limit=$2 started=$SECONDS
  shift 2
  number=$((number + 1))
  if ((number < FIRST || number > LAST)); then return; fi
  echo "== $number $name (at most $limit s)"
  timeout --signal=INT --kill-after=10 "$limit" "$@" >"$RESULTS/logs/$name.txt" 2>&1
  local code=$?
  tail -n 4 "$RESULTS/logs/$name.txt"
  summary+=("$number $name: exit $code after $((SECONDS - started)) s")
}

suite() { # file, filter
  local workers=()
  "$PYTHON" -c "import xdist" 2>/dev/null && workers=(-n 8)
  "$PYTHON" -m pytest -q "${workers[@]}" -p no:cacheprovider --confcutdir tests/kernels "tests/kernels/$1" -k "$2"
}

bench() { "$PYTHON" -m "$@"; }
export -f suite bench
export PYTHON

wan="workbench.benchmarks.wan_forward --append --out $RESULTS/wan_forward.json"
in_bash() { part "$1" "$2" bash -c "$3"; }

in_bash test_repaired 60 "suite triton_suite.py 'strides or compiled'"
in_bash test_models 150 "$PYTHON -m pytest -q -rs -p no:cacheprovider -k gpu tests/surgery/test_gpu.py \
  tests/models/test_gpu.py tests/export/test_export.py"
in_bash wan_24gb 360 "bench workbench.benchmarks.recipe_24gb --updates 24 --workspace \$(mktemp -d) \
  --out $RESULTS/wan_24gb.json"
in_bash test_statistics 90 "suite stats_suite.py ''"
in_bash statistics 150 "bench kernels.benchmarks.attention_stats --seconds 70 --out $RESULTS/attention_stats.json"
in_bash test_elementwise 45 "suite elementwise_suite.py ''"
in_bash wan_speed 150 "bench $wan --seconds 130 --parts numerics,split,speed"
in_bash gradient_ways 210 "bench kernels.benchmarks.tiles --kernels one_pass,products --seconds 90 --out $TILES"
in_bash wan_generation 120 "bench $wan --seconds 100 --parts generation"
in_bash wan_capture 60 "bench $wan --seconds 50 --parts capture"
in_bash wan_bank 60 "bench $wan --seconds 50 --parts bank"
in_bash test_gradients 180 "suite triton_suite.py 'gradients'"
in_bash hybrid_tables 210 "bench kernels.benchmarks.hybrid_attention --device cuda --seconds 190 \
  \$(grep -qs '\"best\"' $TILES && echo --tiles $TILES) --out $RESULTS/hybrid_attention.json"
in_bash wan_large 100 "bench $wan --seconds 85 --parts large"
in_bash wan_lengths 110 "bench $wan --seconds 95 --parts lengths"
in_bash crossover 60 "bench kernels.benchmarks.crossover --device cuda \
  --out $RESULTS/hybrid_attention_crossover.json"
in_bash wan_compiled 200 "bench $wan --seconds 180 --parts compiled"
in_bash test_forward 120 "suite triton_suite.py 'not gradients'"

printf '%s\n' "${summary[@]}"

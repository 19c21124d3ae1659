#!/usr/bin/env bash
# All that a GPU has to tell in some nine minutes, see tests/gpu/README.md. In the project's root:
#   OUT=folder bash tests/gpu/pass.sh
# With DEVICE=cpu and TRITON_INTERPRET=1 a dry run, tiny. STEPS="machine tests" takes only these, WHOLE=300 gives them
# so many seconds: what fails at a first look is mended before a second one.
set -u
export OUT=${OUT:?the folder where results go} DEVICE=${DEVICE:-cuda}
export PYTHONUNBUFFERED=1 TORCHINDUCTOR_COMPILE_THREADS=4
start=$(date +%s)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$OUT" "$work/runs"

if [ "$DEVICE" = cuda ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$work/site" .gpu/wheels/*.whl || exit 3
  # Seconds for everything.
  whole=${WHOLE:-570} slack=1
  pairs=(--pair vit_s16.flop --pair vit_b16.flop --pair vit_l16.flop --pair vit_h14.flop)
  size=(--batch-size 64)
  layers=(
    --pair mlp_768.flop --pair attention_768.flop --pair layer_norm_768.flop --pair gelu_768.flop
    --pair depthwise_768.flop --pair token_linear_768.flop
  )
  # Sizes of images and batches are those of the suites.
  dense=(--quick --pair vit_s16.flop --pair vit_s16.flop@vit_s16.tta)
else
  # A CPU is slower, and nobody waits for it.
  whole=${WHOLE:-3000} slack=5
  pairs=(--pair vit_ti16.hybrid --pair vit_ti16.flop)
  size=(--batch-size 1 --image-size 32)
  layers=(--pair mlp_768.flop)
  dense=(--quick --pair vit_ti16.flop "${size[@]}" --mode eager)
fi
# A block is compiled once for all, where a network compiled whole takes minutes.
mode=(--mode compile-blocks)
export PYTHONPATH="$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH}"
first=("${pairs[@]:0:2}") second=("${pairs[@]:2:2}")

here=$(dirname "$0")

# NAME: whether that step is asked for.
asked() {
  [ -z "${STEPS:-}" ] || [[ " $STEPS " == *" $1 "* ]]
}

# SECONDS: of these on this device, what is left.
allowed() {
  local limit=$(($1 * slack)) left=$((start + whole - $(date +%s)))
  echo $((limit < left ? limit : left))
}

# NAME SECONDS COMMAND...: none stops the next, and none gets more time than is left.
step() {
  local name=$1 limit begun code
  asked "$name" || return 0
  limit=$(allowed "$2")
  shift 2
  begun=$(date +%s)
  [ "$limit" -gt 15 ] || { echo "== $name: no time left"; return; }
  echo "== $name (at $((begun - start)) s)"
  timeout -k 5 "$limit" "$@" >"$OUT/$name.log" 2>&1
  code=$?
  grep -v '^\s*$' "$OUT/$name.log" | tail -n 12 | LC_ALL=C.UTF-8 sed -E 's/^(.{180}).*/\1/'
  echo "-- $name: exit $code, $(($(date +%s) - begun)) s"
  # After each step: whatever ends this early, what was measured is there.
  tar czf "$OUT/runs.tar.gz" -C "$work/runs" .
}

run=(
  python3 -m flopbench run --device "$DEVICE" --dtype bf16 --format csv
  --results "$work/runs/results" --reports "$work/runs/reports"
)
# NAME SECONDS SECONDS-OF-A-CELL OPTIONS...: the run ends by itself, with a report, before its time is up.
cells() {
  local name=$1 limit=$2 seconds=$3
  shift 3
  [ "$DEVICE" = cuda ] || seconds=0.3
  step "$name" "$limit" \
    "${run[@]}" --cell-seconds "$seconds" --budget "$(($(allowed "$limit") - 8))s" "$@"
}

versions='import torch, triton; print(torch.__version__, triton.__version__, torch.cuda.is_available())'
step machine 40 sh -c 'nvidia-smi; python3 -m flopbench env && python3 -c "$0"' "$versions"
if [ "$DEVICE" = cuda ]; then
  # Inductor's cache fills while tests run: what is timed later need not wait for compilers.
  if asked operations; then
    for one in S B L H; do
      timeout -k 5 80 python3 -m tests.gpu.operations "$one" >"$OUT/compile-$one.log" 2>&1 &
    done
  fi
  if asked tests; then
    timeout -k 5 140 "${run[@]}" --suite speed "${pairs[@]}" "${size[@]}" "${mode[@]}" --pass forward \
      --impl auto --cell-seconds 0.1 --budget 120s >"$OUT/warm.log" 2>&1 &
  fi
fi
# Triton compiles on one core in each process.
parallel=()
if [ "$DEVICE" = cuda ] && python3 -c 'import xdist' 2>/dev/null; then parallel=(-n 8); fi
# A line per test: what was found is there if time ends it. The project's own options ask for plugins, and
# turn into errors what those of the machine warn of.
checks=(
  python3 -m pytest -m cuda -o addopts= -o filterwarnings=default -p no:benchmark -p no:cacheprovider
  "${parallel[@]}" -v --tb=short --durations=10
)
step tests 110 "${checks[@]}" "$here" --ignore "$here/test_training.py"
# Skipped, with a line, where timm or torchvision is missing.
step training 75 "${checks[@]}" -rs "$here/test_training.py"
wait
rm -rf "$work"/runs/*
step microbench 80 python3 -m tests.gpu.microbench
step operations 80 python3 -m tests.gpu.operations
# What is timed below runs what was just found to be the fastest.
if [ "$DEVICE" = cuda ]; then step table 20 python3 -m tests.gpu.table "$OUT/operations.jsonl"; fi
# A dry run computes as a CPU does: interpreted, networks take minutes.
export TRITON_INTERPRET=0
cells forward 110 6 --suite speed "${pairs[@]}" "${size[@]}" "${mode[@]}" --pass forward --impl auto
cells train 80 4 --suite speed "${first[@]}" "${second[@]}" "${size[@]}" "${mode[@]}" --pass train --impl auto
cells eager 40 3 --suite speed "${first[@]}" "${second[@]}" "${size[@]}" --mode eager --pass forward --impl auto
step profile 40 python3 -m flopbench profile "${second[1]}" --device "$DEVICE" --dtype bf16 \
  "${size[@]}" "${mode[@]}" --seconds 3 --out "$work/runs/reports"
if [ "$DEVICE" = cuda ]; then
  cells graph 40 3 --suite speed "${first[@]}" --batch-size 1 --mode cuda-graph --pass forward --impl auto
fi
cells whole 90 4 --suite speed "${first[@]}" "${second[@]}" "${size[@]}" --mode compile --pass forward \
  --impl auto
cells fused 50 4 --suite speed "${first[@]}" "${second[@]}" "${size[@]}" "${mode[@]}" --pass forward \
  --impl fused
cells resolution 45 3 --suite resolution "${dense[@]}" --impl auto
cells dense 45 3 --suite dense "${dense[@]}" --impl auto
cells layers 35 1 --suite layers "${layers[@]}" "${size[@]}" --pass forward --impl auto

# Few files come back: logs in one.
cd "$OUT" && tar czf logs.tar.gz ./*.log && rm -f ./*.log
echo "all: $(($(date +%s) - start)) s"
ls -la

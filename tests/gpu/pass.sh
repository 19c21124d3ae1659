#!/usr/bin/env bash
# All that a GPU has to tell in some nine minutes, see tests/gpu/README.md. In the project's root:
#   OUT=folder bash tests/gpu/pass.sh
# STEPS="machine forward" takes these alone, in this order, WHOLE=300 gives them so many seconds: two looks are better
# than one. With DEVICE=cpu and TRITON_INTERPRET=1 a dry run, tiny.
set -u
export OUT=${OUT:?the folder where results go} DEVICE=${DEVICE:-cuda}
export PYTHONUNBUFFERED=1 TORCHINDUCTOR_COMPILE_THREADS=4
begin=$(date +%s)
# Of most worth first. What is timed runs what operations and gradients found to be the fastest.
known=" machine operations gradients table forward profile train huge training tests microbench large eager fused "
known+="resolution dense layers "
steps=${STEPS:-$known}
for one in $steps; do
  [[ $known == *" $one "* ]] || { echo "STEPS: there is no $one, there are$known" >&2; exit 2; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$OUT" "$work/runs"
OUT=$(cd "$OUT" && pwd)
# What an earlier look left there is kept.
if [ -f "$OUT/runs.tar.gz" ]; then tar xzf "$OUT/runs.tar.gz" -C "$work/runs"; fi
if [ -f "$OUT/logs.tar.gz" ]; then tar xzf "$OUT/logs.tar.gz" -C "$OUT"; fi

small=(--pair vit_s16.flop) base=(--pair vit_b16.flop)
if [ "$DEVICE" = cuda ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$work/site" .gpu/wheels/*.whl || exit 3
  # Seconds for everything.
  whole=${WHOLE:-570} slack=1
  large=(--pair vit_l16.flop) huge=(--pair vit_h14.flop)
  size=(--batch-size 64) more=(--batch-size 256)
  # A host that launches kernels one by one is slower than such a device: only a CUDA graph is not bound by it.
  mode=(--mode cuda-graph)
  layers=(--pair mlp_768.flop --pair attention_768.flop --pair layer_norm_768.flop)
  # Sizes of images and batches are those of the suites.
  dense=(--quick "${small[@]}" --pair vit_s16.flop@vit_s16.tta)
else
  # A CPU is slower, and nobody waits for it.
  whole=${WHOLE:-3000} slack=5
  small=(--pair vit_ti16.flop) base=(--pair vit_ti16.hybrid) large=() huge=("${small[@]}")
  size=(--batch-size 1 --image-size 32) more=(--batch-size 2 --image-size 32)
  mode=(--mode compile-blocks)
  layers=(--pair mlp_768.flop)
  dense=(--quick "${small[@]}" "${size[@]}" --mode eager)
fi
both=("${small[@]}" "${base[@]}")
export PYTHONPATH="$PWD:$work/site${PYTHONPATH:+:$PYTHONPATH}"

here=$(dirname "$0")

# NAME: whether that step is asked for.
asked() {
  [[ " $steps " == *" $1 "* ]]
}

# SECONDS: of these on this device, what is left.
allowed() {
  local limit=$(($1 * slack)) left=$((begin + whole - $(date +%s)))
  echo $((limit < left ? limit : left))
}

# NAME SECONDS COMMAND...: none stops the next, and none gets more time than is left.
step() {
  local name=$1 limit begun code
  limit=$(allowed "$2")
  shift 2
  begun=$(date +%s)
  [ "$limit" -gt 15 ] || { echo "== $name: no time left"; return; }
  echo "== $name (at $((begun - begin)) s)"
  timeout -k 5 "$limit" "$@" >"$OUT/$name.log" 2>&1
  code=$?
  grep -v '^\s*$' "$OUT/$name.log" | tail -n 12 | LC_ALL=C.UTF-8 sed -E 's/^(.{180}).*/\1/'
  echo "-- $name: exit $code, $(($(date +%s) - begun)) s"
  # After each step: whatever ends this early, what was measured is there.
  tar czf "$OUT/runs.tar.gz" -C "$work/runs" .
}

run=(python3 -m flopbench run --device "$DEVICE" --dtype bf16 --format csv)
# NAME CELLS OPTIONS...: the run ends by itself, with a report, before its time is up. That is half a minute per cell,
# as was seen, and a minute for the start and for compiling beforehand, side by side. A dry run computes as a CPU
# does, for interpreted networks take minutes.
cells() {
  local name=$1 limit=$((60 + 30 * $2)) seconds=8
  shift 2
  [ "$DEVICE" = cuda ] || seconds=0.3
  step "$name" "$limit" env TRITON_INTERPRET=0 \
    "${run[@]}" --impl "${impl:-auto}" --results "$work/runs/results" --reports "$work/runs/reports" \
    --cell-seconds "$seconds" --budget "$(($(allowed "$limit") - 8))s" "$@"
}

# Triton compiles on one core in each process.
parallel=()
if [ "$DEVICE" = cuda ] && python3 -c 'import xdist' 2>/dev/null; then parallel=(-n 8); fi
# A line per test: what was found is there if time ends it, and why one failed is in failures.txt at once. The
# project's own options ask for plugins, and turn into errors what those of the machine warn of.
checks=(
  python3 -m pytest -m cuda -o addopts= -o filterwarnings=default -p no:benchmark -p no:cacheprovider
  "${parallel[@]}" -v --tb=short --durations=10
)

# While tests run, nothing is timed: what is timed in a later step finds its code compiled.
compile_meanwhile() {
  [ "$DEVICE" = cuda ] || return 0
  if asked operations || asked gradients; then
    for one in S B L H; do
      timeout -k 5 80 python3 -m tests.gpu.operations "$one" >"$OUT/compile-$one.log" 2>&1 &
    done
  fi
  if asked forward; then
    timeout -k 5 140 "${run[@]}" --impl auto --results "$work/warm" --reports "$work/warm" --suite speed "${both[@]}" \
      "${large[@]}" "${size[@]}" "${mode[@]}" --pass forward --cell-seconds 0.1 --budget 120s >"$OUT/warm.log" 2>&1 &
  fi
}

versions='import torch, triton; print(torch.__version__, triton.__version__, torch.cuda.is_available())'
for one in $steps; do
  case $one in
    machine)
      step machine 40 sh -c 'nvidia-smi; python3 -m flopbench env && python3 -c "$0"' "$versions" ;;
    tests)
      compile_meanwhile
      step tests 150 "${checks[@]}" "$here" --ignore "$here/test_training.py"
      wait ;;
    # Skipped, with a line, where timm or torchvision is missing.
    training) step training 100 "${checks[@]}" -rs "$here/test_training.py" ;;
    microbench) step microbench 80 python3 -m tests.gpu.microbench ;;
    operations) step operations 80 python3 -m tests.gpu.operations forward ;;
    gradients) step gradients 80 python3 -m tests.gpu.operations gradients ;;
    table)
      # Times of a dry run mean nothing.
      found=()
      for rows in "$OUT"/{operations,gradients}.jsonl; do [ ! -s "$rows" ] || found+=("$rows"); done
      if [ "$DEVICE" = cuda ]; then step table 20 python3 -m tests.gpu.table "${found[@]}"; fi ;;
    forward) cells forward 3 --suite speed "${both[@]}" "${large[@]}" "${size[@]}" "${mode[@]}" --pass forward ;;
    train) cells train 2 --suite speed "${both[@]}" "${size[@]}" "${mode[@]}" --pass train ;;
    huge) cells huge 1 --suite speed "${huge[@]}" "${size[@]}" "${mode[@]}" --pass forward ;;
    large) cells large 2 --suite speed "${both[@]}" "${more[@]}" "${mode[@]}" --pass forward ;;
    eager) cells eager 2 --suite speed "${both[@]}" "${size[@]}" --mode eager --pass forward ;;
    fused) impl=fused cells fused 2 --suite speed "${both[@]}" "${size[@]}" "${mode[@]}" --pass forward ;;
    profile)
      step profile 80 env TRITON_INTERPRET=0 python3 -m flopbench profile "${base[1]}" --device "$DEVICE" \
        --dtype bf16 "${size[@]}" "${mode[@]}" --seconds 3 --out "$work/runs/reports" ;;
    resolution) cells resolution 3 --suite resolution "${dense[@]}" ;;
    dense) cells dense 2 --suite dense "${dense[@]}" ;;
    layers) cells layers 3 --suite layers "${layers[@]}" "${size[@]}" --pass forward ;;
  esac
done

# Few files come back: logs in one.
cd "$OUT" && tar czf logs.tar.gz ./*.log && rm -f ./*.log
echo "all: $(($(date +%s) - begin)) s"
ls -la

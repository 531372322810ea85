#!/usr/bin/env bash
# Run what needs a GPU, a stage at a time; each stage stops after LIMIT seconds (default 460), and the same command goes on.
#   scripts/gpu.sh bench PATH/TO/published-mar [overrides]   MAR-L training, MAR-B sampling and one image, beside the published code
#   scripts/gpu.sh table1 PATH/TO/fashion-mnist [overrides]  Table 1 of MAR past the crossing (mar-table1/gpu)
#   scripts/gpu.sh mnist PATH/TO/binarized-mnist [overrides] an any-order masked Transformer of static binarised MNIST
#   scripts/gpu.sh tests                                     tests/test_gpu.py, SIGTERM, kills during a save
# OUT: folder of the results, at most eight files a stage; default runs/gpu. RUNS: folder of what stages go on from; default OUT.
# Goals of bench on an H200: training 1.5 times the published code and 45 % of the measured bf16 peak; sampling 1.3 times at equal
# evaluations and 3 times with DPM-Solver++ in 10 steps; one image 4 times. Time: not run on a GPU.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" test
stage="${1:-}" path="" out="${OUT:-runs/gpu}" failed=0 ends=$((SECONDS + ${LIMIT:-460}))
runs="${RUNS:-$out}"
case "$stage" in
  bench | table1 | mnist) path="$(from_caller "${2:?usage: scripts/gpu.sh $stage PATH}")" && shift 2 ;;
  tests) shift ;;
  *) echo "usage: scripts/gpu.sh bench|table1|mnist PATH, or scripts/gpu.sh tests" >&2 && exit 2 ;;
esac
mkdir -p "$out" "$runs"

once() { # name, command: write its output to OUT/name.txt until the stage's time is over, unless an earlier call succeeded
  local name="$1" left=$((ends - SECONDS)) code=0
  shift
  [ ! -e "$runs/$name.done" ] || return 0
  [ "$left" -gt 0 ] || { failed=124 && return 0; }
  echo "== $name: $*"
  timeout --signal=TERM --kill-after=30 "$left" "$@" 2>&1 | tee -a "$out/$name.txt" || code=$?
  if [ "$code" = 0 ]; then touch "$runs/$name.done"; else failed="$code"; fi
}

bench() { # name, recipe, options of mar bench
  once "$1" mar bench "$2" "${overrides[@]}" "${@:3}" --precision bf16 --compile --reference "$path" --out "$out/$1.json"
}

stopped() { # SIGTERM saves a training and ends it with 143; the same command resumes it
  local run="$runs/stopped" pid code=0 saved
  rm -rf "$run"
  mar train digits train.iterations=100000 train.save_every=100000 --out "$run" &
  pid=$!
  until [ -s "$run/metrics.jsonl" ]; do
    kill -0 "$pid" 2>/dev/null || return 1
    sleep 0.2
  done
  kill -TERM "$pid"
  wait "$pid" || code=$?
  saved="$(ls "$run/checkpoints" | tail -n 1)"
  echo "ended with $code, saved $saved"
  [ "$code" = 143 ] && mar train digits train.iterations=$((10#$saved + 5)) train.save_every=100000 --out "$run"
}

overrides=("$@")
case "$stage" in
  bench)
    sampling=(--only sample --seconds 0 --rounds 3 --no-count --guidance 2.9)
    bench training mar-large --batch 80 --only train
    bench sampling mar-base --batch 256 "${sampling[@]}" # equal evaluations, and one image at a time
    bench fast mar-base --batch 256 "${sampling[@]}" --head solver=dpm-solver++ --head steps=10 --reference-as-published
    ;;
  table1)
    once table1 mar reproduce mar-table1 --scale gpu --data "$path" "${overrides[@]}" --out "$runs/mar-table1" --results "$runs/results"
    [ ! -d "$runs/results" ] || tar -czf "$out/table1.tar.gz" -C "$runs" results
    ;;
  mnist)
    once mnist-train mar train mnist-binary-gpu data.path="$path" "${overrides[@]}" --out "$runs/mnist"
    [ ! -e "$runs/mnist-train.done" ] || once mnist-score mar score nll "$runs/mnist" --plans random --orders 16 -n 1000 --control-variates
    ;;
  tests)
    once tests python -m pytest -q tests/test_gpu.py
    export -f stopped && export runs && once stop bash -c stopped
    once kill python -m pytest -q tests/faults/test_kill.py -k while_a_checkpoint # one process, because two need two GPUs
    ;;
esac
exit "$failed"

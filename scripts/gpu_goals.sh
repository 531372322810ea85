#!/usr/bin/env bash
# Run every check that needs a GPU once: mar bench beside a checkout of the published code (results/speed.md, "One H100"), the
# tests on a GPU, a training stopped by SIGTERM, kills during a save. Time: not run on a GPU yet.
#   scripts/gpu_goals.sh PATH/TO/published-mar [overrides of the bench's recipes]       OUT: folder, default runs/gpu-goals
# Tables go to OUT/*.txt, numbers to OUT/*.json. A finished check does not run again.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" test
reference="$(from_caller "${1:?a checkout of the published MAR}")" out="${OUT:-runs/gpu-goals}" failed=0
shift
overrides=("$@")
mkdir -p "$out"

once() { # name, command: write its output to OUT/name.txt, unless an earlier call succeeded
  local name="$1"
  shift
  [ -e "$out/$name.done" ] && return
  echo "== $name: $*"
  if "$@" 2>&1 | tee "$out/$name.txt"; then touch "$out/$name.done"; else failed=1; fi
}

bench() { # name, recipe, options of mar bench
  once "$1" mar bench "$2" "${overrides[@]}" "${@:3}" --precision bf16 --compile --reference "$reference" --out "$out/$1.json"
}

stopped() { # SIGTERM saves a training and ends it with 143; the same command resumes it
  local run="$out/stopped" pid code=0 saved
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

sampling=(--batch 256 --only sample --seconds 0 --rounds 3 --no-count --guidance 2.9)
bench training mar-large --batch 80 --only train
bench sampling-equal mar-base "${sampling[@]}"
bench sampling-fast mar-base "${sampling[@]}" --head solver=dpm-solver++ --head steps=10 --reference-as-published
once tests python -m pytest -q tests/test_gpu.py
once stop stopped
once kill python -m pytest -q tests/faults/test_kill.py -k while_a_checkpoint # one process, because two need two GPUs
exit "$failed"

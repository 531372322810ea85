#!/usr/bin/env bash
# What wants a GPU to be shown, each once: mar bench beside a checkout of the published code (results/speed.md, "One H100"), the
# tests on a GPU, SIGTERM of a training there and kills while it saves. Time: not run on a GPU yet.
#   scripts/gpu_goals.sh PATH/TO/published-mar [overrides of the bench's recipes]       OUT: the folder, default runs/gpu-goals
# The tables go to OUT/*.txt as well, the numbers to OUT/*.json; what has ended well is not run again.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" test
reference="$(from_caller "${1:?a checkout of the published MAR}")" out="${OUT:-runs/gpu-goals}" failed=0
shift
overrides=("$@")
mkdir -p "$out"

once() { # name, command: its output to OUT/name.txt, unless it has ended well before
  local name="$1"
  shift
  [ -e "$out/$name.done" ] && return
  echo "== $name: $*"
  if "$@" 2>&1 | tee "$out/$name.txt"; then touch "$out/$name.done"; else failed=1; fi
}

bench() { # name, recipe, options of mar bench
  once "$1" mar bench "$2" "${overrides[@]}" "${@:3}" --precision bf16 --compile --reference "$reference" --out "$out/$1.json"
}

stopped() { # SIGTERM ends a training with 143, saved; the same command goes on
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
once kill python -m pytest -q tests/faults/test_kill.py -k while_a_checkpoint # one process: one GPU serves no two
exit "$failed"

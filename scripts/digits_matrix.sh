#!/usr/bin/env bash
# Train-order × eval-order on the digits: train four models (raster, spiral, blocks of 4x4, random order) and score each along
# all four orders. A causal Transformer returns every conditional of a plan in one pass, so each model learns from every
# token of every image. Two trainings run at a time, one core each. Run the same command again to resume.
# Arguments are recipe overrides for all four, e.g. train.iterations=20. RUNS: folder, default runs/digits-matrix.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
export folder="${RUNS:-runs/digits-matrix}"
mkdir -p "$folder"

train() { # order, overrides
  local order="$1"
  shift
  echo "training along $order: $folder/$order.log"
  OMP_NUM_THREADS=1 mar train digits network.kind=causal-transformer train.objective=next_set train.iterations=500 \
    train.precision=bf16 train.sample_every=0 "$@" "ordering=$order" --out "$folder/$order" > "$folder/$order.log" 2>&1
}
export -f train

printf '%s\n' random raster spiral blocks | xargs -P 2 -I{} bash -c 'train "$@"' _ {} "$@" ||
  { tail -n 3 "$folder"/*.log && exit 1; }

mar score matrix "$folder"/{raster,spiral,blocks,random} --plans raster,spiral,blocks,random --out "$folder/matrix"

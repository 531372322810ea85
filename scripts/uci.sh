#!/usr/bin/env bash
# UCI DNA, Mushrooms and NIPS-0-12 in their published splits: MADE with one mask in natural order, MADE with sampled masks and
# orders (the mixture of 64 or 128), EoNADE (the mixture of 16 orders); weights of best validation. Run the same command again to
# resume.
#   scripts/uci.sh PATH/TO/uci          the folder with dna.npz, mushrooms.npz, nips.npz
# RUNS: folder of the runs, default runs/uci. JOBS: trainings at a time, one core each, default 2. OVERRIDES: overrides of all
# recipes. Writes results/uci.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
data="$(from_caller "${1:?the folder with dna.npz, mushrooms.npz and nips.npz}")" runs="${RUNS:-runs/uci}"
export data runs
mkdir -p "$runs" results/uci

one() { # name, recipe, data set, scoring options, recipe overrides
  local name="$1" recipe="$2" set="$3" scoring="$4"
  shift 4
  export OMP_NUM_THREADS=1
  { mar train "$recipe" "data.path=$data/$set.npz" "$@" ${OVERRIDES:-} --out "$runs/$name" &&
    mar score nll "$runs/$name" $scoring; } > "$runs/$name.log" 2>&1 || { tail -n 3 "$runs/$name.log"; exit 1; }
}
export -f one

sampled="network.masks=0 ordering=random train.validate_every=250"
xargs -d '\n' -P "${JOBS:-2}" -I{} bash -c 'one {}' <<END
mushrooms-sampled uci mushrooms "--plans random --orders 128" $sampled network.widths=[500] train.learning_rate=5e-3 train.weight_decay=0.02 train.iterations=8000 train.ema=0.999 train.validate_every=500
mushrooms-eonade uci-eonade mushrooms "--plans random --orders 16 -n 2000" train.weight_decay=0.02 train.iterations=5000
dna-sampled uci dna "--plans random --orders 128" $sampled network.widths=[500] train.weight_decay=0.3 train.iterations=1500 train.schedule.kind=constant
dna-eonade uci-eonade dna "--plans random --orders 16" train.iterations=2000
nips-sampled uci nips "--plans random --orders 64" $sampled network.widths=[100] train.learning_rate=1e-3 train.weight_decay=3 train.iterations=1000 train.validate_every=100
nips-eonade uci-eonade nips "--plans random --orders 16" train.weight_decay=3 train.iterations=600 train.validate_every=50
mushrooms-fixed uci mushrooms "" network.widths=[100] train.weight_decay=0.1 train.ema=0.999
dna-fixed uci dna ""
nips-fixed uci nips "" train.learning_rate=1e-3 train.weight_decay=3 train.iterations=600 train.validate_every=20
END

pairs=()
for set in dna mushrooms nips; do
  pairs+=("$set, MADE, one mask=$runs/$set-fixed" "$set, MADE, sampled masks and orders=$runs/$set-sampled")
  pairs+=("$set, EoNADE=$runs/$set-eonade")
done
python scripts/score_table.py results/uci/table.md "${pairs[@]}"

#!/usr/bin/env bash
# Spoken digits at 8 kHz, recordings 0 to 4 of each digit held out: train and score WaveNet, and on windows of 256 samples WaveNet
# and the any-order masked Transformer; write sounds of WaveNet and their spectrograms. Run the same command again to resume.
#   scripts/spoken_digits.sh PATH/TO/recordings [wavenet] [windows] [any-order]     default: all three in turn
# RUNS: folder of the runs, default runs/spoken-digits. OVERRIDES: recipe overrides. Writes results/spoken-digits.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
data="$(from_caller "${1:?the folder with 0_jackson_0.wav and the others}")" runs="${RUNS:-runs/spoken-digits}" out=results/spoken-digits
shift
[ $# -gt 0 ] || set -- wavenet windows any-order

for name in "$@"; do
  case "$name" in
    wavenet) recipe=spoken-digits ;;
    windows) recipe=spoken-digits-windows ;;
    any-order) recipe=spoken-digits-any-order ;;
    *) echo "no model $name: wavenet, windows or any-order" >&2 && exit 2 ;;
  esac
  mar train "$recipe" "data.path=$data" ${OVERRIDES:-} --out "$runs/$name"
  mar score "$runs/$name" --nll ${SCORING:-}
  if [ "$name" = wavenet ]; then
    mar score "$runs/$name" --nll --past 512  # score every held-out sample once, with more past than the network sees
    mkdir -p "$out"
    digits=()
    for digit in 0 1 2 3 4 5 6 7 8 9; do digits+=(--class "$digit"); done
    mar sample "$runs/wavenet" "${digits[@]}" -n 10 --out "$runs/wavenet/ten"
    cp "$runs/wavenet/ten/spectrograms.png" "$out/"
    cp -r "$runs/wavenet/ten/sounds" "$out/"
  fi
done

pairs=()
for name in wavenet windows any-order; do
  [ -d "$runs/$name/scores" ] && pairs+=("$name=$runs/$name")
done
python scripts/score_table.py "$out/table.md" "${pairs[@]}"

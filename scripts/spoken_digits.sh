#!/usr/bin/env bash
# Spoken digits at 8 kHz, recordings 0 to 4 of each digit held out: WaveNet, and on windows of 256 samples WaveNet beside
# the any-order masked Transformer; sounds of WaveNet with their spectrograms. Run again, it goes on.
#   scripts/spoken_digits.sh PATH/TO/recordings [wavenet] [windows] [any-order]     none named: all, one after the other
# RUNS: the folder of the runs, default runs/spoken-digits. OVERRIDES: of the recipes. Writes results/spoken-digits.
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
  mar score nll "$runs/$name" ${SCORING:-}
  if [ "$name" = wavenet ]; then
    mar score nll "$runs/$name" --past 512  # every held-out sample once, after more than the network sees
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

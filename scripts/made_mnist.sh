#!/usr/bin/env bash
# The classics on static binarised MNIST: MADE, EoNADE, PixelCNN in raster order and in eight orders. Train and score the named
# models, and write results/binarized-mnist/classics.md from all finished models. Run the same command again to resume.
#   scripts/made_mnist.sh PATH/TO/binarized-mnist made-500 made-8000      # half an hour of one CPU core
#   scripts/made_mnist.sh PATH/TO/binarized-mnist made-8000-32 eonade pixelcnn pixelcnn-orders             # one GPU
#   scripts/made_mnist.sh PATH/TO/binarized-mnist                         # the table alone
# RUNS: folder of the runs, default runs/classics. N: test images of EoNADE, default 2,000. OVERRIDES: recipe overrides.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
data="$(from_caller "${1:?the folder with binarized_mnist_train.amat.gz and its two sisters}")" runs="${RUNS:-runs/classics}"
shift

fit() { # name, recipe, overrides: train
  local name="$1" recipe="$2"
  shift 2
  mar train "$recipe" "data.path=$data" "$@" ${OVERRIDES:-} --out "$runs/$name"
}

eight="$(sed -n 's/^ordering: {kind: "\(.*\)"}/\1/p' mar/recipes/mnist-pixelcnn-orders.yaml)"
for name in "$@"; do
  case "$name" in
    made-500) fit "$name" mnist-made && mar score nll "$runs/$name" ;;
    made-8000) fit "$name" mnist-made-gpu && mar score nll "$runs/$name" ;;
    made-8000-32) fit "$name" mnist-made-gpu network.masks=32 ordering=random train.iterations=20000 train.validation_examples=100 &&
      mar score nll "$runs/$name" --plans random --orders 32 ;;
    eonade) fit "$name" mnist-eonade &&
      mar score nll "$runs/$name" --plans random --orders 16 -n "${N:-2000}" ;;
    pixelcnn) fit "$name" mnist-pixelcnn && mar score nll "$runs/$name" ;;
    pixelcnn-orders) fit "$name" mnist-pixelcnn-orders &&
      mar score nll "$runs/$name" --plans "$eight" --orders 32 && mar score nll"$runs/$name" --plans raster ;;
    *) echo "no model $name: made-500, made-8000, made-8000-32, eonade, pixelcnn or pixelcnn-orders" >&2 && exit 2 ;;
  esac
done

pairs=()
for name in made-500 made-8000 made-8000-32 eonade pixelcnn pixelcnn-orders; do
  [ -d "$runs/$name/scores" ] && pairs+=("$name=$runs/$name")
done
python scripts/score_table.py results/binarized-mnist/classics.md "${pairs[@]}"

#!/usr/bin/env bash
# The likelihood table of static binarised MNIST: trains an any-order model, searches an order, scores every plan and the
# ensemble of random orders on the same test images. Run again, it goes on from where it was.
#   scripts/binarized_mnist.sh PATH/TO/binarized-mnist                                            # two CPU cores
#   RECIPE=mnist-binary-gpu N=1000 ORDERS=128 scripts/binarized_mnist.sh PATH/TO/binarized-mnist   # one GPU
# RECIPE, RUN (the run folder), N (test images), ORDERS (of the ensemble), MINUTES (of the order search), SEARCH_N (images it
# searches on), PRECISION (of scoring). Arguments after the path are recipe overrides.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
data="$(from_caller "${1:?the folder with binarized_mnist_train.amat.gz and its two sisters}")"
shift
recipe="${RECIPE:-mnist-binary}" run="${RUN:-runs/${RECIPE:-mnist-binary}}" n="${N:-256}" precision="${PRECISION:-fp32}"

mar train "$recipe" "data.path=$data" "$@" --out "$run"
mar search-order "$run" --minutes "${MINUTES:-10}" -n "${SEARCH_N:-64}" --test-n 2 --start lowest-entropy,raster --name searched
plans="raster,spiral,hilbert,blocks,file:$run/orders/searched.json,lowest-entropy,highest-entropy,random/cosine:16"
mar score nll "$run" --plans "$plans" --paired-with random -n "$n" --precision "$precision"
mar score nll "$run" --plans random --orders "${ORDERS:-16}" -n "$n" --precision "$precision"

#!/usr/bin/env bash
# Make the likelihood table of static binarised MNIST: train an any-order model, search an order, score every plan and the
# ensemble of random orders on the same test images. Run the same command again to resume.
#   scripts/binarized_mnist.sh PATH/TO/binarized-mnist                                            # two CPU cores
#   RECIPE=mnist-binary-gpu N=1000 ORDERS=128 scripts/binarized_mnist.sh PATH/TO/binarized-mnist   # one GPU
# RECIPE; RUN: run folder; N: test images; ORDERS: orders in the ensemble; MINUTES: minutes of order search; SEARCH_N: images
# of the search; PRECISION: precision of scoring. Arguments after the path are recipe overrides.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
data="$(from_caller "${1:?the folder with binarized_mnist_train.amat.gz and its two sisters}")"
shift
recipe="${RECIPE:-mnist-binary}" run="${RUN:-runs/${RECIPE:-mnist-binary}}" n="${N:-256}" precision="${PRECISION:-fp32}"

mar train "$recipe" "data.path=$data" "$@" --out "$run"
mar search-order "$run" --minutes "${MINUTES:-10}" -n "${SEARCH_N:-64}" --test-n 2 --start lowest-entropy,raster --name searched
plans="raster,spiral,hilbert,blocks,file:$run/orders/searched.json,lowest-entropy,highest-entropy,random/cosine:16"
mar score nll "$run" --plans "$plans" --paired-with random -n "$n" --precision "$precision"
mar score nll "$run" --plans random --orders "${ORDERS:-16}" -n "$n" --precision "$precision"

#!/usr/bin/env bash
# Run the whole path of latents on Fashion-MNIST: train a KL and a VQ autoencoder, encode all images by two processes, train one
# model on the latents of each (killed once on the way and resumed), generate images by two processes, score them.
# Run the same command again to resume; the kill happens once.
#   scripts/fashion_latents.sh PATH/TO/fashion-mnist        # results: results/fashion-latents
# SIZE: cpu (1 h 48 min of two busy cores, default without a GPU), gpu (default with a GPU; not run yet), or quick (minutes of
# two cores, no quality).
# KINDS: kl, vq or both; OUT: folder; PROCESSES; TOKENIZER_ITERATIONS; CHANNELS: of the tokenizer; ITERATIONS; KILL_AT: iteration;
# N: generated images; STEPS: AR steps; HEAD_STEPS: diffusion steps. Arguments after the path override both models' recipes.
# Processes take one GPU each if there are enough GPUs. Otherwise they share the CPU cores, and one process trains on the GPU,
# because training takes longest.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
data="$(from_caller "${1:?the folder with the four idx files of Fashion-MNIST}")"
shift
gpus="$(python -c 'import torch; print(torch.cuda.device_count())')"
case "${SIZE:=$([ "$gpus" -gt 0 ] && echo gpu || echo cpu)}" in
quick)
  : "${TOKENIZER_ITERATIONS:=60}" "${ITERATIONS:=30}" "${KILL_AT:=10}" "${N:=64}" "${STEPS:=4}" "${HEAD_STEPS:=5}" "${CHANNELS:=8,16,16}"
  set -- network.size=tiny train.batch_size=32 train.log_every=5 train.validate_every=0 train.sample_every=0 "$@"
  kl_head=(head.width=32 head.depth=1)
  ;;
cpu)
  : "${TOKENIZER_ITERATIONS:=2000}" "${ITERATIONS:=4000}" "${KILL_AT:=1500}" "${N:=5000}" "${CHANNELS:=16,32,32}"
  set -- network.encoder_width=96 network.encoder_depth=2 network.decoder_width=96 network.decoder_depth=2 \
    train.batch_size=64 train.learning_rate=1.5e-3 train.schedule.warmup=100 train.schedule.final=0.05 train.ema=0.998 \
    train.validate_every=500 train.sample_every=0 "$@"
  kl_head=(head.width=128)
  ;;
gpu) kl_head=() ;;
*)
  echo "SIZE is cpu, gpu or quick, not $SIZE" >&2
  exit 1
  ;;
esac
out="${OUT:-runs/fashion-latents}" processes="${PROCESSES:-2}" n="${N:-5000}"
iterations="${ITERATIONS:-4000}" kill_at="${KILL_AT:-1500}" images="fashion-mnist:$data"

several() { # arguments of mar; all processes run them
  local hide=() threads=1
  if [ "$gpus" -lt "$processes" ]; then
    hide=(CUDA_VISIBLE_DEVICES=) threads=$((($(nproc) + processes - 1) / processes))
  fi
  env "${hide[@]}" OMP_NUM_THREADS="$threads" torchrun --standalone --nproc_per_node "$processes" -m mar "$@"
}

train() { # arguments of mar train
  if [ "$gpus" -gt 0 ] && [ "$gpus" -lt "$processes" ]; then mar train "$@"; else several train "$@"; fi
}

family() { # print a process and all its descendants, torchrun's workers included
  local child
  for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do family "$child"; done
  echo "$1"
}

train_killed() { # run folder, arguments of mar train: SIGKILL every process once, after iteration KILL_AT
  local run="$1" first
  shift
  if [ -e "$run/killed" ]; then return; fi
  train "$@" --out "$run" &
  first=$!
  while kill -0 "$first" 2>/dev/null && ! [ -d "$run/checkpoints/$(printf %08d "$kill_at")" ]; do sleep 0.2; done
  sleep 1
  kill -KILL $(family "$first") 2>/dev/null && echo "killed $run after iteration $kill_at" && touch "$run/killed"
  wait "$first" 2>/dev/null || true
}

for kind in ${KINDS:-kl vq}; do
  [ -f "$out/tokenizer-$kind/scores/reconstruction.json" ] || mar tokenizer train "$images" --kind "$kind" --channels "${CHANNELS:-64,128,128}" --iterations "${TOKENIZER_ITERATIONS:-2500}" \
    --rfid --out "$out/tokenizer-$kind"
  several cache "$images" --tokenizer "$out/tokenizer-$kind" --out "$out/cache-$kind"
  overrides=("data.path=$out/cache-$kind" "train.iterations=$iterations" "train.save_every=$kill_at" train.compile=false "$@")
  head=()
  if [ "$kind" = kl ]; then overrides+=("${kl_head[@]}") head=(--head "steps=${HEAD_STEPS:-50}"); fi
  train_killed "$out/$kind" "fashion-$kind" "${overrides[@]}"
  train "fashion-$kind" "${overrides[@]}" --out "$out/$kind"
  several generate "$out/$kind" --out "$out/samples-$kind" -n "$n" --plan "random/cosine:${STEPS:-16}" "${head[@]}"
  mar fid "$out/samples-$kind" --against "$images" --out "$out/samples-$kind.json"
  mar score nll "$out/$kind" -n 64
done

#!/usr/bin/env bash
# Trains on several machines: the same command on each, with a run folder that all of them see.
#   HEAD=host-1:29500 MACHINES=4 scripts/launch/machines.sh RECIPE [key=value …] [--out RUN]
# HEAD: a free port of one of the machines, where they meet (torchrun's rendezvous). MACHINES: how many. GPUS: of each.
# RESTARTS: after a process died (default 1). A machine that is lost ends the others: the same command resumes.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${HEAD:?host:port of one of the machines}" "${MACHINES:?how many machines}"
launch --nnodes "$MACHINES" --nproc-per-node "$gpus" --rdzv-backend c10d --rdzv-endpoint "$HEAD" --rdzv-id "${RUN_ID:-mar}" \
  -- "$@"

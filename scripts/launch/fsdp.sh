#!/usr/bin/env bash
# As one_machine.sh, for models that do not fit into one GPU: every process holds a share of the weights, averages and
# optimiser (FSDP2), and blocks are computed again in the backward pass. Checkpoints are those of any other run: one that
# began so goes on without, and the other way round.
#   scripts/launch/fsdp.sh RECIPE [key=value …] [--out RUN]
# On several machines, give machines.sh or slurm.sbatch the same two keys.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
launch --standalone --nproc-per-node "$gpus" -- "$@" train.parallel=fsdp train.checkpoint_activations=true

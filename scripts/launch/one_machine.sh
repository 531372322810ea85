#!/usr/bin/env bash
# Trains on all GPUs of this machine; without one, on its CPU. The same command resumes.
#   scripts/launch/one_machine.sh RECIPE [key=value …] [--out RUN]
# GPUS: how many processes (default: the GPUs that nvidia-smi lists). RESTARTS: after a process died (default 1).
# SIGTERM and Ctrl-C: saves, then ends with 143.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
launch --standalone --nproc-per-node "$gpus" -- "$@"

#!/usr/bin/env bash
# Set up and run the tests. Arguments go to pytest, e.g. `scripts/test.sh -m slow`.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" test,check
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # one worker a core, each on one thread
exec python -m pytest -n auto "$@"

#!/usr/bin/env bash
# Set up and run the tests. Arguments go to pytest: `-m slow`, `tests/cli`; `-m smoke` takes a minute.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" test,check
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # one worker a core, each on one thread
case "$*" in
  "-m smoke") exec python -m pytest tests/test_smoke.py "$@" ;; # in one process: the workers would collect every test
  *) exec python -m pytest -n auto --dist worksteal "$@" ;; # a worker takes whole files: their fixtures train once
esac

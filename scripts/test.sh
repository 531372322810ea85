#!/usr/bin/env bash
# Sets everything up and runs the tests. Arguments go to pytest, e.g. `scripts/test.sh -m slow`.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" test,check
exec python -m pytest "$@"

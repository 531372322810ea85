#!/usr/bin/env bash
# Sets everything up and runs the main job: one any-order model of the digits, scored under many plans.
# Ends with a table and a page; run again, it goes on from where it was. Arguments go to `mar ablate digits`.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
exec mar ablate digits "$@"

#!/usr/bin/env bash
# Set up and run the main job: one any-order model of the digits, scored under many plans. Write a table and a page. Run the
# same command again to resume. Arguments go to `mar ablate digits`.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
exec mar ablate digits "$@"

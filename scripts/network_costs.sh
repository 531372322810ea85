#!/usr/bin/env bash
# Measure the cost of every network at the digits' geometry (64 tokens of 17 levels) with mar bench, one JSON file a network.
# Print their Markdown table to standard output. Networks with a file are not measured again.
#   scripts/network_costs.sh [mar bench options, e.g. --clock cpu --seconds 2]        COSTS: folder, default runs/costs
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
costs="${COSTS:-runs/costs}"
mkdir -p "$costs"
for network in masked-transformer causal-transformer lstm gru wavenet made nade masked-convolution row-lstm diagonal-bilstm \
  independent linear-ar per-position; do
  objective=next_set ordering=raster
  case "$network" in masked-transformer | nade) objective=any_order ordering=random ;; esac
  [ -f "$costs/$network.json" ] || mar bench digits "network.kind=$network" "ordering=$ordering" "train.objective=$objective" \
    --batch 16 --out "$costs/$network.json" "$@" >&2
done
python scripts/network_costs.py "$costs"

"""A Markdown table of the likelihoods of several runs, from the JSON of ``mar score nll RUN``.

    python scripts/score_table.py TABLE.md LABEL=RUN [LABEL=RUN ...]

One row for each plan of each run that was scored on the test split: nats an example, bits a dimension, and mixtures of
1, 2, 4, … shared orders where there are any. The runs' JSON files are copied beside the table, without their lists of
single examples.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mar.core.files import write_atomic
from mar.training.run_folder import RunFolder


def main() -> None:
    table, *pairs = sys.argv[1:]
    folder, rows = Path(table).parent, []
    for pair in pairs:
        label, _, run = pair.rpartition("=")
        for path in sorted(Path(run).glob("scores/nll-*-test-*.json")):
            record = json.loads(path.read_text())
            rows.append((label, record, _trained(Path(run), record["iteration"])))
            kept = {k: v for k, v in record.items() if k != "nats_of_image"}
            write_atomic(folder / f"{Path(run).name}-{path.name}", json.dumps(kept, indent=1) + "\n")
    write_atomic(Path(table), "\n".join(_lines(rows)) + "\n")
    print(f"{len(rows)} row(s) in {table}")


def _trained(run: Path, iteration: int) -> str:
    """Iterations of the weights that were scored, of all, and the minutes of the training's last sitting."""
    history = [line for line in RunFolder(run).history() if "seconds" in line]
    last = history[-1] if history else {"iteration": iteration, "seconds": float("nan")}
    return f"{iteration:,} of {last['iteration']:,}, {last['seconds'] / 60:.1f} min"


def _lines(rows: list[tuple[str, dict[str, Any], str]]) -> list[str]:
    sizes = sorted({member["orders"] for _, record, _ in rows for member in record.get("ensemble") or ()})
    head = ["model", "plan", "n", "nats/example ↓", "bits/dim ↓", *(f"{s} orders" for s in sizes), "iterations"]
    lines = [_row(head), _row(["---", "---", *["---:"] * (len(head) - 3), "---"])]
    for label, record, trained in rows:
        mixtures = {member["orders"]: member for member in record.get("ensemble") or ()}
        bits = record["bits_per_dim"]
        lines.append(
            _row(
                [
                    label,
                    record["plan"] + (f", after {record['past']} samples" if record.get("past") else ""),
                    f"{record['n_images']:,}",
                    f"{record['nats_per_image']:.2f} ± {record['standard_error_nats']:.2f}",
                    "" if bits is None else f"{bits:.3f} ± {record['standard_error_bits_per_dim']:.3f}",
                    *(_mixture(mixtures.get(s)) for s in sizes),
                    trained,
                ]
            )
        )
    return lines


def _mixture(member: dict[str, Any] | None) -> str:
    return "" if member is None else f"{member['nats_per_image']:.2f} ± {member['standard_error_nats']:.2f}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

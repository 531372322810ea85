"""A Markdown table of the likelihoods of several runs, from the JSON of ``mar score nll RUN``.

    python scripts/score_table.py TABLE.md LABEL=RUN [LABEL=RUN ...]

A row for each plan of each run that was scored on the test split: nats an example, bits a dimension, and mixtures of
1, 2, 4, … shared orders. Each JSON file is copied beside the table, without its list of single examples.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mar.core.files import write_atomic
from mar.core.table import Column, Table, plus_minus
from mar.training.run_folder import RunFolder


@dataclass(frozen=True)
class Row:
    label: str
    record: dict[str, Any]
    iterations: str

    @property
    def mixtures(self) -> dict[int, dict[str, Any]]:
        """Number of orders -> the ensemble's figures."""
        return {member["orders"]: member for member in self.record.get("ensemble") or ()}


def main() -> None:
    path, *pairs = sys.argv[1:]
    rows = []
    for pair in pairs:
        label, _, run = pair.rpartition("=")
        for file in sorted(Path(run).glob("scores/nll-*-test-*.json")):
            record = json.loads(file.read_text())
            rows.append(Row(label, record, _trained(Path(run), record["iteration"])))
            kept = {key: value for key, value in record.items() if key != "nats_of_image"}
            write_atomic(Path(path).parent / f"{Path(run).name}-{file.name}", json.dumps(kept, indent=1) + "\n")
    write_atomic(Path(path), Table(_columns(rows), rows).markdown())
    print(f"{len(rows)} row(s) in {path}")


def _trained(run: Path, iteration: int) -> str:
    """Return the iterations of the scored weights, of the training, and the minutes of its last sitting."""
    history = [line for line in RunFolder(run).history() if "seconds" in line]
    last = history[-1] if history else {"iteration": iteration, "seconds": float("nan")}
    return f"{iteration:,} of {last['iteration']:,}, {last['seconds'] / 60:.1f} min"


def _columns(rows: list[Row]) -> list[Column[Row]]:
    return [
        Column("model", lambda row: row.label, words=True),
        Column("plan", _plan, words=True),
        Column("n", lambda row: row.record["n_images"], text=lambda row: f"{row.record['n_images']:,}"),
        Column("nats/example", lambda row: row.record["nats_per_image"], "lower", text=lambda row: _nats(row.record)),
        Column(
            "bits/dim", lambda row: row.record["bits_per_dim"], "lower",
            text=lambda row: plus_minus(row.record["bits_per_dim"], row.record["standard_error_bits_per_dim"], 3),
        ),
        *(_mixture(orders) for orders in sorted({orders for row in rows for orders in row.mixtures})),
        Column("iterations", lambda row: row.iterations, words=True),
    ]  # fmt: skip


def _plan(row: Row) -> str:
    return row.record["plan"] + (f", after {row.record['past']} samples" if row.record.get("past") else "")


def _mixture(orders: int) -> Column[Row]:
    return Column(
        f"{orders} orders", lambda row: row.mixtures[orders]["nats_per_image"] if orders in row.mixtures else None,
        text=lambda row: _nats(row.mixtures[orders]),
    )  # fmt: skip


def _nats(figures: dict[str, Any]) -> str:
    return plus_minus(figures["nats_per_image"], figures["standard_error_nats"], 2)


if __name__ == "__main__":
    main()

"""Print the table of ``network_costs.sh`` from the JSON of ``mar bench`` in a folder (the argument)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mar.core.table import Column, Table

Report = tuple[str, dict[str, Any]]


def main() -> None:
    reports = [(path.stem, json.loads(path.read_text())) for path in sorted(Path(sys.argv[1]).glob("*.json"))]
    columns: list[Column[Report]] = [
        Column("network", lambda row: f"`{row[0]}`", words=True),
        Column(
            "parameters", lambda row: row[1]["parameters"]["mar"], text=lambda row: f"{row[1]['parameters']['mar']:,}"
        ),
    ]
    for title, work in (("train", "train"), ("generate", "sample"), ("score", "nll")):
        columns += [
            _speed(f"{title}, images/s", work, "images_per_second"),
            _speed("MFLOP/image", work, "flops_per_image"),
        ]
    print(Table(columns, reports).markdown(), end="")


def _speed(title: str, work: str, figure: str) -> Column[Report]:
    """A figure at the largest batch; operations in millions."""

    def value(row: Report) -> float:
        found = max((m for m in row[1]["measurements"] if m["work"] == work), key=lambda m: m["batch"])["speeds"][0]
        return found[figure] / (1e6 if figure == "flops_per_image" else 1.0)

    return Column(title, value, text=lambda row: f"{value(row):,.3g}")


if __name__ == "__main__":
    main()

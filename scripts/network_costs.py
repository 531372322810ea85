"""The table of ``network_costs.sh``, from the JSON of ``mar bench``: ``python scripts/network_costs.py FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    works = [cell for work in ("train", "generate", "score") for cell in (f"{work}, images/s", "MFLOP/image")]
    print(f"| {' | '.join(['network', 'parameters', *works])} |")
    print("|---|" + "---:|" * 7)
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        report = json.loads(path.read_text())
        cells = [f"`{path.stem}`", f"{report['parameters']['mar']:,}"]
        for work in ("train", "sample", "nll"):
            cells += _speed(report["measurements"], work)
        print(f"| {' | '.join(cells)} |")


def _speed(measurements: list[dict[str, Any]], work: str) -> list[str]:
    """Images a second and million operations an image, at the largest batch."""
    found = max((m for m in measurements if m["work"] == work), key=lambda m: m["batch"])["speeds"][0]
    return [f"{found['images_per_second']:,.3g}", f"{found['flops_per_image'] / 1e6:,.3g}"]


if __name__ == "__main__":
    main()

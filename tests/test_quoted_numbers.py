"""Numbers that README.md and docs/ quote are those of results/: each sentence is made anew from the stored results."""

from __future__ import annotations

import gzip
import json
import re
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@cache
def rows(name: str) -> list[dict[str, Any]]:
    file = ROOT / "results" / name / "result.json"
    text = file.read_text() if file.is_file() else gzip.decompress(file.with_suffix(".json.gz").read_bytes()).decode()
    found = json.loads(text)["rows"]
    return [row if "likelihood" in row else {**row, "likelihood": row["answers"]["nll"]} for row in found]


def nll(name: str, **wanted: str) -> float:
    """The mean NLL in bits/dim over the rows whose settings, ordering and partition are as wanted."""
    found = [row for row in rows(name) if wanted.items() <= {**row["settings"], **row_plan(row)}.items()]
    return mean(row["likelihood"]["bits_per_dim"] for row in found)


def row_plan(row: dict[str, Any]) -> dict[str, str]:
    return {key: row[key] for key in ("ordering", "partition")}


def digits(ordering: str, partition: str = "singles") -> float:
    return nll("digits", ordering=ordering, partition=partition)


def prices() -> dict[str, float]:
    """What 16 sets cost along each order of results/digits, in bits/dim."""
    orders = {row["ordering"] for row in rows("digits")}
    return {order: digits(order, "cosine:16") - digits(order) for order in orders}


def without_zero(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


def sentences() -> list[tuple[str, str]]:
    price, best = prices(), nll("ardm-budget", plan="random/optimal:16") - nll("ardm-budget", plan="random")
    ensemble = [
        nll("eonade-ensemble", network=n, orders="1") - nll("eonade-ensemble", network=n, orders="32")
        for n in ("one layer", "two layers")
    ]
    assert {without_zero(gain, 2) for gain in ensemble} == {".06"}
    scattered = ("subsample", "random", "checkerboard")
    others = {order: cost for order, cost in price.items() if order not in scattered}
    least, most = min(others, key=others.__getitem__), max(others, key=others.__getitem__)
    assert (least, most) == ("diagonal", "hilbert")
    assert min(price, key=price.__getitem__) == "subsample" and max(scattered, key=price.__getitem__) == "checkerboard"
    made = json.loads((ROOT / "results/binarized-mnist/made-500-nll-raster-test-n10000-exact.json").read_text())
    audio = {row["settings"]["model"]: row["likelihood"]["bits_per_dim"] for row in rows("audio")}
    difference = max(audio.values()) - min(audio.values())
    raster, turned = (
        {row["settings"]["seed"]: row["likelihood"]["bits_per_dim"] for row in rows("rar-annealing")
         if (row["settings"]["ordering"], row["settings"]["variant"]) == (ordering, "best")}
        for ordering in ("raster only (0-0)", "100-200")
    )  # fmt: skip
    gains = [raster[seed] - turned[seed] for seed in raster]
    order = {name: f"{digits(name):.3f}" for name in ("random", "spiral", "raster", "subsample")}
    return [
        (
            "README.md",
            f"for {price['subsample']:.3f} (subsample) to {price['checkerboard']:.3f} bits/dim (checkerboard)",
        ),
        ("README.md", f"lose {others[least]:.2f} (diagonal) to {others[most]:.2f} (Hilbert curve)"),
        ("README.md", "32 orders gain .06 bits/dim"),
        ("README.md", f"a quarter of the steps, in the best sets, costs {without_zero(best, 3)} bits/dim"),
        ("results/README.md", f"A quarter of the steps costs {without_zero(best, 3)} bits/dim"),
        ("results/audio/README.md", f"The difference is {without_zero(difference, 2)} bits a sample here"),
        (
            "results/README.md",
            f"gains {without_zero(mean(gains), 4)} ± {without_zero(stdev(gains), 4)} bits/dim over raster",
        ),
        ("docs/learned-order.md", "random {random}, spiral {spiral}, raster {raster} bits/dim".format(**order)),
        ("docs/quickstart.md", f"| raster | {order['raster']} |"),
        ("docs/quickstart.md", f"| random | {order['random']} |"),
        ("docs/quickstart.md", f"| subsample/cosine:16 | {digits('subsample', 'cosine:16'):.3f} |"),
        (
            "docs/troubleshooting.md",
            f"MADE on binarised MNIST reaches {made['nats_per_image']:.0f} nats with 500 units",
        ),
        ("docs/troubleshooting.md", f"reaches {digits('random'):.2f} bits/dim"),
    ]


@pytest.mark.parametrize(("page", "sentence"), sentences())
def test_a_quoted_number_is_that_of_the_results(page, sentence):
    assert sentence in " ".join((ROOT / page).read_text().split())


def test_the_table_of_networks_quotes_its_results():
    page = (ROOT / "docs/choosing-a-network.md").read_text().partition("<!-- digits-networks")[2]
    found = re.findall(r"^\| `([\w-]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", page, re.MULTILINE)
    assert len(found) >= 13
    for network, *quoted in found:
        for ordering, text in zip(("raster", "spiral", "random"), quoted, strict=True):
            if text != "rejected":
                assert text == f"{nll('digits-networks', network=network, ordering=ordering):.4f}", (network, ordering)

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
def result(name: str) -> dict[str, Any]:
    file = ROOT / "results" / name / "result.json"
    packed = file.with_suffix(".json.gz")
    return json.loads(file.read_text() if file.is_file() else gzip.decompress(packed.read_bytes()))


def rows(name: str) -> list[dict[str, Any]]:
    found = result(name)["rows"]
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
        ("results/README.md", ".06 bits/dim for 32 orders"),
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


def over_seeds(name: str, figure: str, digits: int, **wanted: str) -> str:
    """Mean ± deviation of a figure, "answers.nll.bits_per_dim", over the rows of these settings: "−.0021 ± .0027"."""
    values = []
    for row in result(name)["rows"]:
        if wanted.items() <= row["settings"].items():
            found: Any = row
            for part in figure.split("."):
                found = found[int(part) if isinstance(found, list) else part]
            values.append(found)
    sign, number = "+" if figure.startswith("difference") else "", mean(values)
    text = f"{number:{sign}.{digits}f} ± {stdev(values):.{digits}f}"
    return re.sub(r"(?<!\d)0\.", ".", text).replace("-", "−")


def lines(page: str, keys: int = 1) -> dict[tuple[str, ...], list[list[str]]]:
    """The table lines of a page by their first cells; without bold. Several tables may share them."""
    found: dict[tuple[str, ...], list[list[str]]] = {}
    for line in (ROOT / page).read_text().replace("**", "").splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found.setdefault(tuple(cells[:keys]), []).append(cells[keys:])
    return found


@pytest.mark.parametrize("model", ["raster, causal", "random, causal", "random, bidirectional"])
@pytest.mark.parametrize("loss", ["CE", "Diff"])
def test_table_1_quotes_its_results(model, loss):
    own = {"model": model, "loss": loss}
    nll, fid = lines("results/mar-table1/README.md", 2)[model, loss]
    of = {
        (p, v): over_seeds("mar-table1", "answers.nll.nats_per_image", 2, partition=p, variant=v, **own)
        for p in ("singles", "cosine:4") for v in ("best", "last")
    }  # fmt: skip
    assert (nll[0], nll[3], nll[5]) == (of["singles", "best"], of["singles", "last"], of["cosine:4", "best"])
    if model != "raster, causal":
        difference = "difference.nats_per_image"
        assert nll[1] == over_seeds("mar-table1", difference, 2, partition="singles", variant="best", **own)

    def scores(place: str, partition: str) -> str:
        both = (over_seeds("mar-table1", place, 2, partition=partition, variant=v, **own) for v in ("best", "last"))
        return " / ".join(text.partition(" ")[0] for text in both)

    place = "answers.fid.scores.generated.fid"
    assert fid[:2] == [scores(place, "singles"), scores(place, "cosine:4")]
    distance = "answers.fid.memory.generated"
    unseen = result("mar-table1")["rows"][0]["answers"]["fid"]["memory"]["unseen"]
    for text, variant in zip(fid[2].split(" / "), ("best", "last"), strict=True):
        own_distance = over_seeds("mar-table1", distance, 6, partition="singles", variant=variant, **own)
        assert without_zero(float(own_distance.partition(" ")[0]) / unseen, 2) == text


def test_eonades_table_quotes_its_results_and_the_published_ones():
    quoted, name = lines("results/eonade-ensemble/mnist/README.md"), "eonade-ensemble/mnist"
    (published,) = result(name)["grid"]["published"]
    for network in ("one layer", "two layers"):
        for cell, theirs, count in zip(
            *(quoted[f"{network}, {whose}",][0] for whose in ("here", "published")), (1, 2, 4, 8, 16), strict=True
        ):
            own = {"network": network, "orders": str(count)}
            (found,) = (row["answers"]["nll"] for row in result(name)["rows"] if own.items() <= row["settings"].items())
            assert cell == f"{found['nats_per_image']:.2f} ± {found['standard_error_nats']:.2f}"
            (value,) = (
                row["value"] for row in published["rows"] if {k: str(v) for k, v in row["where"].items()} == own
            )
            assert theirs == f"{value:.2f}"


def test_pages_quote_how_far_eonade_is_from_the_published_curve():
    quoted, off = lines("results/eonade-ensemble/mnist/README.md"), []
    for network in ("one layer", "two layers"):
        ours, theirs = (quoted[f"{network}, {whose}",][0] for whose in ("here", "published"))
        off.append(max(abs(float(a.split()[0]) - float(b)) for a, b in zip(ours, theirs, strict=True)))
    one, two = (without_zero(value, 2) for value in off)
    assert f"within {one} of the published curves" in (ROOT / "README.md").read_text() and one > two
    text = (ROOT / "results/README.md").read_text()
    assert f"within {one} (one layer" in text and f"and {two} (two:" in text
    assert f"within {one} nats of the published numbers, two layers within {two}" in " ".join(
        (ROOT / "results/eonade-ensemble/mnist/README.md").read_text().split()
    )


def test_table_1_quotes_its_crossings():
    page = " ".join((ROOT / "results/mar-table1/README.md").read_text().split())
    epochs = []
    for loss in ("CE", "Diff"):
        curve = {}
        for model in result("mar-table1")["models"]:
            if model["settings"]["loss"] == loss:
                curve.setdefault(model["settings"]["model"], []).append(model["training"]["validation_nats"])
        raster, *others = ([mean(at) for at in zip(*seeds, strict=True)] for seeds in curve.values())
        for other in others:
            last = max(k for k, (a, b) in enumerate(zip(other, raster, strict=True)) if a >= b)
            epochs.append(round(50 * 64 * (last + 2) / 1365))  # a validation each 50 iterations of 64
    said = "from epoch {} (causal) and {} (bidirectional) with cross-entropy, from {} and {} with diffusion"
    assert said.format(*epochs) in page


@pytest.mark.parametrize("name", ["rar-orders", "rar-annealing"])
def test_the_tables_of_rar_quote_their_results(name):
    quoted = lines(f"results/{name}/README.md")
    orders = {row["settings"]["ordering"]: row["difference"] for row in result(name)["rows"]}
    for order, compared in orders.items():
        (cells,) = next(found for (key,), found in quoted.items() if key.lower() == order)
        for k, variant in ((0, "best"), (3, "last")):
            own = {"ordering": order, "variant": variant}
            assert cells[k] == over_seeds(name, "answers.nll.bits_per_dim", 4, **own)
            if compared is not None:
                assert cells[k + 1] == over_seeds(name, "difference.bits_per_dim", 4, **own)


def test_order_consistency_quotes_its_results():
    quoted, name = lines("results/digits-consistency/README.md"), "digits-consistency"
    for key, cells in ((key.replace(",", ""), cells) for (key,), (cells, *_) in quoted.items() if key[0].isdigit()):
        places = ("nll.nats_per_image", "consistency.spread.value", "consistency.violation.rms.0")
        found = [over_seeds(name, f"answers.{p}", d, iterations=key) for p, d in zip(places, (2, 3, 3), strict=True)]
        assert cells == [*found, over_seeds(name, "answers.consistency.ensemble_gap.value", 2, iterations=key)]

"""Several orders of one model: what tells its rows apart, what they are compared with, which of them are mixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from mar.experiments.engine import Engine, assemble
from mar.experiments.grid import read
from mar.experiments.result import AblationResult

GRID = """
recipe: digits
overrides: [train.iterations=1, train.batch_size=8, train.validate_every=0, train.sample_every=0,
  network.encoder_depth=1, network.decoder_depth=1]
partitions: ["linear:2"]
nll: {images: 4, orders: 2}
fid: null
"""
ORDERS = ["mean of 2", "1", "2"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grids share it, and so their one model."""
    return tmp_path_factory.mktemp("orders")


def finished(out: Path, text: str) -> AblationResult:
    (out / "grid.yaml").write_text(GRID + text)
    engine = Engine(read(str(out / "grid.yaml")), out)
    engine.work()
    return assemble(engine)


def test_plans_scored_under_several_orders_keep_their_names_and_their_reference(out: Path) -> None:
    result = finished(out, "orderings: [raster, spiral, random]")
    assert result.settings == ("plan", "orders")
    assert len({row.name for row in result.rows}) == len(result.rows) == 1 + 1 + 3
    compared = {row.name: row.difference.reference for row in result.rows if row.difference is not None}
    assert compared == {"spiral/linear:2, 1": "raster/linear:2, 1"}


def test_every_likelihood_shows_its_mixtures_once_whichever_variant_comes_first(out: Path) -> None:
    variants = "variants: [{name: surest, adaptive: lowest-entropy}, {name: plain}, {name: guided, guidance: 2.0}]"
    result = finished(out, f"orderings: [random]\n{variants}")
    found = {v: [r.settings["orders"] for r in result.rows if r.settings["variant"] == v] for v in ("plain", "guided")}
    assert found == {"plain": ORDERS, "guided": ORDERS[:1]}

"""EoNADE's curve: which rows are points of it, and when there is a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mar.experiments.result import AblationResult
from mar.reports.lines import Line
from mar.reports.orders_curve import mixtures, write_orders_curve
from tests.experiments.made import changed


@pytest.fixture
def averaged(several: AblationResult) -> AblationResult:
    """Two seeds of a model, their mean and their mixtures of one and two orders, beside one of a fixed order."""
    row = replace(several.rows[0], errors=())
    assert row.likelihood is not None
    figures = [
        ("nade", "0", "mean of 2", 3.0), ("nade", "0", "1", 3.1), ("nade", "0", "2", 2.5), ("nade", "1", "1", 3.3),
        ("nade", "1", "2", 2.7), ("raster", "0", "1", 2.9),
    ]  # fmt: skip
    rows = [
        changed(
            row,
            settings={"network": network, "seed": seed, "orders": orders},
            likelihood=replace(row.likelihood, bits_per_dim=bits),
        )
        for network, seed, orders, bits in figures
    ]
    return replace(several, rows=tuple(rows))


def test_a_line_has_the_mixtures_of_every_seed_and_not_their_mean(averaged: AblationResult) -> None:
    nade, raster = Line("nade", {1: [3.1, 3.3], 2: [2.5, 2.7]}), Line("raster", {1: [2.9]})
    assert mixtures(averaged) == {"": [nade, raster]}


def test_data_sets_have_panels_of_their_own(averaged: AblationResult) -> None:
    rows = tuple(replace(row, settings={"data": row.settings["seed"], **row.settings}) for row in averaged.rows)
    found = mixtures(replace(averaged, rows=rows))
    assert [[line.name for line in lines] for lines in found.values()] == [["nade", "raster"], ["nade"]]


def test_there_is_a_picture_where_orders_are_averaged_and_none_elsewhere(
    averaged: AblationResult, several: AblationResult, tmp_path: Path
) -> None:
    path = write_orders_curve(averaged, tmp_path)
    assert path is not None and path.stat().st_size > 1000
    assert write_orders_curve(several, tmp_path) is None

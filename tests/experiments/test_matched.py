"""Cells that should be alike are held against each other; the reader is warned where they are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mar.experiments.result import AblationResult, Training
from mar.experiments.statistics import Range, spreads, unfair
from mar.metrics.speed import Speed
from mar.reports.tables import matched_notes, notes_of
from tests.experiments.made import made, row


def trained(iterations: int) -> Training:
    return Training(iterations, 10, iterations, 1.0, (), (), (), ())


def two(
    parameters: tuple[int, int], iterations: tuple[int, int], measured: bool = True, **grid: object
) -> AblationResult:
    """Two cells whose training costs 100 FLOP an example."""
    result = made([row({"network": "a"}), row({"network": "b"})], **grid)
    speed = Speed(1, "cpu", 1, "cpu", 1.0, 1.0, 100.0, 1.0) if measured else None
    models = tuple(
        replace(model, parameters=p, training=trained(n), answers={} if speed is None else {"speed": speed})
        for model, p, n in zip(result.models, parameters, iterations, strict=True)
    )
    return replace(result, models=models)


def test_the_spread_is_the_smallest_and_the_largest_over_trained_cells() -> None:
    result = two((100, 150), (20, 30))
    assert spreads(result) == {
        "parameters": Range(100, 150), "images": Range(200, 300), "compute": Range(20_000, 30_000),
    }  # fmt: skip
    refused = replace(result.models[0], training=None, parameters=0)
    assert spreads(replace(result, models=(refused, result.models[1])))["parameters"] == Range(150, 150)


def test_compute_is_known_where_every_cell_was_measured() -> None:
    assert "compute" not in spreads(two((1, 1), (1, 1), measured=False))
    assert any("unknown" in note for note in matched_notes(two((1, 1), (1, 1), False, matched="compute")))


@pytest.mark.parametrize("largest, warned", [(110, False), (111, True)])
def test_more_than_a_tenth_is_a_warning(largest: int, warned: bool) -> None:
    result = two((100, largest), (1, 9), matched="parameters")
    assert unfair(result) is warned
    assert any(note.startswith("Warning") for note in matched_notes(result)) is warned


def test_what_the_grid_does_not_match_is_told_without_a_warning() -> None:
    result = two((100, 200), (20, 20))
    assert matched_notes(result) == ["Cells: parameters 100 to 200 (×2); examples seen 200; training FLOP 20,000."]
    assert matched_notes(result)[0] in notes_of(result)

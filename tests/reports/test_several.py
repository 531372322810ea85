"""Reports of a grid with axes say what each model is, what it costs and how it was trained."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

from mar.experiments.result import AblationResult
from mar.reports.columns import columns
from mar.reports.curves import groups, legend, write_curves
from mar.reports.page import page
from mar.reports.table import as_csv, markdown, terminal


def test_the_table_has_a_column_for_each_axis_and_the_costs_of_each_model(several: AblationResult) -> None:
    heads = [column.head for column in columns(several)]
    assert heads[:2] == ["network", "ordering"] and "partition" not in heads
    for head in ("parameters", "training, MFLOP/image ↓", "generation, images/s ↑", "linear probe ↑"):
        assert head in heads
    text = markdown(several)
    assert "1,234" in text and "0.875 (64 features)" in text and "All of one size." in text
    assert "refused: rows serve raster order" in text


def test_learning_curves_stand_beside_the_end_values(several: AblationResult) -> None:
    lines = markdown(several).splitlines()
    raster, random = (
        next(line for line in lines if line.startswith(f"| lstm | {name}")) for name in ("raster", "random")
    )
    assert "overfits" in raster and "falling" in random and "▁" in raster
    assert "lowest of 4 validation losses" in markdown(several)


def test_csv_has_the_settings_and_every_cost(several: AblationResult) -> None:
    first, *_ = csv.DictReader(io.StringIO(as_csv(several)))
    assert (first["axis_network"], first["axis_ordering"], first["validation_curve"]) == ("lstm", "raster", "overfits")
    assert float(first["train_images_per_second"]) == 1000.5 and float(first["validation_best_nats_per_token"]) == 1.2


def test_the_page_draws_the_curve_of_every_trained_model(several: AblationResult, folder: Path) -> None:
    text = page(several, folder)
    drawn = re.search(r'<svg[^>]*aria-label="Validation curves, lstm".*?</svg>', text)
    assert drawn is not None and '"hue0"' in drawn.group() and "<title>lstm, random</title>" in drawn.group()
    assert "overfits</span>, scored after 100 of 100" in text and "Validation curves, row" not in text
    assert "refused: rows serve raster order" in text


def test_the_picture_of_curves_is_written(several: AblationResult, folder: Path) -> None:
    assert write_curves(several, folder).stat().st_size > 1000
    assert {name: len(models) for name, models in groups(several).items()} == {"lstm": 2}


def test_seeds_of_a_setting_are_one_entry_of_the_legend(several: AblationResult) -> None:
    (models,) = groups(several).values()
    assert list(legend(models)) == ["raster (overfits)", "random (falling)"]
    seeds = [replace(model, settings={**model.settings, "seed": str(s)}) for model in models for s in range(3)]
    assert list(legend(seeds)) == ["raster (3 overfits)", "random (3 falling)"]
    assert [len(alike) for alike in legend(seeds).values()] == [3, 3]


def test_the_terminal_names_rows_by_their_settings(several: AblationResult) -> None:
    from rich.console import Console

    console = Console(width=140, record=True, file=io.StringIO())
    console.print(*terminal(several), sep="\n")
    text = console.export_text()
    assert "lstm" in text and "overfits" in text

"""Tables say the numbers of the result, in every form."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest

from mar.experiments.result import AblationResult
from mar.reports.columns import columns, data_columns
from mar.reports.notes import notes_of
from mar.reports.table import as_csv, markdown, terminal
from mar.reports.unit import in_asked_unit


def test_csv_holds_every_number_at_full_precision(result: AblationResult) -> None:
    read = list(csv.DictReader(io.StringIO(as_csv(result))))
    assert [line["plan"] for line in read] == [row.plan for row in (*result.rows, *result.baselines)]
    for line, row in zip(read, (*result.rows, *result.baselines), strict=True):
        for column in data_columns(result):
            value = column.value(row)
            if isinstance(value, float | int):
                assert float(line[column.title]) == value
            else:
                assert line[column.title] == (value or "")
    assert float(read[1]["difference_bits_per_dim_low"]) == result.rows[1].difference.interval_bits_per_dim[0]  # type: ignore


def test_markdown_parses_back_to_the_same_numbers(result: AblationResult) -> None:
    lines = [line for line in markdown(result).splitlines() if line.startswith("|")]
    heads, _, *body = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    shown = columns(result)
    assert heads == [column.head for column in shown]
    for cells, row in zip(body, (*result.rows, *result.baselines), strict=True):
        assert len(cells) == len(shown)
        for text, column in zip(cells, shown, strict=True):
            value = column.value(row)
            if value is None:
                assert text == "–"
            elif isinstance(value, float) and not text.startswith("< "):
                number = float(re.match(r"\**([-+]?[\d.]+)", text).group(1))  # type: ignore[union-attr]
                assert number == pytest.approx(value, abs=0.51 * 10.0**-column.digits)


def test_the_best_values_are_bold_and_only_they(result: AblationResult) -> None:
    lines = markdown(result).splitlines()
    raster, random = (next(line for line in lines if line.startswith(f"| {name}")) for name in ("raster", "random"))
    assert "**12.50**" in raster and "**13.75**" not in random
    assert f"**{result.rows[1].likelihood.bits_per_dim:.4f}" in random  # type: ignore[union-attr]


def test_heads_carry_units_and_direction(result: AblationResult) -> None:
    heads = [column.head for column in columns(result)]
    assert "NLL, bits/dim ↓" in heads and "FID ↓" in heads and "images/s ↑" in heads
    assert "Δ to raster, bits/dim ↓" in heads


def test_notes_say_what_the_figures_are(result: AblationResult) -> None:
    text = markdown(result)
    for said in ("exact", "20 test images", "30 generated", "40 test images", "a-classifier-acc0.99", "FID 1.25",
                 "subsets of 10", "Holm", "95 %", "guidance 1.5", "beware"):  # fmt: skip
        assert said in text


def test_the_terminal_fits_eighty_characters(result: AblationResult) -> None:
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(*terminal(result), sep="\n")
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "random/linear:2" in text and "12.50" in text and "independent" in text
    assert "spiral: NLL: RuntimeError" in text


def test_notes_say_that_variants_have_a_guidance_of_their_own_and_every_data_set(result: AblationResult) -> None:
    said = "(guidance 1.5, temperature 1{}) against"
    variants = [{"name": "plain", "guidance": None}, {"name": "guided", "guidance": 2.0}]
    of_two = replace(result, data="digits, others", data_fingerprint=f"{'d' * 64}, {'e' * 64}")
    for number, own in ((1, ""), (2, ", where the variant says nothing else")):
        notes = notes_of(replace(of_two, grid={**result.grid, "variants": variants[:number]}))
        assert any(said.format(own) in note for note in notes)
        assert any(f"data digits, others {'d' * 12}, {'e' * 12}." in note for note in notes)


def test_a_grid_in_nats_shows_nats_alone_and_keeps_both(result: AblationResult) -> None:
    shown = in_asked_unit(replace(result, grid={**result.grid, "unit": "nats"}))
    assert "bits/dim" in markdown(result) and "nats" not in markdown(result).split("\n\n")[1]
    assert "bits/dim" not in markdown(shown).split("\n\n")[1] and "NLL, nats ↓" in markdown(shown)
    likelihood = next(row.likelihood for row in shown.rows if row.likelihood is not None)
    assert f"{likelihood.nats_per_image:.2f} ± {likelihood.standard_error_nats:.2f}" in markdown(shown)
    assert in_asked_unit(result) is result

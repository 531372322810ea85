"""Tables say the numbers of the result, in every form."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from mar.experiments.result import AblationResult
from mar.likelihood.exposure import Curve, Exposure
from mar.reports.columns import data_columns, in_asked_unit
from mar.reports.page import page
from mar.reports.tables import (
    data_table,
    grid_table,
    latex,
    markdown,
    notes_of,
    published_notes,
    seeds_data_table,
    seeds_latex,
    seeds_table,
    terminal,
    write_tables,
)
from tests.experiments.made import generated, made, scored
from tests.experiments.made import row as row_of


def test_csv_holds_every_number_at_full_precision(result: AblationResult) -> None:
    read = list(csv.DictReader(io.StringIO(data_table(result).csv())))
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
    shown = grid_table(result).columns
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


def test_a_metric_names_the_columns_of_its_answers(result: AblationResult) -> None:
    curve = Curve((0.5, 1.25), (0.1, 0.25))
    answer = Exposure("raster", "exact", 4, (3.0, 3.0), *[curve] * 9)
    first, *others = result.rows
    asked = replace(result, rows=(replace(first, answers={**first.answers, "exposure": answer}), *others))
    assert grid_table(asked).column("exposure").show(asked.rows[0]) == "+1.25 ± 0.25"
    line, other, *_ = csv.DictReader(io.StringIO(data_table(asked).csv()))
    assert (line["exposure_nats_per_image"], other["exposure_nats_per_image"]) == ("1.25", "")
    assert "exposure_images" not in data_table(result).csv()


def test_heads_carry_units_and_direction(result: AblationResult) -> None:
    heads = [column.head for column in grid_table(result).columns]
    assert "NLL, bits/dim ↓" in heads and "FID ↓" in heads and "images/s ↑" in heads
    assert "Δ to raster, bits/dim ↓" in heads


def test_notes_say_what_the_figures_are(result: AblationResult) -> None:
    text = markdown(result)
    for said in ("exact", "20 test images", "30 generated", "40 test images", "a-classifier-acc0.99", "FID 1.25",
                 "subsets of 10", "Holm", "95 %", "guidance 1.5", "beware"):  # fmt: skip
        assert said in text


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_terminal_drops_columns_and_cuts_no_cell(result: AblationResult, width: int) -> None:
    from rich.console import Console

    console = Console(width=width, record=True, file=io.StringIO())
    console.print(*terminal(result), sep="\n")
    text = console.export_text()
    assert all(len(line) <= width for line in text.splitlines()) and "…" not in text
    assert "random/linear:2" in text and f"{result.rows[1].likelihood.bits_per_dim:.4f}" in text  # type: ignore[union-attr]
    assert "independent" in text and "spiral: NLL: RuntimeError" in text
    assert "12.50" in text
    assert ("bits/dim ± " in text or " ± 0." in text) == ("one standard error" in text)
    assert ("p (Holm)" in " ".join(text.split())) == ("Holm-corrected" in text)


def test_the_note_says_which_weights_each_row_used(several: AblationResult) -> None:
    variants = [{"name": "end", "weights": "last"}, {"name": "lowest"}]  # the grid's choice is best
    told = ["averaged weights of the lowest of", "averaged weights at the end of the training"]
    told.append(
        "in rows end the averaged weights at the end of the training; in rows lowest the averaged weights of the"
    )
    for number, said in enumerate(told):
        assert said in notes_of(replace(several, grid={**several.grid, "variants": variants[:number]}))[0]


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


def test_every_line_has_as_many_cells_as_the_table_has_columns(several: AblationResult) -> None:
    text = latex(several)
    spec = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert spec is not None and all(len(re.split(r"(?<!\\)&", row)) == len(spec.group(1)) for row in rows)
    assert len(rows) == 1 + len(several.rows) + len(several.baselines)


def test_numbers_and_bold_are_those_of_the_table(result: AblationResult) -> None:
    text = latex(result)
    assert r"\textbf{12.50}" in text and "13.75" in text and r"\toprule" in text


def test_what_latex_reads_otherwise_is_escaped(several: AblationResult) -> None:
    assert latex(several).isascii()


def test_the_table_has_a_column_for_each_axis_and_the_costs_of_each_model(several: AblationResult) -> None:
    heads = [column.head for column in grid_table(several).columns]
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
    first, *_ = csv.DictReader(io.StringIO(data_table(several).csv()))
    assert (first["axis_network"], first["axis_ordering"], first["validation_curve"]) == ("lstm", "raster", "overfits")
    assert float(first["train_images_per_second"]) == 1000.5 and float(first["validation_best_nats_per_token"]) == 1.2


def test_the_terminal_names_rows_by_their_settings(several: AblationResult) -> None:
    from rich.console import Console

    console = Console(width=140, record=True, file=io.StringIO())
    console.print(*terminal(several), sep="\n")
    text = console.export_text()
    assert "lstm" in text and "overfits" in text


@pytest.fixture
def single(ablation: AblationResult) -> AblationResult:
    """One training of each, on four images."""
    nats = {"raster": (1.0, 5.0, 3.0, 6.0), "spiral": (1.1, 4.9, 3.2, 5.9), "random": (5.0, 9.1, 7.0, 10.0)}
    rows = [row_of({"ordering": name}, likelihood=scored(values), images=generated(9)) for name, values in nats.items()]
    return made(rows, published=ablation.grid["published"])


def test_published_figures_stand_in_columns_of_their_own(ablation: AblationResult) -> None:
    heads = [column.head for column in grid_table(ablation).columns]
    assert heads.index("FID ↓") < heads.index("published: FID, ImageNet 256² ↓") and "IS ↑" in heads
    text = markdown(ablation)
    assert text.count("| 8.50† |") == 4 and text.count("| 2.00† |") == 4  # three seeds, and the row over seeds


def test_the_notes_state_the_agreement_its_source_and_that_ours_is_another_scale(ablation: AblationResult) -> None:
    recalled, read = published_notes(ablation)
    for said in ("a paper, Table 1", "† recalled, not re-read", "other data and another scale", "τ-b -1.00", "3 rows",
                 "p = 0.333 (exact)", "our FID"):  # fmt: skip
        assert said in recalled
    assert "recalled" not in read and "our IS (3 rows) one column's figures are all equal" in read


def test_csv_has_them_as_numbers(ablation: AblationResult) -> None:
    first, *_ = csv.DictReader(io.StringIO(data_table(ablation).csv()))
    assert float(first["published: FID, ImageNet 256² (recalled)"]) == 8.5 and float(first["published: IS"]) == 8.5
    over, near, _ = csv.DictReader(io.StringIO(seeds_data_table(ablation).csv()))
    assert float(over["fid_mean"]) == 10.0 and float(over["published: IS"]) == 8.5
    assert float(near["nll_bits_per_dim_mean"]) > float(over["nll_bits_per_dim_mean"])


def test_latex_states_the_agreement_as_a_comment_and_is_plain_text(ablation: AblationResult) -> None:
    for text in (latex(ablation), seeds_latex(ablation)):
        assert text.isascii() and "8.50$^\\dagger$" in text
        assert any(line.startswith("% Published: ") and "-1.00" in line for line in text.splitlines())


def test_tables_over_seeds_are_files_of_their_own(
    ablation: AblationResult, single: AblationResult, tmp_path: Path
) -> None:
    assert [path.name for path in write_tables(single, tmp_path)] == ["table.md", "table.csv", "table.tex"]
    assert [path.name for path in write_tables(ablation, tmp_path)][3:] == ["seeds.csv", "seeds.tex"]


def test_the_best_row_is_marked_in_every_form(single: AblationResult, tmp_path: Path) -> None:
    best = "0.0845 ± 0.0225"
    assert f"| **{best}** |" in markdown(single) and r"\textbf{0.0845 $\pm$ 0.0225}" in latex(single)
    text, value = page(single, tmp_path), single.rows[0].likelihood.bits_per_dim  # type: ignore[union-attr]
    assert f'<td class="best" data-value="{value}">0.0845<span class="less error"> ± 0.0225</span></td>' in text


def test_the_best_is_of_rows_that_compare(single: AblationResult) -> None:
    """Each data set, kind and number of images has a best of its own; a row without others of its kind has none."""
    figures = {"a": 10.0, "b": 50.0, "d": 51.0, "e": 11.0, "bound": 1.0, "few": 1.0}
    rows = [
        row_of(
            {"model": name},
            likelihood=scored([nats] * (2 if name == "few" else 4), "bound" if name == "bound" else "exact"),
        )
        for name, nats in figures.items()
    ]
    table = grid_table(made(rows, data={"b": "other", "d": "other"}))
    assert [rows[k].model for k in sorted(table.column("NLL").best(table.rows))] == ["a", "b"]
    images = [row_of({"n": str(n)}, images=generated(5.0 + n, n_images=n)) for n in (10, 10, 20)]
    table = grid_table(made(images))
    assert table.column("FID").best(table.rows) == set()  # 10 ties with 10, and 20 is alone


def test_over_seeds_the_best_is_of_rows_with_the_same_seeds(ablation: AblationResult) -> None:
    table = seeds_table(ablation)
    assert table.column("NLL").best(table.rows) == {0} and table.column("FID").best(table.rows) == {0}
    lacking = seeds_table(made(ablation.rows[1:]))
    assert lacking.column("NLL").best(lacking.rows) == {1}  # the first row has two seeds, the others three
    assert "published: FID, ImageNet 256² ↓" in [column.head for column in table.columns]


def test_a_pivot_of_the_grid_has_a_column_for_each_value(several: AblationResult) -> None:
    text = grid_table(several).pivot("network", "ordering", "NLL").latex()
    assert r"network & raster $\downarrow$ & random $\downarrow$" in text and text.count(r"\textbf") == 0

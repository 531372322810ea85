"""A table shows the same numbers in every form, and marks the best of comparable rows only."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import pytest

from mar.core.errors import UserError
from mar.core.progress import bar, wide_console
from mar.core.table import (
    Column,
    Note,
    Table,
    escape_csv,
    escape_latex,
    escape_markdown,
    p_text,
    plus_minus,
    with_interval,
)

Line = tuple[str, str, float | None]
ROWS: list[Line] = [
    ("made", "raster", 2.125),
    ("made", "random", 2.5),
    ("nade", "raster", 2.0),
    ("nade", "random", None),
]
COLUMNS: list[Column[Line]] = [
    Column("network", lambda row: row[0], words=True),
    Column("order", lambda row: row[1], words=True),
    Column("NLL", lambda row: row[2], "lower", 2, unit="bits/dim", key="nll_bits_per_dim"),
]
TABLE = Table(COLUMNS, ROWS, ["A note."], "Orders")


def test_markdown_has_a_title_heads_with_unit_and_arrow_the_best_bold_and_the_notes() -> None:
    assert TABLE.markdown(2).splitlines() == [
        "## Orders",
        "",
        "| network | order | NLL, bits/dim ↓ |",
        "|---|---|---:|",
        "| made | raster | 2.12 |",
        "| made | random | 2.50 |",
        "| nade | raster | **2.00** |",
        "| nade | random | – |",
        "",
        "- A note.",
    ]


def test_csv_and_json_hold_raw_values_under_their_keys() -> None:
    read = list(csv.DictReader(io.StringIO(TABLE.csv())))
    assert [line["nll_bits_per_dim"] for line in read] == ["2.125", "2.5", "2.0", ""]
    assert json.loads(TABLE.json())[0] == {"network": "made", "order": "raster", "nll_bits_per_dim": 2.125}
    assert json.loads(Table(COLUMNS, [("a", "b", math.nan)]).json())[0]["nll_bits_per_dim"] is None


def test_the_best_is_marked_within_comparable_rows_and_never_where_all_are_equal() -> None:
    of_network = Column[Line]("NLL", lambda row: row[2], "lower", alike=lambda row: row[0])
    assert of_network.best(ROWS) == {0}  # nade has one value, which competes with none
    assert Column[Line]("NLL", lambda row: row[2], "higher").best(ROWS) == {1}
    assert Column[Line]("NLL", lambda row: 1.0, "lower").best(ROWS) == set()


def test_a_value_that_is_no_number_hides_no_best_one() -> None:
    nan: list[Line] = [("rar", "raster", math.nan)]
    assert COLUMNS[2].best([*nan, *ROWS]) == {3} and COLUMNS[2].best([*ROWS, *nan]) == {2}


def test_a_pivot_has_a_column_for_each_value_and_refuses_two_rows_in_one_cell() -> None:
    table = TABLE.pivot("network", "order", "NLL")
    assert [column.title for column in table.columns] == ["network", "raster", "random"]
    assert "| nade | **2.00** | – |" in table.markdown()
    with pytest.raises(UserError, match="two rows have network made and network made"):
        TABLE.pivot("network", "network", "NLL")


def test_columns_are_chosen_by_title_and_an_unknown_one_is_refused() -> None:
    assert [column.title for column in TABLE.only(["NLL", "order"]).columns] == ["NLL", "order"]
    with pytest.raises(UserError, match="NLL"):
        TABLE.only(["NL"])
    empty = Table([*COLUMNS, Column[Line]("FID", lambda row: None)], ROWS)
    assert [c.title for c in empty.without_empty().without("order").columns] == ["network", "NLL"]


def test_latex_escapes_text_and_has_as_many_cells_as_columns() -> None:
    assert escape_latex("a_b & 5% ± <{x}>") == r"a\_b \& 5\% $\pm$ $<$\{x\}$>$"
    lines = Table(COLUMNS, ROWS[:1], baselines=ROWS[2:3]).latex().splitlines()
    assert lines[0] == r"\begin{tabular}{llr}" and r"made & raster & 2.12 \\" in lines and lines.count(r"\midrule") == 2


def test_html_escapes_cells_and_holds_what_they_sort_by() -> None:
    page = Table(COLUMNS, [("<b>", "raster", 2.125), ("b", "c", 2.0)]).html("sortable")
    assert '<table class="sortable">' in page and "&lt;b&gt;" in page and "<b>" not in page
    assert '<td data-value="2.125">2.12</td>' in page and '<td class="best" data-value="2.0">2.00</td>' in page


def test_a_narrow_terminal_drops_whole_columns_in_their_order() -> None:
    from rich.console import Console

    columns = [
        *COLUMNS,
        Column[Line]("long words", lambda row: "w" * 30, drop=1),
        Column[Line]("n", lambda _: 1, drop=2),
    ]
    notes = ["A note.", Note("n: a note.", "n"), Note("w: a note.", "www"), Note("x: never.", "xyz")]
    for width, heads in ((120, {"words", "n"}), (66, {"words"}), (60, set()), (30, set()), (16, set())):
        console = Console(width=width, file=io.StringIO())
        console.print(Table(columns, ROWS, notes[::-1]))
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert max(map(len, lines)) <= width and lines[-1] == "· A note." and "…" not in "".join(lines)
        shown = {word for line in lines if line.startswith("┃") for word in line.strip("┃").replace("┃", " ").split()}
        assert shown & {"words", "n"} == heads
        assert "x: never." not in lines and ("· w: a note." in lines) == ("words" in heads)
        if width >= 30:  # under each other where they do not fit beside each other
            cells = {cell.strip() for line in lines if line.startswith("│") for cell in line.strip("│").split("│")}
            assert {column.show(row) for row in ROWS for column in COLUMNS} <= cells


def test_a_narrow_terminal_prints_a_brief_number_without_its_error_and_the_note_of_errors() -> None:
    from rich.console import Console

    nll = Column[Line]("NLL", lambda row: 2.0, text=lambda _: "2.000 ± 0.125", brief=True)
    for width, said in ((60, True), (30, False)):
        console = Console(width=width, file=io.StringIO())
        console.print(Table([*COLUMNS[:2], nll], ROWS, [Note("±: one standard error.", "±")]))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "2.000" in text and ("2.000 ± 0.125" in text) == ("one standard error" in text) == said


def test_every_part_of_a_divided_table_tells_the_rows_apart() -> None:
    from rich.console import Console

    wide = [Column[Line](letter * 16, lambda row: 1) for letter in "ab"]
    for width, expected in ((40, [True, True, True]), (29, [True, False, False, False])):
        console = Console(width=width, file=io.StringIO())
        console.print(Table([*COLUMNS, *wide], ROWS))
        heads = [line for line in console.file.getvalue().splitlines() if line.startswith("┃") and "network" in line]  # type: ignore[attr-defined]
        assert ["order" in line for line in heads] == expected


HOSTILE = [
    "=HYPERLINK(1)", "@SUM(1+1)", "+1+1", "-2+3", "\t=1", "<script>alert(1)</script>", "a|b", "[x](javascript:y)",
    "a\nb", "\\input{/etc/passwd}", "[red]x[/b]", ":smile:",
]  # fmt: skip


def hostile() -> Table[Line]:
    return Table(COLUMNS, [(name, "raster", -2.5) for name in HOSTILE], HOSTILE, HOSTILE[5])


def test_a_spreadsheet_computes_no_cell_and_numbers_stay_numbers() -> None:
    lines = list(csv.DictReader(io.StringIO(hostile().csv())))
    assert [line["network"] for line in lines[:5]] == ["'" + name for name in HOSTILE[:5]]
    assert {line["nll_bits_per_dim"] for line in lines} == {"-2.5"}
    assert escape_csv("-3") == "-3" and escape_csv("spiral") == "spiral"


def test_markdown_has_no_tag_no_link_and_a_line_for_each_row() -> None:
    lines = hostile().markdown().splitlines()
    assert not [line for line in lines if re.search(r"<\w|\]\(", line)]
    assert sum(line.startswith("|") for line in lines) == 2 + len(HOSTILE)
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in lines if line.startswith("|"))
    assert escape_markdown("p < 0.001, [0.1, 0.2]") == "p < 0.001, [0.1, 0.2]"  # as it was


def test_latex_runs_no_command_of_a_name_and_a_comment_stays_one() -> None:
    text = hostile().latex()
    assert "\\input{" not in text
    assert sum(line.startswith("%") for line in text.splitlines()) == len(HOSTILE)


def test_the_terminal_prints_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    wide_console().print(hostile())
    wide_console().print("a[/b] [red]x :smile:")
    with bar("[/b] {x} [red]a"):
        pass
    printed = capsys.readouterr()
    assert "[red]x[/b]" in printed.out and "a[/b] [red]x :smile:" in printed.out and ":smile:" in printed.out
    assert "[/b] {x} [red]a" in printed.err


def test_texts_of_figures() -> None:
    assert plus_minus(1.0, 0.25, 1) == "1.0 ± 0.2" and with_interval(0.5, (-0.25, 1.0), 2) == "+0.50 [-0.25, +1.00]"
    assert plus_minus(1.0, math.nan, 1) == "1.0"  # of one image there is no error
    assert [p_text(p) for p in (None, 0.0, 0.25)] == ["–", "< 0.001", "0.250"]

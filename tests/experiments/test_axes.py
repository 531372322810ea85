"""Axes: every combination is a cell; conditions choose among them by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mar.core.errors import UserError
from mar.experiments.engine import Engine
from mar.experiments.grid import Adjustment, GridFile, as_overrides, combinations, read

AXES = {
    "network": (
        {"network": {"width": 8, "kind": "lstm"}, "train.learning_rate": 0.003},
        {"name": "small made", "network": "made", "network.widths": [4]},
    ),
    "ordering": ("raster", "random"),
    "seed": (0, 1),
}


def named(**settings: str) -> dict[str, str]:
    return {"network": "lstm", "ordering": "raster", "seed": "0", **settings}


def test_every_combination_is_a_cell_the_last_axis_fastest() -> None:
    cells = combinations(AXES, (), (), {})
    assert len(cells) == 8
    assert [cell.settings for cell in cells[:3]] == [named(), named(seed="1"), named(ordering="random")]
    assert cells[4].settings["network"] == "small made"
    assert cells[0].overrides == (
        'network.kind="lstm"', "network.width=8", "train.learning_rate=0.003", 'ordering="raster"', "seed=0",
    )  # fmt: skip


def test_conditions_exclude_choose_and_adjust() -> None:
    adjust = (Adjustment(where={"network": "lstm", "seed": 1}, set={"train": {"iterations": 7}}),)
    cells = combinations(AXES, adjust, ({"network": "lstm", "ordering": ("random",)},), {"seed": (1,)})
    assert [tuple(cell.settings.values()) for cell in cells] == [
        ("lstm", "raster", "1"), ("small made", "raster", "1"), ("small made", "random", "1"),
    ]  # fmt: skip
    assert [cell.overrides[-1] for cell in cells] == ["train.iterations=7", "seed=1", "seed=1"]


def test_a_kind_stands_before_its_options() -> None:
    assert as_overrides({"head": {"temperature": 1, "kind": "flow"}}) == ['head.kind="flow"', "head.temperature=1"]


@pytest.mark.parametrize(
    ("axes", "where", "message"),
    [
        (AXES, {"netwrok": "lstm"}, "did you mean 'network'"),
        (AXES, {"network": "lstn"}, "did you mean 'lstm'"),
        ({"size": ({"train.iterations": 3},)}, {}, "add name"),
        ({"seed": (1, 1)}, {}, "two values"),
        ({"seed": ()}, {}, "no values"),
    ],
)
def test_what_does_not_exist_is_refused(axes: dict, where: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        combinations(axes, (), (), where)


def test_the_command_line_has_the_last_word() -> None:
    grid = read("digits-networks", ["train.iterations=3", "only.network=[lstm]"])
    assert [recipe.train.iterations for _, recipe in grid.recipes()] == [3, 3, 3]


def test_the_reference_is_among_the_cells() -> None:
    with pytest.raises(UserError, match="did you mean 'raster'"):
        read("digits-networks", ["reference.ordering=rastr"])
    with pytest.raises(UserError, match="did you mean 'ordering'"):
        read("digits-networks", ["reference.orderng=raster"])


def test_choosing_by_validation_keeps_every_validated_checkpoint() -> None:
    for _, recipe in read("digits-networks", ["only.ordering=raster"]).recipes():
        train = recipe.train
        assert train.save_every == train.validate_every and train.keep > train.iterations // train.validate_every
    with pytest.raises(UserError, match="validate_every"):
        read("digits-networks", ["train.validate_every=0"])


def test_the_digits_grid_holds_every_network_along_three_orders() -> None:
    from mar.networks import NETWORKS

    grid: GridFile = read("digits-networks")
    names = {cell.settings["network"] for cell in grid.combinations()}
    ours = set(NETWORKS) - {"arpg", "halton-maskgit", "lpd", "randar", "rar"}  # as released, for their weights
    assert names == ours and len(grid.combinations()) == 3 * len(ours)


def test_an_override_adds_an_ordering_to_a_table() -> None:
    grid = read("rar-orders/digits", ["ordering+=[hilbert,mine.py:Mine]", "orderings+=raster"])
    *_, hilbert, mine = grid.axes["ordering"]
    annealed = {"kind": "annealed", "start": 0.5, "end": 0.75}
    assert hilbert == {"name": "hilbert", "ordering": {**annealed, "target": "hilbert"}}
    assert mine == {"name": "mine.py:Mine", "ordering": {**annealed, "target": "mine.py:Mine"}}
    assert grid.orderings == ("raster",)
    with pytest.raises(UserError, match="did you mean 'orderings'"):
        read("digits", ["orderigns+=[hilbert]"])


def test_an_axis_is_replaced_by_a_list() -> None:
    grid = read("rar-orders/digits", ["seed=[0,1,2,3]", "only.ordering=raster"])
    assert grid.axes["seed"] == (0, 1, 2, 3) and [cell.settings["seed"] for cell in grid.combinations()] == list("0123")


def test_an_axis_takes_the_values_of_the_command_line_and_a_note_says_so() -> None:
    grid = read("rar-orders/digits", ["seed=0", "ordering=[morton,hilbert]"])
    cells = grid.combinations()
    assert [tuple(cell.settings.values()) for cell in cells] == [("morton", "0"), ("hilbert", "0")]
    assert [recipe.ordering.model_extra["target"] for _, recipe in grid.recipes()] == ["morton", "hilbert"]
    assert grid.reference["ordering"] == "morton"  # that of the file, raster, is left out
    assert any(note.startswith("The command line sets the axis seed to 0; the grid has 0, 1, 2") for note in grid.notes)
    assert [row.value for row in grid.published[0].rows][:2] == [2.18, 2.29]


def test_an_axis_of_the_command_line_counts_where_the_file_leaves_values_out(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("recipe: digits\naxes: {seed: [0, 1, 2]}\nonly: {seed: [0, 1]}")
    cells = read(str(tmp_path / "grid.yaml"), ["seed=[2,3]"]).combinations()
    assert [cell.settings for cell in cells] == [{"seed": "2"}, {"seed": "3"}]


def test_a_value_is_named_as_in_the_file() -> None:
    (cell,) = read("rar-orders/digits", ["ordering=spiral outward", "seed=3"]).combinations()
    assert cell.settings == {"ordering": "spiral outward", "seed": "3"}
    assert 'ordering.target="spiral:outward:corner=bottom-right"' in cell.overrides


@pytest.mark.parametrize("override", ["ordering.target=knight", "ordering.target=raster"])
def test_an_override_that_makes_one_model_of_several_names_is_refused(override: str) -> None:
    with pytest.raises(UserError, match=r"one model of several values of the axis ordering.*only\.ordering"):
        read("rar-orders/digits", [override])
    read("rar-orders/digits", ["ordering.end=0.8"])  # is not what tells the values apart


def test_seeds_that_are_one_model_are_refused(tmp_path: Path) -> None:
    axis = "{seed: [{name: one, seed: 0}, {name: other, seed: 0}], network: [{network: {kind: made, widths: [4]}}]}"
    (tmp_path / "grid.yaml").write_text(f"recipe: digits\noverrides: [train.objective=next_set]\naxes: {axis}")
    with pytest.raises(UserError, match="one, made and other, made are one model"):
        Engine(read(str(tmp_path / "grid.yaml")), tmp_path / "out")


@pytest.mark.parametrize("name", ["../x", "a/b", "a\nb", "..", "", "x" * 300, "a\0b", '"'])
def test_a_grid_s_name_is_that_of_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "grid.yaml").write_text(f"recipe: digits\nname: {json.dumps(name)}\norderings: [raster]")
    with pytest.raises(UserError, match="no name of a folder"):
        read(str(tmp_path / "grid.yaml"))

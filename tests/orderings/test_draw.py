"""Pictures: what they show, pixel by pixel where it can be said."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from orderings import Grid, InvalidRequest, Plan, PlanSpec, draw
from orderings.draw import Canvas, animation
from tests.orderings import cases


def plan(text: str, grid: Grid, **tokens) -> Plan:
    return Plan.sample(*PlanSpec.parse(text), grid, 1, cases.noise(1), **tokens)


@pytest.mark.parametrize(
    ("text", "shape"), [("random/equal:4", (100,)), ("spiral", (8, 5)), ("raster", (1, 1)), ("blocks:2", (4, 4, 3))]
)
def test_every_grid_has_a_picture_and_an_animation(tmp_path, text, shape):
    grid = Grid(shape)
    for name in ("plan.png", "deep/plan.gif"):
        path = draw.save(plan(text, grid), grid, tmp_path / name, title=text)
        assert Image.open(path).size > (20, 20)


def test_an_animation_has_a_frame_for_each_step_and_shows_the_right_tokens(tmp_path):
    grid = Grid((4, 4))
    drawn = plan("spiral/equal:4", grid, given_BL=torch.arange(16)[None] == 0)
    frames = [np.asarray(frame.convert("RGB")).astype(int) for frame in animation(drawn, grid)]
    assert len(frames) == int(drawn.n_steps_B[0]) + 2
    cell = frames[0].shape[0] // 4
    for step, frame in enumerate(frames[1:-1]):
        centres = frame[cell // 2 :: cell, cell // 2 :: cell].reshape(16, 3)
        red = (abs(centres - [228, 87, 46]) <= 2).all(1)
        assert red.tolist() == (drawn.step_BL[0] == step).tolist()
    assert Image.open(draw.save(drawn, grid, tmp_path / "a.gif")).n_frames == len(frames)


def test_long_plans_make_animations_of_bounded_length():
    grid = Grid((20, 20))
    assert len(animation(plan("raster", grid), grid, most=30)) == 30


def test_channels_lie_side_by_side_and_text_in_lines():
    canvas = Canvas.of(Grid((2, 2, 3)))
    assert (canvas.height, canvas.width) == (2, 8)
    cells = canvas.fill(np.arange(12.0))
    assert np.array_equal(cells[0], [0, 3, np.nan, 1, 4, np.nan, 2, 5], equal_nan=True)
    assert (Canvas.of(Grid((130,))).height, Canvas.of(Grid((130,))).width) == (3, 64)


def test_the_axis_says_whether_frames_or_channels_lie_side_by_side():
    for text, said, path in (("t2x3x3", "frames", ", frames side by side"), ("2x3x3", "channels", "")):
        grid = Grid.parse(text)
        panels = draw.figure(plan("raster", grid), grid).axes
        heads = [axis.get_xlabel() for axis in panels[:3]]
        assert heads == [f"column, {said} side by side"] * 2 + [f"column{path}"]


def test_png_bytes_for_a_page():
    grid = Grid((6, 6))
    two = draw.gallery({"hilbert": plan("hilbert", grid), "random": plan("random", grid)}, grid)
    for picture in (draw.figure(plan("hilbert", grid), grid), two):
        assert Image.open(io.BytesIO(draw.png(picture))).format == "PNG"
    assert [axis.get_title() for axis in two.axes] == ["hilbert", "random"]
    for axis in two.axes:  # a legend below each map
        (bar,) = axis.child_axes
        assert [label.get_text() for label in bar.get_xticklabels()] == ["step 0", "35"]
    ranks, steps, path = draw.figure(plan("hilbert", grid), grid).axes[:3]
    assert {(axis.get_xlabel(), axis.get_ylabel()) for axis in (ranks, steps, path)} == {("column", "row")}


def test_other_kinds_of_file_are_refused(tmp_path):
    with pytest.raises(InvalidRequest, match=r"ends in .png or .gif, not 'a.jpg'"):
        draw.save(plan("raster", Grid((2, 2))), Grid((2, 2)), tmp_path / "a.jpg")

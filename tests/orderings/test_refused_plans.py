"""Plans and grids that cannot be are refused at once, in one line of bearable length, before memory is taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import orderings as o
from orderings.grid import MarError
from tests.orderings import cases

BIG, LONG = 10**20, "x" * 300


def nested(times: int) -> str:
    return "blocks:2:inner=(" * times + "raster" + ")" * times


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (nested(3000), "parentheses nest more than 16 deep"),
        ("(" * 5000, "parentheses"),
        ("raster/" + "(" * 900 + ")" * 900, "nest more than 16"),
        (f"blocks:{BIG}", "whole number below 2^63"),
        (f"raster/blocks:{BIG}", "whole number below 2^63"),
        (f"raster/cosine:{BIG}", "below 2^63"),
        (f"fixed-random:{BIG}", "below 2^63"),
        ("raster/cosine:nan", "whole number, not 'nan'"),
        ("raster/equal:inf", "whole number"),
        ("annealed:nan", ""),
        (LONG, "unknown ordering"),
        (f"file:{LONG}.json", "no order file"),
        ("file:a\x00b.json", "no order file"),
        (f"raster/optimal:4:costs={LONG}", "no file of set costs"),
        ("raster/sizes:" + ",".join(["1"] * 5000), "5000"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(MarError) as refused:
        o.Plan.sample(*o.PlanSpec.parse(text), o.Grid((8, 8)), 2, cases.noise(2))
    line = str(refused.value)
    assert said in line and len(line) <= 1003 and "\n" not in line


def test_a_plan_of_bearable_depth_is_drawn() -> None:
    plan = o.Plan.sample(
        *o.PlanSpec.parse("blocks:4:inner=(blocks:2:inner=hilbert)"), o.Grid((8, 8)), 1, cases.noise(1)
    )
    assert plan.step_BL.shape == (1, 64)


@pytest.mark.parametrize("text", ["100000x100000", f"{BIG}", f"2x2x{BIG}", "4097x4096"])
def test_a_grid_too_large_for_memory_is_refused_by_its_size(text: str) -> None:
    with pytest.raises(o.InvalidRequest, match="at most 16,777,216 tokens"):
        o.Grid.parse(text)


def test_an_order_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<i8', 'fortran_order': False, 'shape': (9223372036854775807,), }"
    contents = {
        "deep.json": ("[" * 100_000).encode(),
        "huge.npy": header.ljust(127) + b"\n",
        "cut.npy": np.lib.format.magic(1, 0),
        "empty.npy": b"",
        "bytes.txt": b"\xff\xfe\x00",
        "large.json": json.dumps([BIG] * 64).encode(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MarError, match=name):
            o.parse_ordering(f"file:({tmp_path / name})").ranks(o.Grid((8, 8)), 1, cases.noise(1))

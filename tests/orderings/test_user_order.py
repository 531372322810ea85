"""A user's own order from a file."""

from __future__ import annotations

import json
import os
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from orderings import Grid, InvalidRequest, Unsupported, as_options, parse_ordering, to_text
from tests.orderings import cases

SPIRAL = [[0, 1, 2], [5, 4, 3]]
POSITIONS = [0, 1, 2, 5, 4, 3]


def ranks(path, holds: str = "ranks", shape: tuple[int, ...] = (2, 3)) -> list:
    rank_BL = parse_ordering(f"file:({path}):holds={holds}").ranks(Grid(shape), 2, cases.noise(2))
    return rank_BL[1].reshape(shape).tolist()


def test_the_same_order_reads_from_every_format(tmp_path):
    (tmp_path / "a.txt").write_text("# my order\n0 1 2\n5, 4, 3  # back\n")
    (tmp_path / "a.json").write_text(json.dumps(SPIRAL))
    (tmp_path / "says.json").write_text(json.dumps({"positions": POSITIONS}))
    (tmp_path / "pairs.json").write_text(json.dumps({"positions": [[p // 3, p % 3] for p in POSITIONS]}))
    np.save(tmp_path / "a.npy", np.array(SPIRAL, dtype=np.uint8))
    np.save(tmp_path / "flat.npy", np.array(SPIRAL).reshape(-1))
    for name in ("a.txt", "a.json", "says.json", "pairs.json", "a.npy", "flat.npy"):
        assert ranks(tmp_path / name) == SPIRAL
    (tmp_path / "visits.txt").write_text("\n".join(map(str, [1, 2, 0, 3, 4, 5])))
    assert ranks(tmp_path / "visits.txt", "positions") == [[2, 0, 1], [3, 4, 5]]


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("0 1 2 3 4 5")
    assert ranks(path) == [[0, 1, 2], [3, 4, 5]]
    path.write_text("5 4 3 2 1 0")
    os.utime(path, ns=(1, 1))
    assert ranks(path) == [[5, 4, 3], [2, 1, 0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 1 2 3 4 6", "ranks are the numbers 0..5, each once, but it holds 6"),
        ("0 1 2 3 4 -1", "it holds -1"),
        ("0 1 2 3 3 5", "3 is there twice and 4 is missing"),
        ("0 1 2 3 4", "holds 5 ranks, but the grid 2x3 has 6 tokens"),
        ("0 1 2 3 4 x", "invalid literal"),
        ("0 1 2 3 4 5.5", "invalid literal"),
        ("", "whole numbers only|holds 0 ranks"),
    ],
)
def test_what_is_no_permutation_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises((InvalidRequest, Unsupported), match=message) as error:
        ranks(tmp_path / "a.txt")
    assert "a.txt" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{oops", "a.json"),
        ("a.json", '{"order": [0]}', 'one key, "ranks" or "positions"'),
        ("a.json", "[0.5, 1, 2, 3, 4, 5]", "whole numbers only"),
        ("a.json", '{"positions": [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [2, 2]]}', "outside the grid 2x3"),
        ("a.npy", "not numpy", "a.npy"),
        ("a.csv", "0", "ends in .txt, .json or .npy"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidRequest, match=message) as error:
        ranks(tmp_path / name)
    assert "\n" not in str(error.value)


def test_damaged_files_are_refused_in_one_line_before_they_fill_the_memory(tmp_path):
    with (tmp_path / "long.npy").open("wb") as file:  # a header of 10^13 numbers, and none of them
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (10**13,)})
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    for name in ("long.npy", "empty.npy", "deep.json", "binary.txt"):
        with pytest.raises(InvalidRequest, match=name) as error:
            ranks(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_byte_order_mark_and_a_home_folder_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("0 1 2 5 4 3", encoding="utf-8-sig")
    (tmp_path / "a.json").write_text(json.dumps(SPIRAL), encoding="utf-8-sig")
    assert ranks("~/a.txt") == ranks("~/a.json") == SPIRAL


def test_a_missing_file_and_no_file_at_all(tmp_path):
    with pytest.raises(InvalidRequest, match="no order file"):
        ranks(tmp_path / "none.txt")
    with pytest.raises(Unsupported, match="file needs the path of an order"):
        parse_ordering("file").ranks(Grid((2, 3)), 1, cases.noise(1))


def many(path, batch: int = 6000, shape: tuple[int, ...] = (2, 3), holds: str = "ranks", **options) -> Counter:
    ordering = parse_ordering("file", {"path": str(path), "holds": holds, **options})
    rank_BL = ordering.ranks(Grid(shape), batch, cases.noise(batch))
    return Counter(tuple(row) for row in rank_BL.tolist())


def test_every_image_draws_one_of_the_orders_of_a_file(tmp_path):
    orders = [[0, 1, 2, 5, 4, 3], [5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]]
    (tmp_path / "a.json").write_text(json.dumps(orders))
    np.save(tmp_path / "a.npy", np.array(orders).reshape(3, 2, 3))
    visits = np.argsort(np.array(orders))
    (tmp_path / "visits.json").write_text(json.dumps({"positions": visits.tolist()}))
    np.save(tmp_path / "pairs.npy", np.stack([visits // 3, visits % 3], axis=-1))
    drawn = many(tmp_path / "a.json")
    assert sorted(drawn) == sorted(map(tuple, orders)) and chisquare(list(drawn.values())).pvalue > 1e-6
    assert many(tmp_path / "a.npy") == many(tmp_path / "visits.json") == drawn
    assert many(tmp_path / "pairs.npy", holds="positions") == drawn
    for name, holds in (("a.json", "ranks"), ("a.npy", "ranks"), ("pairs.npy", "positions")):
        ordering = parse_ordering("file", {"path": str(tmp_path / name), "holds": holds})
        found = [one.ranks(Grid((2, 3)), 2, cases.noise(2))[1].tolist() for one in ordering.components]
        assert found == orders and ordering.random
        assert parse_ordering(to_text(ordering.components[2])) == ordering.components[2]
    assert list(many(tmp_path / "a.npy", index=1)) == [tuple(orders[1])]


def test_a_file_of_one_order_is_no_mixture_and_is_written_as_ever(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(SPIRAL))
    (tmp_path / "pairs.json").write_text(json.dumps({"positions": [[p // 3, p % 3] for p in POSITIONS]}))
    for name in ("a.json", "pairs.json", "none.json"):
        ordering = parse_ordering(f"file:({tmp_path / name})")
        assert not ordering.random and not ordering.components
        assert as_options(ordering) == {"path": f"({tmp_path / name})", "holds": "ranks"}


@pytest.mark.parametrize(
    ("orders", "options", "message"),
    [
        ([[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 3, 5]], {}, "order 1: ranks are .* 3 is there twice and 4 is missing"),
        ([[0, 1, 2, 3], [3, 2, 1, 0]], {}, "holds 8 ranks, but the grid 2x3 has 6 tokens"),
        ([[0, 1, 2, 3, 4, 5], [0, 1, 2]], {}, "a.json"),
        ([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]], {"index": 2}, "holds 2 orders: index is in 0..1"),
        ([], {}, "whole numbers only|holds 0 ranks"),
    ],
)
def test_files_of_many_orders_that_are_none_are_refused(tmp_path, orders, options, message):
    (tmp_path / "a.json").write_text(json.dumps(orders))
    with pytest.raises((InvalidRequest, Unsupported), match=message) as error:
        many(tmp_path / "a.json", **options)
    assert "\n" not in str(error.value)

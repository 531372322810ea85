"""Values of ``key=value``: what is written as text is that text, whatever letters it has."""

from __future__ import annotations

from typing import Any

import pytest

from mar import config
from mar.core.errors import UserError
from mar.core.overrides import assigned, value_of
from mar.data import DATA
from mar.experiments.grid import read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("-2", -2), ("1_000", 1000), ("1e-3", 0.001), (".5", 0.5), ("inf", float("inf")), ("007", "007"),
        ("true", True), ("False", False), ("null", None), ("none", "none"), ("no", "no"), ("~", "~"), ("", ""),
        ("[1, 2]", [1, 2]), ("[raster,blocks:4:inner=serpentine]", ["raster", "blocks:4:inner=serpentine"]),
        ("{kind: made, widths: [8]}", {"kind": "made", "widths": [8]}), ("'1'", "1"), ('"a b"', "a b"),
        ("raster/cosine:16", "raster/cosine:16"), ("a: b", "a: b"), ("[[[", "[[["),
        ("${oc.env:HOME}", "${oc.env:HOME}"),
        ("[!!python/object/apply:os.getcwd []]", "[!!python/object/apply:os.getcwd []]"),
    ],
)  # fmt: skip
def test_a_text_has_the_value_that_it_is_written_as(text: str, value: Any) -> None:
    assert value_of(text) == value and isinstance(value_of(text), type(value))


@pytest.mark.parametrize("path", ["/data/run #1", "/data/*", "*", "@mnist", "%x", "a: b", "a,b", "=", "|", "> ", "`"])
def test_a_path_is_taken_letter_by_letter(path: str) -> None:
    found = config.read("digits", ["data=folder", f"data.path={path}"]).data
    assert DATA.options("folder", found.model_extra or {}).path == path
    assert read("digits", [f"data.path={path}"]).command == (f"data.path={path}",)


@pytest.mark.parametrize("separator", ["###", "#", "---", "~", "1", "2.5", "no", "[SEP]", "[a, b]", "'", '"', "!", ":"])
def test_an_option_of_text_takes_what_looks_like_another_value(separator: str) -> None:
    found = config.read("shakespeare-documents", [f"data.separator={separator}"]).data
    assert DATA.options(found.kind, found.model_extra or {}).separator == separator


def test_later_values_replace_earlier_ones_within_their_section() -> None:
    assert assigned(["a.b=1", "a.c=[2]", "a.b=3"], "it") == {"a": {"b": 3, "c": [2]}}
    for wrong in ("a", "=1", "a..b=1", ".a=1"):
        with pytest.raises(UserError, match="is written key=value"):
            assigned([wrong], "it")

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from mar.data import DATA
from mar.tokenizers import TOKENIZERS

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_every_kind_and_option_is_on_the_page_with_its_default():
    for family in (DATA, TOKENIZERS):
        for kind, cls in family.items():
            if kind == "memory":  # made by mar.fit, not by a recipe
                continue
            line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{kind}` |"))
            for option in fields(cls.Options):
                default = str(option.default).lower() if isinstance(option.default, bool) else option.default
                assert f"`{option.name}={default}`" in line or (option.default == "" and f"`{option.name}`" in line)

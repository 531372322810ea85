from __future__ import annotations

from pathlib import Path

from mar import build

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_every_kind_and_option_is_on_the_page_with_its_default():
    for family, kinds in (("data", build.DATA), ("tokenizer", build.TOKENIZERS)):
        for kind in kinds:
            line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{kind}` |"))
            for option in build.find(family, kind).Options.__dataclass_fields__.values():
                default = str(option.default).lower() if isinstance(option.default, bool) else option.default
                assert f"`{option.name}={default}`" in line or (option.default == "" and f"`{option.name}`" in line)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mar import build
from mar.data import DATA, base
from mar.tokenizers import TOKENIZERS

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_the_example_of_the_page_runs():
    code = PAGE.split("```python\n")[1].split("```")[0]
    names = {**vars(base), "dataclass": dataclass, "torch": torch, "__name__": __name__}
    exec(code, names)
    data = names["Stripes"].load(names["StripesOptions"](n=6))
    x, label = data.train.batch(torch.tensor([0, 5]))
    assert x.shape == (2, 1, 8, 8) and label.tolist() == [0, 1] and int(x.max()) < data.spec.levels


def test_every_kind_and_option_is_on_the_page_with_its_default():
    for family, kinds in (("data", DATA), ("tokenizer", TOKENIZERS)):
        for kind in kinds:
            line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{kind}` |"))
            for option in build.FAMILIES[family].find(kind).Options.__dataclass_fields__.values():
                default = str(option.default).lower() if isinstance(option.default, bool) else option.default
                assert f"`{option.name}={default}`" in line or (option.default == "" and f"`{option.name}`" in line)

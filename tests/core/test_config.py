"""Recipes read both names of the objective, and stay what they were."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mar import config


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (["train.objective=next_set"], ["train.mask_ratio=plan"]),
        (["train.objective.kind=any_order", "train.objective.targets=next"], ["train.mask_ratio.targets=next"]),
        (
            ["train.objective=mar_masking", "train.objective.low=0.5"],
            ["train.mask_ratio=truncated-normal", "train.mask_ratio.low=0.5"],
        ),
    ],
)
def test_the_objective_has_its_old_name_too(new: list[str], old: list[str]) -> None:
    recipe = config.read("digits", new)
    assert config.read("digits", old) == recipe
    stored = recipe.as_dict()
    assert "mask_ratio" in stored["train"] and config.parse(stored) == recipe


def test_recipes_are_read_without_torch() -> None:
    code = (
        "import sys; from mar import config; from mar.core import files, records; config.read('digits', ['seed=1']); "
    )
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

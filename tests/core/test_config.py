"""Recipes read both names of the objective, stay what they were, and read their own keys alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mar import config
from mar.core.errors import UserError
from mar.experiments.grid import read as read_grid


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


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a/${oc.decode:'1'}", "${${name}:HOME}", "${oc.env:${name}}"])
def test_a_file_from_elsewhere_cannot_read_the_environment(tmp_path: Path, text: str) -> None:
    for key, read_file in (("name", config.read), ("notes", read_grid)):
        file = tmp_path / f"{key}.yaml"
        file.write_text(f'{key}: ["{text}"]\nrecipe: digits\n')
        with pytest.raises(UserError, match="calls a resolver") as error:
            read_file(str(file))
        assert "\n" not in str(error.value) and str(file) in str(error.value)


def test_a_file_reads_its_own_keys(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text('name: b\ndata: {kind: folder, path: "/data: ${name}:${train.iterations}"}\n')
    with pytest.raises(UserError, match="iterations"):
        config.read(str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text('name: b\ndata: {kind: folder, path: "/data: ${name}: {x: 1}"}\n')
    assert config.read(str(tmp_path / "mine.yaml")).data.model_extra == {"path": "/data: b: {x: 1}"}

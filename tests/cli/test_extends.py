"""Recipes that extend others, and the folders of runs and data in the environment."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from mar import build, config
from mar.cli.main import app
from mar.core.errors import UserError
from mar.core.files import runs_folder


def written(folder, name, text):
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_recipe_is_its_parents_with_its_own_keys(tmp_path):
    written(tmp_path, "parent.yaml", "extends: digits\nname: parent\nseed: 5\ntrain: {iterations: 7, clip: 1.5}")
    child = written(tmp_path, "child.yaml", "extends: parent.yaml\ntrain: {iterations: 9}\nnetwork: {kind: made}")
    recipe, digits = config.read(child), config.read("digits")
    assert (recipe.name, recipe.seed, recipe.train.iterations, recipe.train.clip) == ("child", 5, 9, 1.5)
    assert recipe.train.batch_size == digits.train.batch_size and recipe.head == digits.head
    assert recipe.network.model_extra == {}, "another kind has none of the parent's options"
    assert "extends" not in recipe.as_dict()


def test_what_is_inherited_is_the_recipe_that_was_written_out():
    """MAR-H: the widths and depths of Table 4 beside everything of MAR-L."""
    huge, large = (config.read(f"imagenet256-mar-{size}").as_dict() for size in ("huge", "large"))
    assert huge["head"] == large["head"] | {"width": 1536, "depth": 12}
    assert huge["network"] == large["network"] | {"size": "huge"}
    assert {key for key in huge if huge[key] != large[key]} == {"name", "network", "head"}
    cross = config.read("imagenet256-table1-raster-causal-ce").as_dict()
    assert cross["head"] == {"kind": "categorical"} and cross["tokenizer"] == {"kind": "vq"}
    assert cross["train"]["mask_ratio"] == {"kind": "plan"}


@pytest.mark.parametrize(("parent", "words"), [("loop.yaml", "extends it in turn"), ("digit", "did you mean 'digits'")])
def test_a_parent_that_is_none_is_one_line(parent, words, tmp_path):
    with pytest.raises(UserError, match=words):
        config.read(written(tmp_path, "loop.yaml", f"extends: {parent}"))


def test_runs_and_data_lie_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("MAR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MAR_DATA", str(tmp_path))
    (tmp_path / "text").mkdir()
    written(tmp_path / "text", "a.txt", "to be or not to be, " * 100)
    assert runs_folder() == tmp_path / "runs"
    overrides = ["data.context=8", "network.width=8", "network.depth=1", "network.heads=2", "train.iterations=2"]
    done = CliRunner().invoke(app, ["train", "shakespeare", *overrides, "data.path=text", "train.sample_every=0"])
    assert done.exit_code == 0, done.output
    assert "path: text\n" in (tmp_path / "runs" / "shakespeare" / "recipe.yaml").read_text()
    by_kind = build.data(config.read("shakespeare", ["data.context=8"]))
    assert (
        by_kind.fingerprint == build.data(config.read("shakespeare", ["data.context=8", "data.path=text"])).fingerprint
    )
    monkeypatch.delenv("MAR_DATA")
    with pytest.raises(UserError, match=r"data\.path"):
        build.data(config.read("shakespeare"))

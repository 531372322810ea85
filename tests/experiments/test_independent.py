"""The closed-form baseline of independent tokens."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mar import build, config
from mar.experiments.engine import Engine, assemble
from mar.experiments.grid import read
from mar.metrics.nll import NLL, independent_tokens, smoothed
from mar.run import to_measure
from mar.tokenizers import TOKENIZERS


def test_probabilities_are_smoothed_counts() -> None:
    token_NL = torch.tensor([[0, 2], [0, 1], [1, 1]])
    p_CLV = smoothed(token_NL, torch.tensor([0, 0, 1]), 3, 2)
    expected = torch.tensor([[[3, 1, 1], [1, 2, 2]], [[1, 2, 1], [1, 2, 1]]], dtype=torch.float64)
    torch.testing.assert_close(p_CLV, expected / expected.sum(-1, keepdim=True))


def test_digits_have_the_known_figure() -> None:
    """2.43 bits/dim, class ignored; and the sum over positions is the whole."""
    recipe = config.read("digits")
    data = build.data(recipe)
    marginal, by_class = independent_tokens(
        data, build.assemble(recipe, data).model.tokenizer, "test", None, conditional=True
    )
    assert marginal.answer.n_images == 360
    assert marginal.answer.bits_per_dim == pytest.approx(2.43, abs=0.01)
    assert by_class.answer.nats_per_image < marginal.answer.nats_per_image
    assert math.fsum(marginal.answer.nats_per_position) == pytest.approx(marginal.answer.nats_per_image)


def test_vectors_have_no_such_baseline() -> None:
    recipe = config.read("digits", ["tokenizer=patches", "head=diffusion"])
    data = build.data(recipe)
    tokenizer = TOKENIZERS["patches"](
        data.spec, TOKENIZERS.options(recipe.tokenizer.kind, recipe.tokenizer.model_extra)
    )
    assert independent_tokens(data, tokenizer, "test", 4, True) == ()


def test_images_in_patches_of_vectors_have_the_baseline_of_their_pixels() -> None:
    """In bits/dim both are of the integer images: 2.43, and by class less."""
    recipe = config.read("digits", ["tokenizer=patches", "head=diffusion"])
    found = list(NLL(NLL.Options(), {}).baselines(recipe, build.data(recipe)))
    assert [each.plan for each in found] == ["independent tokens", "independent tokens, by class"]
    assert found[0].answer.bits_per_dim == pytest.approx(2.43, abs=0.01)


def test_tokens_that_are_fitted_have_a_baseline_of_the_fitted_ones() -> None:
    """Before k-means every patch has token 0, for almost no nats."""
    recipe = config.read("digits", ["tokenizer=palette", "tokenizer.patch=2", "tokenizer.colours=16"])
    data = build.data(recipe)
    (found, _) = NLL(NLL.Options(), {}).baselines(recipe, data)
    tokenizer = build.tokenizer(recipe, data)
    tokenizer.fit(to_measure(data))
    train_NL, test_NL = (
        tokenizer.encode(split.batch(torch.arange(len(split)))[0]) for split in (data.train, data.test)
    )
    count_LV = torch.stack([torch.bincount(column, minlength=16) for column in train_NL.T]) + 1.0
    nats_L = -(count_LV / count_LV.sum(1, keepdim=True)).log().gather(1, test_NL.T).mean(1)
    assert found.answer.nats_per_image > 16.0
    assert found.answer.nats_per_image == pytest.approx(float(nats_L.sum()), rel=1e-5)


def test_each_kind_of_tokens_has_its_own_baseline(tmp_path: Path) -> None:
    grid = """recipe: digits
axes:
  tokens:
    - {name: patches, tokenizer: {kind: patches, patch: 2}, head: {kind: gaussian-mixture}}
    - {name: levels, tokenizer: {kind: patches, patch: 4}, head: {kind: gaussian-mixture}}
    - {name: palette, tokenizer: {kind: palette, colours: 4}}
fid: null
"""
    (tmp_path / "grid.yaml").write_text(grid)
    result = assemble(Engine(read(str(tmp_path / "grid.yaml")), tmp_path / "out"))
    names = ["independent tokens", "independent tokens, by class"]
    assert [row.name for row in result.baselines] == [*names, *(f"{name} (palette)" for name in names)]
    assert [row.likelihood.bits_per_dim is None for row in result.baselines] == [False, False, True, True]


def test_documents_of_their_own_lengths_have_no_such_baseline(tmp_path: Path) -> None:
    """A table of counts would be of what fills them up."""
    (tmp_path / "input.txt").write_text("\n\n".join("abcdefgh"[k % 5 :] for k in range(60)))
    recipe = config.read("shakespeare-documents", [f"data.path={tmp_path}"])
    data = build.data(recipe)
    tokenizer = build.assemble(recipe, data).model.tokenizer
    assert tokenizer.end is not None and independent_tokens(data, tokenizer, "test", None, True) == ()


def test_a_class_that_training_lacks_has_probabilities() -> None:
    p_CLV = smoothed(torch.tensor([[0, 2]]), torch.tensor([0]), 3, 2)
    torch.testing.assert_close(p_CLV[1], torch.full((2, 3), 1 / 3, dtype=torch.float64))


def test_pixels_without_classes_are_not_probed(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    splits = {name: rng.integers(0, 2, (6, 5), np.uint8) for name in ("train", "valid", "test")}
    np.savez(tmp_path / "some.npz", **splits)
    grid = f"recipe: uci\noverrides: [data.path={tmp_path}/some.npz]\naxes: {{seed: [0]}}\nfid: null\nprobe: {{}}"
    (tmp_path / "grid.yaml").write_text(grid)
    result = assemble(Engine(read(str(tmp_path / "grid.yaml")), tmp_path / "out"))
    assert [row.name for row in result.baselines] == ["independent tokens"]

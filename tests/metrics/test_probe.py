"""The linear probe reads from contexts what is in them, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mar import build, config
from mar.core.errors import UserError
from mar.core.noise import stream
from mar.data.base import Data, TensorSplit
from mar.metrics.probe import features, fit, linear_probe
from orderings import Grid, Plan, parse_ordering, parse_partition

OPTIONS = {
    "lstm": ["network=lstm", "network.width=8"],
    "nade": ["network=nade", "network.widths=[16]"],
    "made": ["network=made", "network.widths=[16]"],
}


def model_of(kind: str, digits: Data):
    recipe = config.read("digits", [*OPTIONS[kind], "train.objective=next_set", "ordering=raster"])
    return build.assemble(recipe, digits).model


def test_classes_that_a_line_separates_are_read_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    label_N = np.arange(300) % 3
    separate_ND, noise_ND = 10.0 * np.eye(3)[label_N] + rng.normal(size=(300, 3)), rng.normal(size=(300, 3))
    train, test = slice(200), slice(200, None)
    seen = fit((separate_ND[train], label_N[train]), (separate_ND[test], label_N[test]), 1.0, 1)
    blind = fit((noise_ND[train], label_N[train]), (noise_ND[test], label_N[test]), 1.0, 1)
    assert seen.accuracy > 0.99 and blind.accuracy < 0.5 and (seen.n_train, seen.n_test, seen.width) == (200, 100, 3)


@pytest.mark.parametrize("kind", OPTIONS)
def test_features_are_the_mean_context_of_the_tokens(kind: str, digits: Data) -> None:
    model = model_of(kind, digits).eval()
    x, _ = digits.test.batch(torch.arange(3))
    plan = Plan.sample(parse_ordering("random"), parse_partition("equal:16"), Grid((8, 8)), 3, stream(0, "t", 3))
    token, condition_BC = model.tokenizer.encode(x), model.null_condition(3)
    total = torch.zeros(3, model.network.context_width)
    for step in range(4):
        for row in range(3):
            one = slice(row, row + 1)
            z_MD = model.context(token[one], plan.step_BL[one], condition_BC[one], plan.target(step)[one])
            total[row] += z_MD.sum(0)
    torch.testing.assert_close(features(model, x, plan), total.detach() / 64, rtol=1e-4, atol=1e-5)


def test_no_class_is_told(digits: Data) -> None:
    """With the labels of another image the features stay what they are: only the classifier sees labels."""
    model = model_of("lstm", digits).eval()
    few = [TensorSplit(split.x[:60], split.label[:60]) for split in (digits.train, digits.test)]
    data = replace(digits, train=few[0], test=few[1])
    probe = linear_probe(model, data, parse_ordering("raster"))
    model.classes.weight.data.fill_(float("nan"))
    assert linear_probe(model, data, parse_ordering("raster")) == probe


def test_data_without_classes_is_refused(digits: Data) -> None:
    data = SimpleNamespace(name="plain", spec=SimpleNamespace(n_classes=0))
    with pytest.raises(UserError, match="classes"):
        linear_probe(model_of("lstm", digits), data, parse_ordering("raster"))  # type: ignore[arg-type]

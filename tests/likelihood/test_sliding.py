"""Text and sound scored after a past: every token once, each as if the window began earlier."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mar import config
from mar.core.errors import Unsupported, UserError
from mar.core.spec import DataSpec
from mar.data.base import Windows, sliding
from mar.likelihood.estimate import mixture_of_draws
from mar.likelihood.summary import Conditionals, summarise
from mar.run import Run, load, train
from mar.tokenizers.patches import Patches, PatchesOptions
from orderings import GIVEN
from tests.likelihood.test_estimate import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sliding")
    (folder / "text.txt").write_text("to be or not to be that is the question " * 60)
    made = config.read("shakespeare", [
        f"data.path={folder / 'text.txt'}", "data.context=16", "network.kind=wavenet", "network.width=8",
        "network.layers=2", "network.position=none", "train.iterations=3", "train.batch_size=4", "train.sample_every=0",
        "train.validate_every=0",
    ])  # fmt: skip
    train(made, folder / "run")
    return load(folder / "run")


@pytest.mark.parametrize("past", [0, 1, 5, 15])
def test_every_token_of_every_stretch_is_new_once_after_its_past(past: int) -> None:
    span_R2 = torch.tensor([[0, 16], [16, 57], [60, 79]])
    series_T = torch.arange(80)
    windows = Windows(series_T, torch.tensor([0, 16, 32, 60]), 16, torch.tensor([3, 4, 4, 5]), span_R2)
    x, label_N, given_NL = sliding(windows, past)
    assert label_N is not None
    assert torch.equal(x[:, 0, 0][~given_NL].sort().values, torch.cat([torch.arange(a, b) for a, b in span_R2]))
    for row_L, new_L, label in zip(x[:, 0, 0], ~given_NL, label_N, strict=True):
        first = int(span_R2[int(label) - 3, 0])
        assert int(row_L[0]) >= first and int(row_L[-1]) < int(span_R2[int(label) - 3, 1])
        assert int(new_L.int().argmax()) >= min(past, int(row_L[new_L][0]) - first)
    with pytest.raises(UserError, match="less is possible"):
        sliding(windows, 16)


def test_a_token_costs_what_it_does_in_the_middle_of_a_window(run: Run) -> None:
    """Four samples are all that this network sees: after as many given ones the past of a window is complete."""
    images, _ = run.subset("test", 4)
    whole = run.nll(images)
    given_NL = torch.zeros(4, 16, dtype=torch.bool)
    given_NL[:, :9] = True
    after = run.nll(images, given=given_NL)
    assert sum(after.tokens_per_step) == 7
    assert after.nats_per_position[9:] == pytest.approx(whole.nats_per_position[9:], abs=1e-5)
    assert after.bits_per_dim == pytest.approx(after.nats_per_image / 7 / 0.6931471805599453)


def test_windows_after_a_past_leave_the_split_s_nats_where_they_are_complete(run: Run) -> None:
    """With a network of a short sight any past beyond it gives the same figure, another way of cutting the same sum."""
    scored = []
    for past in (8, 12):
        images, labels, given_NL = sliding(run.data.test, past)
        result = run.nll(images, labels=labels, given=given_NL)
        scored.append(result.nats_per_image * result.n_images)
    assert scored[0] == pytest.approx(scored[1], rel=1e-6)


def test_shared_orders_and_rules_take_no_past(run: Run) -> None:
    images, _, given_NL = sliding(run.data.test, 4)
    with pytest.raises(Unsupported, match="after a given past"):
        run.nll(images, "lowest-entropy", given=given_NL)


def test_scored_tokens_alone_bring_their_jacobian_and_their_dimension() -> None:
    """Samples of sound as vectors of one channel, the first half of them given: a scale by two is a bit for each."""
    model, step_NL = tiny(), torch.tensor([[GIVEN] * 4 + [0, 1, 2, 3]] * 3)
    model.tokenizer = Patches(DataSpec((1, 1, 8), 256, modality="audio"), PatchesOptions(patch=1))
    nats_NL = torch.ones(3, 8) * (step_NL >= 0)
    found = summarise(model.tokenizer, "raster", Conditionals(step_NL, nats_NL, "exact", 1, 3))
    bits = 1.0 / 0.6931471805599453 + 7.0  # a level is 2 / 256 of the interval that densities are of
    assert found.bits_per_dim == pytest.approx(bits)
    assert found.nats_per_image == pytest.approx(4 * bits * 0.6931471805599453)
    draws = mixture_of_draws(model.tokenizer, [found, replace(found)])
    assert draws.bits_per_dim == pytest.approx(bits) and draws.nats_per_image == pytest.approx(found.nats_per_image)

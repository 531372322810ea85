"""Sharded training (FSDP), activations computed again, and micro-batches change where numbers lie, not what they are.

Two processes each. Sums are taken in another order than under DDP: weights agree to 1e-3 relative, 1e-4 absolute.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mar import config
from mar.build import assemble
from mar.core.errors import Unsupported
from mar.training.blocks import recompute_blocks, transformer_blocks
from tests.faults.conftest import Trained
from tests.faults.processes import Running, kill_itself
from tests.training.test_loop import assert_equal, weights

WITHOUT_DROPOUT = ["network.projection_dropout=0", "network.attention_dropout=0"]
REPORTS = ["train.validate_every=5", "train.sample_every=11", "train.validation_examples=16"]


def trained(path: Path, *overrides: str, iterations: int = 11, hurt=None, code: int = 0) -> Trained:
    run = Trained(path)
    running = Running(path / "logs", run.command(iterations, *WITHOUT_DROPOUT, *REPORTS, *overrides), 2, hurt)
    assert running.wait()[0] == code, running.said
    return run


def validations(run: Trained) -> list[float]:
    from mar.training.run_folder import RunFolder

    lines = RunFolder(run.path).history()
    return [line["validation_nats_per_token"] for line in lines if "validation_nats_per_token" in line]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.parallel=fsdp"],
        ["train.parallel=fsdp", "train.accumulation=2", "train.checkpoint_activations=true"],
        ["train.checkpoint_activations=true"],
    ],
    ids=["fsdp", "fsdp, accumulated, recomputed", "recomputed"],
)
def test_how_a_model_is_spread_changes_neither_weights_nor_averages_nor_validation(tmp_path, whole, overrides):
    run = trained(tmp_path / "run", *overrides)
    left, right = weights(whole.path), weights(run.path)
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-3, atol=1e-4, msg=name)
    assert validations(run) == pytest.approx(validations(whole), rel=1e-3) and len(validations(run)) == 3
    assert list((run.path / "samples").glob("training-00000011*"))


def test_a_sharded_run_resumes_bit_for_bit_and_any_number_of_processes_goes_on(tmp_path, whole):
    undisturbed = trained(tmp_path / "undisturbed", "train.parallel=fsdp")
    rename = "mar.training.checkpoint:save", 1
    killed = trained(tmp_path / "killed", "train.parallel=fsdp", hurt=(kill_itself, rename), code=-9)
    assert killed.saved == 5
    trained(killed.path, "train.parallel=fsdp")
    assert_equal(undisturbed.path, killed.path)
    moved = trained(tmp_path / "moved", "train.parallel=fsdp", "train.keep_best=true", iterations=5)
    alone = Running(moved.path / "logs", moved.command(11, *WITHOUT_DROPOUT, *REPORTS, "train.keep_best=true"))
    assert alone.wait() == [0], alone.said
    left, right = weights(whole.path), weights(moved.path)
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("network", ["masked-transformer", "causal-transformer"])
def test_gradients_of_recomputed_blocks_are_identical_dropout_included(network):
    recipe = config.read("digits", [f"network={network}", "network.projection_dropout=0.2"])
    built = assemble(recipe).model.train()
    token, step = torch.randint(17, (4, 64)), torch.rand(4, 64).argsort(1) // 8
    inputs = token, step, built.null_condition(4), step == 5

    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)
        built.zero_grad()
        built.context(*inputs).square().sum().backward()
        return [p.grad.clone() for p in built.network.parameters() if p.grad is not None]

    before = gradients()
    calls = len(transformer_blocks(built))
    recompute_blocks(built)
    assert calls and all(torch.equal(a, b) for a, b in zip(before, gradients(), strict=True))


def test_a_network_without_blocks_has_nothing_to_compute_again():
    recipe = config.read("digits", ["network=made", "ordering=raster"])
    with pytest.raises(Unsupported, match="wants Transformer blocks"):
        recompute_blocks(assemble(recipe).model)


def test_what_sharding_cannot_do_is_refused(tmp_path):
    run = Trained(tmp_path)
    asked = run.command(5, "train.parallel=fsdp", "train.scheduled_sampling.probability=0.5")
    running = Running(tmp_path / "logs", asked, 2)
    assert running.wait() == [2, 2] and "use train.parallel=ddp" in running.said, running.said

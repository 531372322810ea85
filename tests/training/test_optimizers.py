"""Optimizers by name, Muon beside AdamW, and schedules of the learning rate."""

from __future__ import annotations

import pytest
import torch

from mar import build, config
from mar.config import Schedule, Train
from mar.core.errors import MarError
from mar.run import train
from mar.training.loop import learning_rate
from mar.training.optimizers import hidden_matrices, make_optimizer
from tests.training.test_loop import assert_equal, train_killed_and_resumed


def rates(kind: str, **settings: float) -> list[float]:
    schedule = Schedule(kind=kind, warmup=10, **settings)  # type: ignore[arg-type]
    return [learning_rate(Train(learning_rate=0.5, schedule=schedule), iteration, 110) for iteration in range(110)]


def test_every_schedule_has_its_values() -> None:
    for kind in ("constant", "cosine", "linear", "wsd"):
        assert rates(kind)[:10] == pytest.approx([0.05 * n for n in range(1, 11)])
    assert set(rates("constant")[10:]) == {0.5}
    assert rates("cosine", final=0.2)[60] == pytest.approx(0.3)
    assert rates("linear", final=0.2)[60] == pytest.approx(0.3) and rates("linear")[109] == pytest.approx(0.005)
    stable = rates("wsd", decay=0.4, final=0.2)  # falls over the last 44 of 110
    assert set(stable[10:67]) == {0.5} and stable[66 + 11] == pytest.approx(0.5 * (1 - 0.8 / 4))


def test_the_default_is_in_no_fingerprint_and_another_optimizer_is() -> None:
    plain, other = config.read("digits"), config.read("digits", ["train.optimizer=lion", "train.schedule.kind=wsd"])
    content = plain.as_dict()["train"]
    assert "optimizer" not in content and "decay" not in content["schedule"]
    assert other.as_dict()["train"]["optimizer"] == {"kind": "lion"} and config.parse(other.as_dict()) == other
    assert other.fingerprint() != plain.fingerprint()


def test_muon_turns_hidden_matrices_and_adamw_does_the_rest(tiny: list[str]) -> None:
    """A step of Muon moves along the nearest semi-orthogonal matrix of the gradient, as fast as AdamW would."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch before 2.9")
    settings = [*tiny, "train.learning_rate=1e-3", "train.weight_decay=0.5"]
    recipe = config.read("digits", [*settings, "train.optimizer=muon"])
    model, twin = build.assemble(recipe).model, build.assemble(recipe).model
    hidden = hidden_matrices(model)
    names = {name for name, p in model.named_parameters() if any(p is one for one in hidden)}
    assert all(name.startswith("network.") and "position" not in name for name in names) and len(hidden) == 9
    optimizers = make_optimizer(model, recipe.train), make_optimizer(twin, config.read("digits", settings).train)
    before = [p.detach().clone() for p in hidden]
    for one in (model, twin):
        torch.manual_seed(1)
        for p in one.parameters():
            p.grad = torch.randn_like(p)
    gradients = [p.grad for p in hidden]
    for optimizer in optimizers:
        optimizer.step()
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs) == (name not in names), name
    for p, old, gradient in zip(hidden, before, gradients, strict=True):
        assert gradient is not None
        u, _, v = torch.linalg.svd(gradient, full_matrices=False)
        size = 1e-3 * 0.2 * max(p.shape) ** 0.5
        step = (old * (1 - 1e-3 * 0.5) - p.detach()) / size
        assert float((step * (u @ v)).sum()) / min(p.shape) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("name", ["muon", "sgd", "adafactorbv"])
def test_a_killed_run_resumes_bit_for_bit_with_every_kind_of_state(name, tmp_path, tiny, monkeypatch):
    overrides = [*tiny, f"train.optimizer={name}", "train.learning_rate=1e-4"]
    train(config.read("digits", overrides), tmp_path / "whole")
    train_killed_and_resumed(overrides, tmp_path / "parts", monkeypatch)
    assert_equal(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.optimizer=adamv"], "did you mean .adam"),
        (["train.optimizer=muon", "train.optimizer.momentums=0.9"], "momentums"),
        (["train.optimizer=adahessian"], "second derivatives"),
        (["train.optimizer=bnbadam"], "bnbadam"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(overrides, words, tiny, tmp_path):
    with pytest.raises(MarError, match=words) as error:
        train(config.read("digits", [*tiny, *overrides]), tmp_path)
    assert "\n" not in str(error.value) and not (tmp_path / "recipe.yaml").exists()

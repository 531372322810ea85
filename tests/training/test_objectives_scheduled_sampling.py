"""Scheduled sampling: which tokens are replaced, by what, when, and that a killed run resumes bit for bit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mar import build, config
from mar.config import ScheduledSampling
from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.processes import Processes
from mar.core.tokens import Categories
from mar.heads.categorical import CategoricalHead
from mar.model.model import Model
from mar.run import train
from mar.training.job import ModelJob
from mar.training.loop import Trainer
from mar.training.objectives import AnyOrder, NextSet, Task, replace_with_model_samples
from mar.training.run_folder import RunFolder
from orderings import GIVEN, Grid, Plan, PlanSpec
from tests.helpers import OnePass
from tests.training.test_loop import assert_equal, train_killed_and_resumed, weights

B = 12
ON = "train.scheduled_sampling={probability: 0.7, start: 0.1, ramp: 0.5}"


@pytest.fixture(params=["step by step", "one pass"])
def model(request, recipe) -> Model:
    built = build.assemble(recipe).model
    torch.manual_seed(0)
    if request.param == "one pass":
        head = CategoricalHead(8, Categories(17), CategoricalHead.Options())
        built = Model(built.tokenizer, OnePass((8, 8), OnePass.Options()), head)
    for parameter in built.parameters():  # so that a draw depends on what it is given
        parameter.data += 0.3 * torch.randn_like(parameter)
    return built.train()


def task_of(model: Model, mask_ratio, text: str) -> tuple[Plan, Task]:
    plan = Plan.sample(*PlanSpec.parse(text), Grid((8, 8)), B, stream(0, "order", B))
    return plan, mask_ratio.task(plan, torch.arange(B), stream(0, "iteration", 1), model.network.one_pass)


def seen_by(model: Model, token: torch.Tensor, task: Task, probability: float) -> torch.Tensor:
    label_B, drop_B = torch.full((B,), -1), torch.zeros(B, dtype=torch.bool)
    return replace_with_model_samples(model, token, label_B, drop_B, task, probability, stream(3, "scheduled", B))


def tokens(seed: int) -> torch.Tensor:
    return torch.randint(17, (B, 64), generator=torch.Generator().manual_seed(seed))


def known(model: Model, task: Task) -> torch.Tensor:
    """known_BL: what some target is predicted from."""
    targets = torch.where(task.target_BL, task.step_BL, GIVEN if model.network.one_pass else 2**30)
    return task.step_BL < (targets.amax(1) if model.network.one_pass else targets.amin(1))[:, None]


TASKS = [(AnyOrder(), "random"), (NextSet(), "random/linear:4"), (NextSet(), "raster")]


@pytest.mark.parametrize("mask_ratio, text", TASKS)
def test_about_the_wanted_share_of_the_known_tokens_and_no_other_is_replaced(model, mask_ratio, text):
    _, task = task_of(model, mask_ratio, text)
    for parameter in model.head.parameters():
        parameter.data.zero_()
    model.head.logits.bias.data[16] = -100.0  # the model never draws a 16, so that what is replaced shows
    token, known_BL = torch.full((B, 64), 16), known(model, task)
    assert torch.equal(seen_by(model, token, task, 0.0), token)
    assert torch.equal(seen_by(model, token, task, 1.0) != 16, known_BL) and model.training
    some_BL, n = seen_by(model, token, task, 0.4) != 16, int(known_BL.sum())
    assert not (some_BL & ~known_BL).any()
    assert abs(float(some_BL.sum()) - 0.4 * n) < 4.0 * math.sqrt(0.24 * n)


@pytest.mark.parametrize("mask_ratio, text", TASKS)
def test_a_draw_depends_on_what_it_is_given_and_on_nothing_else(model, mask_ratio, text):
    """All known tokens replaced: drawn from nothing, or in a one-pass network from the data of earlier steps."""
    plan, task = task_of(model, mask_ratio, text)
    known_BL = known(model, task)
    one, other = (seen_by(model, tokens(seed), task, 1.0) for seed in (0, 1))
    if not model.network.one_pass:
        assert torch.equal(one[known_BL], other[known_BL])
        return
    first_BL = known_BL & (plan.step_BL == 0)
    assert torch.equal(one[first_BL], other[first_BL]) and not torch.equal(one[known_BL], other[known_BL])
    early_BL = plan.step_BL < 2
    mixed = torch.where(early_BL, tokens(0), tokens(1))  # differs from step 2 on
    upto_BL = known_BL & (plan.step_BL <= 2)
    assert torch.equal(seen_by(model, mixed, task, 1.0)[upto_BL], one[upto_BL])


def test_draws_follow_the_models_conditional_given_what_stays(model):
    _, task = task_of(model, AnyOrder(), "random")
    token, noise = tokens(0), stream(3, "scheduled", B)
    seen = seen_by(model, token, task, 0.5)
    chosen_BL = known(model, task) & (noise.at("which").uniform(64) < 0.5)
    stays_BL = known(model, task) & ~chosen_BL
    step_BL = task.step_BL if model.network.one_pass else torch.where(stays_BL, GIVEN, 0)
    model.eval()
    with torch.no_grad():
        z_MD = model.context(token, step_BL, model.condition(torch.full((B,), -1)), chosen_BL)
        by_hand = model.head.sample(z_MD, noise.at("draw").tokens(*chosen_BL.nonzero(as_tuple=True)))
    assert len(by_hand) and torch.equal(seen[chosen_BL], by_hand)
    assert torch.equal(seen[~chosen_BL], token[~chosen_BL])


def test_the_probability_ramps_over_training():
    schedule = ScheduledSampling(probability=0.4, start=0.2, ramp=0.5)
    assert [schedule.at(p) for p in (0.0, 0.19, 0.2, 0.45, 0.7, 1.0)] == pytest.approx([0, 0, 0, 0.2, 0.4, 0.4])
    assert ScheduledSampling(probability=0.4, ramp=0.0).at(0.0) == 0.4 and ScheduledSampling().at(1.0) == 0.0


def trainer(overrides: list[str], path: Path) -> Trainer:
    processes, folder = Processes("fp32"), RunFolder(path)
    return Trainer(ModelJob(build.assemble(config.read("digits", overrides)), folder, processes), folder, processes)


def test_what_is_scored_stays_the_datas_and_validation_replaces_nothing(tmp_path, tiny):
    off, on = trainer(tiny, tmp_path / "off"), trainer([*tiny, ON], tmp_path / "on")
    batch = off.batches.at(8)[0]
    done = 8 / off.train.iterations
    off.losses.train(), on.losses.train()
    task = off.job.ask(off.losses, batch, 8, done)
    unknown_B = (task.step_BL != GIVEN).all(1)  # nothing known, so nothing to replace

    def losses_B(done: float) -> list[torch.Tensor]:
        return [each.job.loss_B(each.losses, batch, task, done) for each in (off, on)]

    with torch.no_grad():
        without, replaced = losses_B(done)
        assert not torch.equal(without, replaced) and torch.allclose(without[unknown_B], replaced[unknown_B])
        off.losses.eval(), on.losses.eval()
        assert torch.equal(*losses_B(done))
        off.losses.train(), on.losses.train()
        assert torch.equal(*losses_B(0.0))  # before the start
    off.batches.close()


def test_a_killed_run_resumes_bit_for_bit(tmp_path, tiny, monkeypatch):
    overrides = [*tiny, ON, "network.projection_dropout=0.1", "data.validation=1000", "train.batch_size=48"]
    train(config.read("digits", overrides), tmp_path / "whole")
    train_killed_and_resumed(overrides, tmp_path / "parts", monkeypatch)
    assert_equal(tmp_path / "whole", tmp_path / "parts")
    train(config.read("digits", [o for o in overrides if o != ON]), tmp_path / "off")
    on, off = weights(tmp_path / "whole"), weights(tmp_path / "off")
    assert any(not torch.equal(on[name], off[name]) for name in on)


def test_a_recipe_without_it_is_written_as_before(tiny):
    off, on = build.resolve(config.read("digits", tiny)), build.resolve(config.read("digits", [*tiny, ON]))
    assert "scheduled_sampling" not in off.as_dict()["train"]
    assert on.as_dict()["train"]["scheduled_sampling"] == {"probability": 0.7, "start": 0.1, "ramp": 0.5}
    assert config.parse(on.as_dict()) == on and on.fingerprint() != off.fingerprint()
    with pytest.raises(UserError, match=r"did you mean 'train\.scheduled_sampling\.probability'"):
        config.read("digits", ["train.scheduled_sampling.probabilty=0.1"])


def test_a_network_with_a_new_connectivity_each_iteration_is_trained_on_it(tmp_path):
    asked = [
        "network=made",
        "network.widths=[8]",
        "network.masks=0",
        "train.batch_size=4",
        "train.scheduled_sampling={probability: 1, ramp: 0}",
    ]
    run = trainer([*asked, "train.validate_every=0", "train.sample_every=0"], tmp_path)
    used, network = [], run.model.network
    network.register_forward_pre_hook(lambda module, _: used.append(module.drawn_H))
    run.step(run.batches.at(0))
    network.resample(stream(run.job.seed, "structure", torch.tensor([0])))
    assert used[-1] is not None and torch.equal(used[-1], network.drawn_H)
    run.batches.close()

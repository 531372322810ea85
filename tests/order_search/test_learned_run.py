"""A learned order from the command line: train, resume, sample, score."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from mar import build, config, load
from mar.cli.main import app
from mar.core.errors import Unsupported, UserError
from mar.metrics.nll import NllRequest, nll_question
from mar.run import train
from mar.training.loop import Trainer
from tests.training.conftest import TINY
from tests.training.test_loop import assert_equal

LEARNED = [*TINY, "ordering=learned"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "learned"
    train(config.read("digits", LEARNED), path)
    return path


def test_a_killed_run_resumes_bit_for_bit(folder, tmp_path, monkeypatch):
    step = Trainer.step

    def killed(self, batches):
        if self.iteration == 7:
            raise RuntimeError("killed")
        return step(self, batches)

    monkeypatch.setattr(Trainer, "step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        train(config.read("digits", LEARNED), tmp_path / "parts")
    monkeypatch.undo()
    train(config.read("digits", LEARNED), tmp_path / "parts")
    assert_equal(folder, tmp_path / "parts")


def test_the_rest_of_the_model_starts_as_under_random_orders():
    recipes = [config.read("digits", [*TINY, f"ordering={kind}"]) for kind in ("learned", "random")]
    learned, random = (build.assemble(recipe).model.state_dict() for recipe in recipes)
    assert {k for k in learned if not k.startswith("policy.")} == random.keys()
    assert all(torch.equal(learned[k], random[k]) for k in random)
    assert any(k.startswith("policy.posterior") for k in learned)


def test_the_command_line_samples_by_the_policy_and_scores_its_bound_beside_other_orders(folder):
    runner = CliRunner()
    assert runner.invoke(app, ["sample", str(folder), "-n", "3", "--no-gif"]).exit_code == 0
    assert (folder / "samples" / "learned-seed0" / "grid.png").is_file()
    scored = runner.invoke(app, ["score", "nll", str(folder), "--plans", "learned,random,raster", "-n", "6"])
    assert scored.exit_code == 0, scored.output
    kinds = {}
    for path in (folder / "scores").glob("nll-*.json"):
        record = json.loads(path.read_text())
        kinds[record["plan"]] = record["kind"]
    assert kinds == {"learned": "bound", "random": "exact", "raster": "exact"}
    by_default, by_name = (NllRequest(("learned",), n=6, kind=kind) for kind in (None, "bound"))
    run = load(folder)
    learned = run.plans("learned")
    assert nll_question(run, learned, by_name, 6) == nll_question(run, learned, by_default, 6)
    again = runner.invoke(app, ["score", "nll", str(folder), "--plans", "learned", "-n", "6", "--kind", "bound"])
    assert again.exit_code == 0, again.output


def test_probabilities_are_computed_in_float32_whatever_the_network_runs_in(folder):
    run, seen = load(folder), set()
    for layer in (run.model.head.logits, run.model.policy.prior[-1]):
        layer.register_forward_hook(lambda _, inputs, out: seen.add(out.dtype))
    run.nll(plan="learned", limit=2, precision="bf16")
    assert seen == {torch.float32}


def test_image_k_is_the_same_in_any_batch(folder):
    run = load(folder)
    whole = run.sample(7, batch_size=7)
    parts = run.sample(7, batch_size=3)
    assert float((whole != parts).float().mean()) <= 1e-5
    assert float((whole != run.sample(7, seed=1)).float().mean()) > 0.1


def test_a_run_without_a_policy_has_no_learned_order(tmp_path):
    train(config.read("digits", [*TINY, "train.iterations=1"]), tmp_path)
    run = load(tmp_path)
    for ask in (run.nll, lambda plan: run.sample(1, plan)):
        with pytest.raises(UserError, match="ordering=learned"):
            ask(plan="learned")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["tokenizer=patches", "head=diffusion"], "head=categorical"),
        (["train.mask_ratio=truncated-normal"], "objective=any_order"),
    ],
)
def test_recipes_without_a_bound_to_train_are_refused(override, message):
    recipe = config.read("digits", [*LEARNED, *override])
    with pytest.raises(Unsupported, match=message):
        build.assemble(recipe)

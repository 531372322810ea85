"""LPD computes what the published class computed: logits and whole generations, recorded at random weights.

B batch · L tokens · V categories
"""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from typer.testing import CliRunner

from mar import build, config
from mar.cli.main import app
from mar.compat.lpd import LPD
from mar.core.errors import Unsupported, UserError
from mar.likelihood.set_sizes import measure_set_costs
from mar.networks.base import GIVEN
from mar.networks.lpd import LPD as Network
from mar.run import load
from mar.sampling.guidance import Guidance, Place
from mar.verification.cases import cases, small_network
from mar.verification.networks import cached_equals_uncached, no_leak
from orderings import parse_ordering
from tests.parity.seeded import recording

L, V, HEADS = 16, 8, 2
SETS = {"singles": [1] * L, "sets": [1, 2, 4, 4, 5], "alone": [L]}


@pytest.fixture(scope="module")
def recorded():
    return recording("lpd")


@pytest.fixture(scope="module")
def run(recorded, tmp_path_factory):
    """The run that ``mar import`` makes of the file."""
    folder = tmp_path_factory.mktemp("lpd")
    torch.save({"model": recorded[0], "epoch": 3}, folder / "lpd_l_256.pth")
    asked = ["import", str(folder / "lpd_l_256.pth"), "--out", str(folder / "run"), "--heads", str(HEADS)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "LPD of 2 x 16 over 8 categories" in done.output
    return load(folder / "run", device="cpu")


def steps(found, name):
    """Return rank_BL and step_BL of the recorded orders."""
    rank_BL = found["orders"].long().argsort(1)
    step_of_rank_L = torch.repeat_interleave(torch.arange(len(SETS[name])), torch.tensor(SETS[name]))
    return rank_BL, step_of_rank_L[rank_BL]


@pytest.mark.parametrize("name", SETS)
@torch.no_grad()
def test_teacher_forced_logits_agree(run, recorded, name):
    found, model = recorded[1], run.model
    step_BL = steps(found, name)[1]
    z_MD = model.context(found["tokens"].long(), step_BL, model.condition(found["labels"].long()), step_BL >= 0)
    want_BLV = found[f"logits.{name}"]
    assert float(want_BLV.std()) > 1
    torch.testing.assert_close(model.head.scores(z_MD).unflatten(0, step_BL.shape), want_BLV, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("scale", [4.0, 1.0])
@torch.no_grad()
def test_whole_generations_agree_token_by_token(run, recorded, scale):
    """In sets, by the cache, at temperature .9, with the recorded uniforms; guidance grows token by token."""
    found, model, (rank_BL, step_BL) = recorded[1], run.model, steps(recorded[1], "sets")
    label_B, uniform_BL = found["generated.labels"].long(), found["uniforms"][0 if scale > 1 else 1].gather(1, rank_BL)
    none_BL, token_BL = torch.zeros_like(step_BL, dtype=torch.bool), torch.zeros_like(step_BL)
    conditions = model.condition(label_B), model.null_condition(len(label_B))
    states = [model.network.begin(condition_BC, none_BL) for condition_BC in conditions]
    for k in range(len(SETS["sets"])):
        now_BL = step_BL == k
        score_MV, null_MV = (model.head.scores(model.network.query(state, now_BL)) for state in states)
        rank_M = rank_BL[now_BL]
        guidance_M = Guidance(scale, "linear-rank").at(Place(rank_M, rank_M, rank_M, 0 * rank_M + L, rank_M, rank_M))
        p_MV = ((null_MV + guidance_M[:, None] * (score_MV - null_MV)) / 0.9).softmax(-1).cumsum(-1)
        token_BL[now_BL] = (p_MV <= uniform_BL[now_BL][:, None] * p_MV[:, -1:]).sum(-1)
        states = [model.network.observe(state, model.embedding(token_BL), now_BL) for state in states]
    assert torch.equal(token_BL, found[f"generated.{scale:g}"].long())


@torch.no_grad()
def test_a_context_depends_on_the_places_of_its_set_and_the_costs_of_sets_say_so(run, recorded):
    found, model = recorded[1], run.model
    rank_BL = steps(found, "singles")[0]
    together_BL = torch.where(rank_BL < 5, GIVEN, (rank_BL > 9).long())
    target_BL, condition_BC = rank_BL == 5, model.condition(found["labels"].long())
    among_BV, alone_BV = (
        model.head.scores(model.context(found["tokens"].long(), step_BL, condition_BC, target_BL))
        for step_BL in (together_BL, torch.where(target_BL | (rank_BL < 5), together_BL, 1))
    )
    assert float((among_BV - alone_BV).abs().max()) > 0.1
    images = torch.zeros(2, 1, 4, 4)
    with pytest.raises(Unsupported, match="depends on its set"):
        measure_set_costs(model, images, None, parse_ordering("random"))


def test_other_weights_are_refused_in_one_line(recorded, tmp_path):
    state = recorded[0]
    for wrong, said in (
        ({**state, "blocks.0.ls1": torch.zeros(1)}, r"weights disagree .*ls1"),
        ({**state, "extra": torch.zeros(1)}, "'extra'"),
        ({name: value for name, value in state.items() if name != "fake_latent"}, "fake_latent"),
        ({**state, "pos_embed": state["pos_embed"][:, 1:]}, "15 tokens"),
    ):
        with pytest.raises(UserError, match=said) as error:
            LPD.import_run(wrong, tmp_path / "run", HEADS)
        assert "\n" not in str(error.value)


def test_its_objective_scores_whole_sets_unless_queries_are_hidden_from_each_other():
    data = build.data(config.read("digits"))
    with pytest.raises(Unsupported, match=r"use train\.objective=next_set"):
        build.assemble(config.read("digits", ["network=lpd"]), data)
    build.assemble(config.read("digits", ["network=lpd", "network.mutual=false"]), data)

    class Hidden(Network):
        test_options: ClassVar = {**Network.test_options, "mutual": False}

    network = small_network(Hidden, (7,))
    for claim in (cached_equals_uncached, no_leak):  # the first also asks for all unknown tokens
        assert claim("hidden", network, cases(network, 7)).passed

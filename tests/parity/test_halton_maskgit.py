"""Halton-MaskGIT computes what the published class computed: logits and a whole generation, recorded at random weights.

B batch · L tokens · V categories
"""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from mar.cli.main import app
from mar.compat.halton_maskgit import HALTON
from mar.core.errors import UserError
from mar.networks.base import GIVEN
from mar.run import load
from mar.sampling.guidance import Temperature
from orderings import Grid, Seeded, parse_ordering, parse_partition
from tests.parity.seeded import recording

L, V, HEADS = 16, 8, 2


@pytest.fixture(scope="module")
def recorded():
    state, found = recording("halton_maskgit")
    state["head.bias"][V] = -30.0  # as of a trained model, which never predicts the mask token
    return {**state, "head.weight": state["tok_emb.weight"]}, found


@pytest.fixture(scope="module")
def run(recorded, tmp_path_factory):
    """The run that ``mar import`` makes of the file."""
    folder = tmp_path_factory.mktemp("halton")
    saved = {"iter": 3, "model_state_dict": recorded[0], "optimizer_state_dict": None}
    torch.save(saved, folder / "ImageNet_256_tiny.pth")
    asked = ["import", str(folder / "ImageNet_256_tiny.pth"), "--out", str(folder / "run"), "--heads", str(HEADS)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "Halton-MaskGIT of 2 x 8 over 8 categories" in done.output
    return load(folder / "run", device="cpu")


@torch.no_grad()
def test_logits_agree_whatever_is_known(run, recorded):
    found, model = recorded[1], run.model
    step_BL = torch.where(found["known"], GIVEN, 0)
    assert step_BL.eq(GIVEN).sum(1).tolist() == [5, 0, 15, 9]
    condition_BC = model.condition(found["labels"].long(), found["dropped"])
    z_MD = model.context(found["tokens"].long(), step_BL, condition_BC, step_BL == 0)
    want_MV = found["logits"][step_BL == 0][:, :V]
    assert float(want_MV.std()) > 1
    torch.testing.assert_close(model.head.scores(z_MD), want_MV, atol=1e-4, rtol=0.0)


@torch.no_grad()
def test_a_whole_generation_agrees_token_by_token(run, recorded):
    """Rolled Halton orders, guidance 1 + 1.5 and a rising factor of the logits, with the recorded uniforms."""
    found, model = recorded[1], run.model
    label_B, step_BL = found["generated.labels"].long(), found["generated.steps"].long()
    none_BL = torch.zeros_like(step_BL, dtype=torch.bool)
    token_BL = torch.zeros_like(step_BL)
    conditions = model.condition(label_B), model.null_condition(len(label_B))
    states = [model.network.begin(condition_BC, none_BL) for condition_BC in conditions]
    states = [model.network.observe(state, model.embedding(token_BL), none_BL) for state in states]
    K = len(found["uniforms"])
    for k in range(K):
        now_BL = step_BL == k
        score_MV, null_MV = (model.head.scores(model.network.query(state, now_BL)) for state in states)
        temperature = Temperature(1 / 1.2, "inverse:1").at(k, K)
        p_MV = ((null_MV + 2.5 * (score_MV - null_MV)) / temperature).softmax(-1).cumsum(-1)
        token_BL[now_BL] = (p_MV <= found["uniforms"][k][now_BL][:, None] * p_MV[:, -1:]).sum(-1)
        states = [model.network.observe(state, model.embedding(token_BL), now_BL) for state in states]
    assert torch.equal(token_BL, found["generated.tokens"].long())


def test_the_recorded_order_and_sets_are_ours(recorded):
    found, grid = recorded[1], Grid((4, 4))
    order_L = parse_ordering("halton:fixed").ranks(grid, 1, Seeded(0))[0].argsort()
    assert torch.equal(order_L, found["halton"].long())
    sizes_K = torch.bincount(found["generated.steps"][0].long())
    assert torch.equal(parse_partition("arccos:6").sizes(L), sizes_K)


def test_other_weights_are_refused_in_one_line(recorded, tmp_path):
    state = recorded[0]
    for wrong, heads, said in (
        ({**state, "in_proj.weight": torch.zeros(1)}, HEADS, "in_proj.weight: .*2×2 tokens"),
        ({**state, "last_norm.extra": torch.zeros(1)}, HEADS, "last_norm.extra"),
        ({name: value for name, value in state.items() if name != "cls_emb.weight"}, HEADS, "cls_emb.weight"),
        ({**state, "pos_emb.weight": state["pos_emb.weight"][1:]}, HEADS, "15 tokens"),
        (state, 3, "weights disagree"),  # heads of 8 // 3 channels
    ):
        with pytest.raises(UserError, match=said) as error:
            HALTON.import_run({"model_state_dict": wrong}, tmp_path / "run", heads)
        assert "\n" not in str(error.value)

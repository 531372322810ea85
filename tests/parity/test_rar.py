"""RAR computes what the published class computed: logits and whole generations, recorded at random weights.

B batch · L tokens · V categories
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from mar.cli.main import app
from mar.compat.rar import RAR
from mar.core.errors import UserError
from mar.networks.base import GIVEN
from mar.run import load
from mar.sampling.guidance import Guidance, Place

L, V, HEADS = 16, 8, 2
_ROWS = {"pos_embed": L + 1024, "target_aware_pos_embed": L + 1024, "timesteps_embeddings": L + 100}


@pytest.fixture(scope="module")
def recorded():
    with np.load(Path(__file__).with_name("rar.npz")) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def state(recorded):
    """The state dict as released: rows that the published code never reads were not recorded, and are ones here."""
    found = {key.removeprefix("state."): value.float() for key, value in recorded.items() if key.startswith("state.")}
    for name, rows in _ROWS.items():
        found[name] = F.pad(found[name], (0, 0, 0, rows - found[name].shape[1]), value=1.0)
    return found


@pytest.fixture(scope="module")
def run(state, tmp_path_factory):
    """The run that ``mar import`` makes of the file."""
    folder = tmp_path_factory.mktemp("rar")
    torch.save(state, folder / "rar_b.bin")
    asked = ["import", str(folder / "rar_b.bin"), "--out", str(folder / "run"), "--heads", str(HEADS)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "RAR of 2 x 16 over 8 categories" in done.output
    return load(folder / "run", device="cpu")


def order_of(recorded, name):
    return recorded["order"].long() if name == "random" else torch.arange(L).expand(len(recorded["order"]), -1)


@pytest.mark.parametrize("name", ["raster", "random"])
@torch.no_grad()
def test_teacher_forced_logits_agree(run, recorded, name):
    order_BL, model = order_of(recorded, name), run.model
    step_BL = order_BL.argsort(1)
    condition_BC = model.condition(recorded["labels"].long())
    z_MD = model.context(recorded["tokens"].long(), step_BL, condition_BC, step_BL >= 0)
    score_BLV = model.head.scores(z_MD).unflatten(0, step_BL.shape)
    want_BLV = recorded[f"logits.{name}"][torch.arange(len(step_BL))[:, None], step_BL]  # from ranks to tokens
    assert float(want_BLV.abs().max()) > 1
    torch.testing.assert_close(score_BLV, want_BLV, atol=1e-4, rtol=0.0)


@torch.no_grad()
def test_every_token_of_a_set_is_asked_for_as_if_it_were_next(run, recorded):
    token_BL, order_BL, model = recorded["tokens"].long(), order_of(recorded, "random"), run.model
    condition_BC, set_BL = model.condition(recorded["labels"].long()), order_BL.argsort(1) >= L - 5
    step_BL = torch.where(set_BL, 0, GIVEN)
    score_BKV = model.head.scores(model.context(token_BL, step_BL, condition_BC, set_BL)).unflatten(0, (-1, 5))
    for k in range(5):
        target_B = set_BL.nonzero()[:, 1].view(-1, 5)[:, k]
        one_BL = torch.where(set_BL, 1, GIVEN).scatter(1, target_B[:, None], 0)
        alone_BV = model.head.scores(model.context(token_BL, one_BL, condition_BC, one_BL == 0))
        torch.testing.assert_close(score_BKV[:, k], alone_BV, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name, guidance", [("constant", Guidance(3.0, "constant")), ("power", Guidance(6.0, "power-cosine:2.75"))]
)
@torch.no_grad()
def test_whole_generations_agree_token_by_token(run, recorded, name, guidance):
    """With the recorded uniforms, by the cache."""
    model, label_B = run.model, recorded["generated.labels"].long()
    none_BL = torch.zeros(len(label_B), L, dtype=torch.bool)
    token_BL = torch.zeros_like(none_BL, dtype=torch.int64)
    conditions = model.condition(label_B), model.null_condition(len(label_B))
    states = [model.network.begin(condition_BC, none_BL) for condition_BC in conditions]
    for l in range(L):
        now_BL = none_BL.index_fill(1, torch.tensor([l]), True)
        score_BV, null_BV = (model.head.scores(model.network.query(state, now_BL)) for state in states)
        scale = guidance.at(Place(*torch.tensor([l, l, l + 1, L, l, L])))
        p_BV = (null_BV + scale * (score_BV - null_BV)).softmax(-1).cumsum(-1)
        token_BL[:, l] = (p_BV <= recorded["uniforms"][l][:, None] * p_BV[:, -1:]).sum(-1)
        states = [model.network.observe(state, model.embedding(token_BL), now_BL) for state in states]
    assert torch.equal(token_BL, recorded[f"generated.{name}"].long())


def test_indices_are_said_to_need_their_vq_tokenizer_not_a_kl_autoencoder(run):
    command = ["sample", str(run.folder.path), "-n", "1", "--plan", "random/equal:2"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "VQ tokenizer" in done.output and "AUTOENCODER" not in done.output
    for wrong in ([*command, "--vae", "kl16"], ["fid", str(run.folder.path), "-n", "8"]):
        with pytest.raises(UserError, match="makes indices of a codebook"):
            CliRunner().invoke(app, wrong, catch_exceptions=False)


def test_other_weights_are_refused_in_one_line(state, tmp_path):
    for wrong, said in (
        ({**state, "blocks.0.ls1": torch.zeros(1)}, r"blocks\.0\.ls1"),
        ({name: value for name, value in state.items() if name != "timesteps_embeddings"}, "timesteps_embeddings"),
        ({**state, "pos_embed": state["pos_embed"][:, 1:]}, "15 tokens"),
        ({name: value for name, value in state.items() if "blocks.0.norm1" not in name}, "weights disagree"),
    ):
        with pytest.raises(UserError, match=said) as error:
            RAR.import_run(wrong, tmp_path / "run", HEADS)
        assert "\n" not in str(error.value)

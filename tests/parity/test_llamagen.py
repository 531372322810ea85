"""RandAR, ARPG and LlamaGen's VQ compute what the published classes computed, at weights from a seed.

B batch · L tokens · V categories
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from typer.testing import CliRunner

from mar.cli.main import app
from mar.compat.llamagen import ARPG, RANDAR
from mar.core.errors import UserError
from mar.model.model import sampling_options
from mar.run import load
from mar.sampling.guidance import Guidance, Place
from mar.training.autoencoder import Architecture
from tests import autoencoders
from tests.parity.seeded import recording

L = 16
DONE = {"randar": "RandAR of 2 x 16 over 8 categories", "arpg": "ARPG of 4 x 16 over 8 categories"}


@pytest.fixture(scope="module", params=["randar", "arpg"])
def imported(request, tmp_path_factory):
    """The run that ``mar import`` makes of the file, and what was recorded."""
    state, recorded = recording(request.param)
    file = tmp_path_factory.mktemp(request.param) / "released.pt"
    torch.save({"model": state}, file)
    asked = ["import", str(file), "--out", str(file.parent / "run"), "--heads", "2", "--side", "4"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0 and DONE[request.param] in done.output, done.output
    return request.param, load(file.parent / "run", device="cpu"), recorded


@torch.no_grad()
def test_teacher_forced_logits_agree(imported):
    _, run, recorded = imported
    token_BL, condition_BC = recorded["tokens"].long(), run.model.condition(recorded["labels"].long())
    for name, order_BL in (("raster", torch.arange(L).expand(3, -1)), ("random", recorded["order"].long())):
        step_BL = order_BL.argsort(1)
        z_MD = run.model.context(token_BL, step_BL, condition_BC, step_BL >= 0)
        score_BLV = run.model.head.scores(z_MD).unflatten(0, step_BL.shape)
        want_BLV = recorded[f"logits.{name}"][torch.arange(3)[:, None], step_BL]  # from ranks to tokens
        assert float(want_BLV.abs().max()) > 1
        torch.testing.assert_close(score_BLV, want_BLV, atol=1e-4, rtol=0.0)


@torch.no_grad()
def generated(run, label_B, order_BL, sizes, uniforms, guidance):
    """Generate by the cache with recorded uniforms, each of an image and a rank, along sets of these sizes."""
    model, token_BL = run.model, torch.zeros_like(order_BL)
    step_BL = torch.repeat_interleave(torch.arange(len(sizes)), sizes)[order_BL.argsort(1)]
    conditions = model.condition(label_B), model.null_condition(len(label_B))
    states = [model.network.begin(condition_BC, step_BL < 0) for condition_BC in conditions]
    known = 0
    for step, size in enumerate(sizes.tolist()):
        now_BL = step_BL == step
        score_MV, null_MV = (model.head.scores(model.network.query(state, now_BL)) for state in states)
        scale = guidance.at(Place(*torch.tensor([known, known, known + size, L, step, len(sizes)])))
        p_MV = (null_MV + scale * (score_MV - null_MV)).softmax(-1).cumsum(-1)
        u_M = uniforms.T.gather(1, order_BL.argsort(1))[now_BL]
        token_BL[now_BL] = (p_MV <= u_M[:, None] * p_MV[:, -1:]).sum(-1)
        states = [model.network.observe(state, model.embedding(token_BL), now_BL) for state in states]
        known += size
    return token_BL


def test_whole_generations_agree_token_by_token(imported):
    name, run, recorded = imported
    found, order_BL = {}, recorded["order"].long()
    if name == "randar":
        rising = Guidance(4.0, "linear-before")
        singles = torch.ones(L, dtype=torch.int64)
        found["singles"] = (order_BL, singles, rising)
        found["sets"] = (recorded["order.sets"].long(), recorded["sizes"].long(), rising)
    else:
        for schedule in ("cosine", "arccos"):  # one order for the whole batch
            found[schedule] = (
                order_BL[:1].expand(3, -1),
                recorded[f"sizes.{schedule}"].long(),
                Guidance(4.0, "constant"),
            )
    for way, (order_BL, sizes, guidance) in found.items():
        with sampling_options(run.model, {"chained": True} if way == "sets" else {}):
            token_BL = generated(run, recorded["labels"].long(), order_BL, sizes, recorded["uniforms"], guidance)
        assert torch.equal(token_BL, recorded[f"generated.{way}"].long()), way


def test_with_their_vq_models_make_images(tmp_path):
    state, _ = recording("arpg")
    for codes, folder in ((8, "vq"), (9, "other")):
        Architecture("vq", (8, 8), 1, 3, codes).build(autoencoders.SPEC).save_pretrained(tmp_path / folder)
    import_run = partial(ARPG.import_run, {"module": state}, side=4)
    import_run(tmp_path / "run", heads=2, vae=str(tmp_path / "vq"))
    run = load(tmp_path / "run", device="cpu")
    assert run.spec.shape == (1, 8, 8) and run.sample(2).shape == (2, 1, 8, 8)
    for options, said in (
        ({"vae": str(tmp_path / "other")}, "has 9 codes, the model 8"),
        ({"vae": str(tmp_path / "vq"), "heads": 3}, "multiple of heads"),
        ({"vae": str(tmp_path / "vq"), "data": str(tmp_path / "vq" / "config.json")}, "a file of tokens"),
    ):
        with pytest.raises(UserError, match=said):
            import_run(tmp_path / "refused", **options)


@pytest.mark.parametrize("family, last", [(RANDAR, "output.weight"), (ARPG, "head.weight")], ids=["randar", "arpg"])
def test_other_weights_are_refused_in_one_line(family, last, tmp_path):
    state, _ = recording(family.NAME.lower())
    norm = next(name for name in state if name.endswith("ffn_norm.weight"))
    for wrong, said in (
        ({**state, "more.weight": torch.zeros(1)}, "'more.weight' is no weight"),
        ({name: x for name, x in state.items() if name != last}, last),
        ({name: x for name, x in state.items() if name != norm}, "1 weights disagree"),
    ):
        with pytest.raises(UserError, match=said) as error:
            family.import_run(wrong, tmp_path / "run", heads=2, side=4)
        assert "\n" not in str(error.value)

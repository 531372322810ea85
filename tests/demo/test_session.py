"""The demo without its page: painted orders, given pixels, and the NLL of what was generated."""

from __future__ import annotations

import pytest
import torch

from mar.core.errors import InvalidRequest, Unsupported, UserError
from mar.demo.session import Request, Session
from orderings import GIVEN, Grid, Plan, PlanSpec
from tests.autoencoders import save
from tests.demo.conftest import session_of

PAINTED = (63, 9, 0)
PLANS = ["raster", "spiral:outward/cosine:7", "random/equal:8", "painted/cosine:16", "lowest-entropy/equal:4"]


def nll(session: Session, image: torch.Tensor, plan: Plan | str, label: int):
    return session.run.nll(image, plan, torch.tensor([label]))


def test_cells_are_generated_in_the_order_they_were_painted_and_the_rest_in_raster_order(session):
    plan = session.plan(Request("painted", PAINTED))
    rest = [cell for cell in range(64) if cell not in PAINTED]
    assert plan.rank_BL[0].argsort().tolist() == [*PAINTED, *rest]
    assert torch.equal(plan.step_BL, plan.rank_BL)


def test_a_painted_order_is_cut_into_sets_as_any_other(session):
    plan = session.plan(Request("painted/equal:16", PAINTED))
    assert plan.sizes().tolist() == [[16] * 4]
    assert plan.step_BL[0, list(PAINTED)].tolist() == [0, 0, 0]


def test_the_file_of_a_painted_order_is_that_order_elsewhere(session):
    text = f"file:({session.order_file(PAINTED)})"
    elsewhere = Plan.sample(*PlanSpec.parse(text), Grid((8, 8)), 1, None)
    assert torch.equal(elsewhere.rank_BL, session.plan(Request("painted", PAINTED)).rank_BL)


def test_painting_the_channels_of_a_pixel_paints_them_one_after_the_other(tmp_path):
    session = session_of(tmp_path, "tokenizer=channels")
    rank_L = session.plan(Request("painted", PAINTED)).rank_BL[0]
    channels = len(rank_L) // 64
    assert rank_L.reshape(64, channels)[63].tolist() == list(range(channels))


@pytest.mark.parametrize("plan", PLANS)
def test_the_nll_shown_is_that_of_the_generated_image_along_the_same_plan(session, plan):
    made = session.generate(Request(plan, PAINTED, label=3, seed=5, temperature=0.8, guidance=1.5))
    scored = nll(session, made.image, made.plan, 3)
    assert made.nats[-1] == pytest.approx(scored.nats_per_image, abs=1e-4)
    assert made.bits_per_dim[-1] == pytest.approx(scored.bits_per_dim, abs=1e-5)
    assert torch.tensor(made.nats).diff(prepend=torch.zeros(1)) == pytest.approx(
        torch.tensor(scored.nats_per_step), abs=1e-4
    )


def test_an_order_found_along_the_way_is_the_one_its_likelihood_is_defined_by(session):
    made = session.generate(Request("lowest-entropy/equal:4", label=3))
    assert session.plan(Request("lowest-entropy/equal:4")) is None
    assert made.nats[-1] == pytest.approx(
        nll(session, made.image, "lowest-entropy/equal:4", 3).nats_per_image, abs=1e-4
    )


@pytest.mark.parametrize("plan", ["random/equal:8", "hilbert"])
def test_the_image_is_the_first_of_mar_sample_along_the_plan_that_was_shown(session, plan):
    made = session.generate(Request(plan, label=7, seed=3))
    assert torch.equal(made.image, session.run.sample(1, plan, torch.tensor([7]), seed=3))
    assert torch.equal(made.plan.step_BL, session.plan(Request(plan, label=7, seed=3)).step_BL)


@pytest.mark.parametrize("plan", PLANS)
def test_given_pixels_are_kept_bit_for_bit_and_are_not_scored(session, plan):
    picture, given = session.test_image(4)[0], (*range(24), 63)
    made = session.generate(Request(plan, PAINTED, given, picture, label=0))
    assert torch.equal(made.image.flatten()[list(given)], picture.flatten()[list(given)])
    assert (made.plan.step_BL[0, list(given)] == GIVEN).all()
    assert int(made.plan.sizes().sum()) == 64 - len(given)
    assert made.nats[-1] == pytest.approx(nll(session, made.image, made.plan, 0).nats_per_image, abs=1e-4)


def test_frames_follow_the_steps_and_end_with_the_image(session):
    made = session.generate(Request("raster/equal:8"))
    assert made.after == list(range(9)) and torch.equal(made.frames[-1], made.image)
    assert torch.equal(made.frames[3].flatten()[:24], made.image.flatten()[:24])
    assert int(made.frames[0].sum()) == 0 and len(made.nats) == 8 and made.tokens == list(range(8, 65, 8))


def test_tokens_are_shown_while_they_are_drawn(session):
    seen = [(len(made.nats), made.after[-1], made.done) for made in session.stream(Request("random/equal:8"))]
    assert seen == [*((k + 1, k, False) for k in range(8)), (8, 8, True)]


def test_unknown_cells_have_the_entropy_of_their_conditionals(session):
    made = session.generate(Request("raster/equal:8", label=3))
    *_, last = session.run.walk("raster/equal:8", 1, torch.tensor([3]))
    logits_MV = last.logits_MV.log_softmax(-1)
    assert made.entropy[7][56:] == pytest.approx(-(logits_MV.exp() * logits_MV).sum(-1), abs=1e-5)
    assert not made.entropy[7][:56].any() and not made.entropy[8].any()


def test_an_order_is_scored_beside_raster_and_random_on_the_same_images(session):
    *_, rows = session.standings(Request("painted/equal:8", PAINTED), images=6)
    found = {row.plan: row for row in rows}
    assert set(found) == {"painted/equal:8", "raster/equal:8", "random/equal:8"}
    assert [row.mean for row in rows] == sorted(row.mean for row in rows)
    scored = {plan: session.run.nll(plan=plan, limit=6) for plan in ("raster/equal:8", "random/equal:8")}
    row, (raster, random) = found["random/equal:8"], scored.values()
    assert row.mean == pytest.approx(random.bits_per_dim, abs=1e-6) and row.unit == "bits/dim"
    assert row.difference == pytest.approx(random.bits_per_dim - raster.bits_per_dim, abs=1e-6)
    assert row.interval[0] < row.difference < row.interval[1]
    assert found["raster/equal:8"].interval == (0.0, 0.0)


def test_a_test_image_that_is_not_there_is_refused(session):
    with pytest.raises(UserError, match="the test images are 0 to 359: there is no 99999"):
        session.test_image(99999)


def test_a_head_without_exact_likelihood_says_which_kinds_it_has(tmp_path):
    small = ["head.width=16", "head.depth=1", "head.timesteps=20"]
    session = session_of(tmp_path, "tokenizer=patches", "tokenizer.patch=4", "head=diffusion", *small)
    made = session.generate(Request("raster"))
    assert made.nats is None and made.bits_per_dim is None
    assert "no exact likelihood, only one of kind bound or ode" in made.notes[0]


def test_a_density_of_continuous_tokens_is_named_as_one(tmp_path):
    session = session_of(tmp_path, "tokenizer=patches", "tokenizer.patch=4", "head=gaussian-mixture")
    made = session.generate(Request("raster"))
    assert len(made.nats) == 4 and "density" in made.notes[0]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("spirl"), "did you mean 'spiral'"),
        (Request("confidence"), "looks at the values just sampled"),
        (Request("painted", (5, 5)), "65 positions"),
        (Request("painted", (99,)), "65 positions"),
        (Request("raster", given=range(64)), "leave some to generate"),
        (Request("raster", label=10), "this run has classes 0..9"),
    ],
)
def test_impossible_requests_are_refused_in_one_line(session, request_, message):
    with pytest.raises((InvalidRequest, Unsupported, UserError), match=message):
        session.generate(request_)


def test_latents_are_painted_on_their_own_grid_and_have_nats_alone(tmp_path):
    session = session_of(tmp_path, "tokenizer=vq", f"tokenizer.path={save('vq', tmp_path / 'vq')}")
    assert (session.rows, session.columns, session.picture_shape) == (4, 4, (1, 8, 8))
    made = session.generate(Request("painted", (15,), (0, 1), session.test_image(0)[0]))
    assert made.plan.step_BL[0, [0, 1, 15]].tolist() == [GIVEN, GIVEN, 0]
    assert len(made.nats) == 14 and made.bits_per_dim is None and made.frames[-1].shape == (1, 1, 8, 8)


def test_a_run_that_knows_one_order_warns_of_a_painted_one_by_name(tmp_path):
    session = session_of(tmp_path, "ordering=raster", "train.mask_ratio=plan")
    assert session.generate(Request("raster")).notes == []
    assert "the conditionals of painted were never trained" in session.generate(Request("painted", (9,))).notes[0]

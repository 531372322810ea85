"""Scoring that is stopped goes on where it was, and gives what it would have given."""

from __future__ import annotations

import pytest
import torch

from mar.core.errors import Unsupported, UserError
from mar.core.files import settings_digest
from mar.core.records import Partial
from mar.likelihood.chain import adaptive_log_prob, conditionals, rows_in_budget, score
from mar.likelihood.estimate import Estimator
from mar.model.plans import sizes_plan
from orderings import PlanSpec
from tests.helpers import OnePass, StepByStep
from tests.likelihood.test_estimate import draw, images, tiny

__all__ = ["images"]  # a fixture


class Stops(Exception):
    pass


def stop_after(rows: int):
    def progress(done: int, total: int) -> None:
        if done >= rows:
            raise Stops

    return progress


@pytest.mark.parametrize("network", [OnePass, StepByStep])
@pytest.mark.parametrize("plan, estimator", [("random/equal:2", "exact"), ("random", "steps:3")])
def test_a_stopped_chain_goes_on(images, tmp_path, network, plan, estimator):
    model, some, how = tiny(network), images[:300], Estimator.parse(estimator)
    budget = 40 * 4 * 8 * (16 * 8 + 4 * 2)
    assert rows_in_budget(model, budget) == 40
    whole = score(model, some, None, draw(plan), plan, estimator=how, budget=budget)
    total = round(whole.forward_rows_per_image * 300)
    for rows in (total // 3, 2 * total // 3):
        with pytest.raises(Stops):
            score(model, some, None, draw(plan), plan, estimator=how, budget=budget, partial=Partial(tmp_path, 0.0),
                  progress=stop_after(rows))  # fmt: skip
    seen, passes = [], []
    model.network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    found = score(
        model, some, None, draw(plan), plan, estimator=how, budget=budget, partial=Partial(tmp_path, 0.0),
        progress=lambda *at: seen.append(at),
    )  # fmt: skip
    assert found == whole
    assert seen[-1] == (total, total) and sum(passes) <= total - 2 * total // 3 + 40


def test_a_stopped_adaptive_order_keeps_the_batches_that_are_done(images, tmp_path):
    model, some = tiny(), images[:300]
    rule, partition = PlanSpec.parse("lowest-entropy/equal:2", adaptive=True)

    def along(**options):
        return score(model, some, None, lambda noise: sizes_plan(partition, 8, len(noise)), "", find=find, **options)

    def find(model, token, plan, *asked):
        return adaptive_log_prob(model, token, plan, rule, *asked)

    whole = along()
    with pytest.raises(Stops):
        along(partial=Partial(tmp_path), progress=stop_after(4 * 256 + 1))
    seen = []
    assert along(partial=Partial(tmp_path), progress=lambda *at: seen.append(at)) == whole
    assert seen[0][0] == 4 * 256 and seen[-1] == (1200, 1200)
    with pytest.raises(Unsupported, match="--estimator exact"):
        along(estimator=Estimator(2))


def test_progress_ends_with_all_rows_where_the_model_finds_the_number_of_steps(images, tmp_path):
    rule, partition = PlanSpec.parse("entropy-bound:9", adaptive=True)
    find = lambda model, token, plan, *asked: adaptive_log_prob(model, token, plan, rule, *asked)  # noqa: E731
    for _ in range(2):  # computed, then read
        seen = []
        found = score(tiny(), images[:20], None, lambda noise: sizes_plan(partition, 8, len(noise)), "", find=find,
                      partial=Partial(tmp_path), progress=lambda *at, seen=seen: seen.append(at))  # fmt: skip
        assert found.forward_rows_per_image < 8 and seen[-1] == (160, 160)


def test_no_images_are_refused(images):
    with pytest.raises(UserError, match="no images"):
        score(tiny(), images[:0], None, draw("raster"), "raster")


def test_repeats_draw_other_orders_and_steps_and_keep_the_images(images):
    model = tiny(OnePass)
    found = [
        conditionals(model, images[:50], None, draw("random"), estimator=Estimator(2), repeat=r) for r in (0, 1, 0)
    ]
    assert torch.equal(found[0].step_NL, found[2].step_NL) and torch.equal(found[0].nats_NL, found[2].nats_NL)
    assert not torch.equal(found[0].step_NL, found[1].step_NL)
    drawn = [(f.weight_NL > 0).gather(1, f.step_NL.argsort(1)) for f in found if f.weight_NL is not None]
    assert not torch.equal(drawn[0], drawn[1])


def test_a_fingerprint_is_of_every_setting():
    settings = {"plan": "raster", "images": 64, "likelihood": {"steps": 4, "solver": "rk4"}}
    assert settings_digest(settings, 16) == settings_digest(dict(reversed(settings.items())), 16)
    changed = [{**settings, "images": 65}, {**settings, "likelihood": {"steps": 5, "solver": "rk4"}}]
    assert len({settings_digest(s, 16) for s in [settings, *changed]}) == 3

"""Plans of a run: the orders that all images share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mar.core.errors import Unsupported
from mar.core.noise import stream
from mar.likelihood.chain import score
from mar.likelihood.estimate import Repeats, score_several
from mar.model.plans import Plans
from orderings.partitions import Singles
from tests.likelihood.test_estimate import GRID, tiny


def plans(text: str) -> Plans:
    return Plans(text, GRID, Path(), torch.device("cpu"))


def test_shared_orders_of_a_mixture_are_its_components_each_once():
    found = plans("symmetries:raster")
    ranks = {tuple(found.scored(stream(3, "nll", 2), order=k).rank_BL[1].tolist()) for k in range(8)}
    assert ranks == {tuple(c.ranks(GRID, 1, stream(0, "", 1))[0].tolist()) for c in found.components}
    with pytest.raises(Unsupported, match="a mixture of 8 orders"):
        found.scored(stream(3, "nll", 2), order=8)


def test_as_many_orders_are_scored_as_there_are():
    wanted = {"raster": 0, "random": 12, "symmetries:raster": 8, "mixture:raster+random": 12}
    assert {text: plans(text).orders(12) for text in wanted} == wanted
    assert plans("symmetries:raster").orders(3) == 3 and plans("symmetries:raster").orders(0) == 0


def test_the_ensemble_of_all_components_is_the_mixture_and_sums_to_one():
    """Over all 2⁸ images; the choice of the orders adds no error."""
    every = torch.cartesian_prod(*[torch.arange(2)] * 8).reshape(-1, 1, 2, 4)
    model, found = tiny(), plans("symmetries:raster")

    def score_one(order: int, **ignored):
        return score(model, every, None, lambda noise: found.scored(noise, order=order), found.text, seed=0)

    whole = score_several(model.tokenizer, score_one, Repeats(orders=8), None, None, all_orders=True)
    nats = []
    for component in found.components:
        draw = Plans((component, Singles()), GRID, Path(), torch.device("cpu")).scored
        nats.append(torch.tensor(score(model, every, None, draw, "", seed=0).nats_of_image, dtype=torch.float64))
    log_p_N = (-torch.stack(nats)).logsumexp(0) - torch.tensor(8.0).log()
    assert float(log_p_N.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert whole.ensemble[-1].nats_per_image == pytest.approx(-float(log_p_N.mean()), rel=1e-6)
    assert whole.ensemble[-1].standard_error_orders_nats == 0.0 and whole.ensemble[1].standard_error_orders_nats > 0.0

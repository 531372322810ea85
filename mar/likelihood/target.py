"""How many images, orders and steps reach a wanted standard error, from a pilot with crossed variance components.

N images · S orders · R repeats of each cell (independent draws of steps and of a bound's noise)

The pilot scores a few images under the same few orders, each cell twice with other steps, which separates the variance
between images, between orders, of their interaction, and of drawing n of the K steps. N images with r orders of their
own and n steps each then have the variance

    images / N + (orders + interaction + steps(n)) / (N r)

and the cheapest (N, r, n) whose variance is small enough is chosen, with a standard error of their own added to the
components of images and interaction, so that what is planned is usually reached. Steps of a stratified draw are taken
to matter as those of a plain one, steps(n) ~ (1/n - 1/K): from the pilot's n upwards that is no less than the truth.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from mar.errors import UserError
from mar.likelihood.crossed import Components, components
from mar.likelihood.estimate import EVERY_STEP, Estimator
from mar.likelihood.summary import Likelihood
from mar.tokenizers.base import Tokenizer

PILOT_IMAGES = 32
_ORDERS, _REPEATS = 2, 2
_STEPS, _SHARE = (
    16,
    8,
)  # at least 16 steps of an image, and at least an eighth: fewer would drown the images' own variance
_LEAST_IMAGES = 32  # fewer say little about their own standard error
_MOST_ORDERS = 64  # for one image


@dataclass(frozen=True)
class Pilot:
    """What the pilot found.

    Attributes:
        components: variances in nats² per image; noise is that of ``drawn`` steps.
        steps: K.
        drawn: steps of each image and repeat.
        one_pass: a row of the network gives all steps.
        random: the order is random.
        noisy_head: the head's log-probabilities depend on drawn noise, which is left with all steps computed.
        seconds_per_row: wall-clock time of one row of the network with what its head does.
        forward_rows: rows that the pilot took.
    """

    components: Components
    steps: int
    drawn: int
    one_pass: bool
    random: bool
    noisy_head: bool
    seconds_per_row: float
    forward_rows: int


@dataclass(frozen=True)
class Budget:
    """A scoring that is expected to reach a standard error of ``standard_error_nats``.

    Attributes:
        images: so many, spread over the split.
        orders_per_image: every image's own orders.
        steps: drawn for each image and order; K: all.
        estimator: its text.
        forward_rows: rows through the network.
        seconds: expected wall-clock time.
        reached: the target is expected to be reached with the images that there are.
    """

    images: int
    orders_per_image: int
    steps: int
    estimator: str
    standard_error_nats: float
    forward_rows: int
    seconds: float
    reached: bool


def parse_target(text: str, tokenizer: Tokenizer) -> float:
    """``0.01`` (bits/dim) or ``0.5nats`` (per image) -> nats per image.

    Raises:
        UserError: it is no positive number, or latents have no bits/dim.
    """
    number = text.removesuffix("nats").strip()
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise UserError(f"a wanted standard error is written 0.01 (bits/dim) or 0.5nats (per image), not {text!r}")
    if number != text.strip():
        return value
    if not tokenizer.dimensions or tokenizer.end is not None:
        raise UserError(
            "latents, colours of a palette and documents have no bits/dim in advance: write the wanted standard error "
            f"as {text}nats"
        )
    return value * math.log(2.0) * tokenizer.dimensions


def run_pilot(score_one: Callable[..., Likelihood], random: bool, one_pass: bool, n_tokens: int) -> Pilot:
    """The variance components of some images along a plan.

    Args:
        score_one: ``(estimator, repeat, order)`` scores them; ``order``: the number of one shared by all, or None.
        random: the plan's order is random.
        one_pass: the network gives all steps at once.
        n_tokens: no plan has more steps.
    """
    estimator = EVERY_STEP if one_pass else Estimator(max(_STEPS, -(-n_tokens // _SHARE)))
    n_orders = _ORDERS if random else 1
    begun = time.monotonic()
    results = [
        score_one(estimator=estimator, repeat=s * _REPEATS + r, order=s if random else None)
        for s in range(n_orders)
        for r in range(_REPEATS)
    ]
    seconds = time.monotonic() - begun
    y_NSR = torch.tensor([r.nats_of_image for r in results], dtype=torch.float64).T.unflatten(1, (n_orders, _REPEATS))
    first, rows = results[0], round(sum(r.forward_rows_per_image * r.n_images for r in results))
    drawn = first.steps if first.estimator == str(EVERY_STEP) else estimator.steps
    return Pilot(
        components(y_NSR), first.steps, drawn, one_pass, random, first.head_estimate, seconds / rows, rows
    )  # fmt: skip


def variance(pilot: Pilot, images: int, orders_per_image: int, steps: int) -> float:
    """Of the mean nats per image of such a scoring, on the safe side."""
    found, noise = pilot.components, pilot.components.noise
    if steps > pilot.drawn:
        left = 1.0 if pilot.noisy_head else (pilot.steps - steps) / (pilot.steps - pilot.drawn)
        noise *= pilot.drawn / steps * left
    own = max(0.0, found.orders + found.interaction + found.interaction_error) + noise
    return (max(0.0, found.images + found.images_error) + own / orders_per_image) / images


def plan_budget(pilot: Pilot, target_nats: float, most_images: int) -> Budget:
    """The cheapest scoring that reaches ``target_nats``; with all images and steps where none does."""
    reaching = []
    for steps in _doublings(pilot.drawn, pilot.steps):
        for orders in _doublings(1, _MOST_ORDERS if pilot.random else 1):
            images = math.ceil(variance(pilot, 1, orders, steps) / target_nats**2)
            if images <= most_images:
                images = min(most_images, max(_LEAST_IMAGES, images))
                reaching.append(_budget(pilot, images, orders, steps, True))
    if not reaching:
        return _budget(pilot, most_images, 1, pilot.steps, False)
    return min(reaching, key=lambda b: (b.forward_rows, b.orders_per_image))


def _budget(pilot: Pilot, images: int, orders: int, steps: int, reached: bool) -> Budget:
    rows = images * orders * (1 if pilot.one_pass else steps)
    return Budget(
        images=images,
        orders_per_image=orders,
        steps=steps,
        estimator=str(EVERY_STEP if steps == pilot.steps else Estimator(steps)),
        standard_error_nats=math.sqrt(variance(pilot, images, orders, steps)),
        forward_rows=rows,
        seconds=rows * pilot.seconds_per_row,
        reached=reached,
    )


def _doublings(first: int, last: int) -> Iterable[int]:
    """first, 2 first, 4 first, … and last."""
    while first < last:
        yield first
        first *= 2
    yield last

"""Variance components of a table of images × orders, with repeats, by the analysis of variance.

N images · S orders · R repeats of each cell (independent draws of steps or of a bound's noise)

    y_NSR = mean + image_N + order_S + interaction_NS + noise_NSR

all of them random and independent (two-way random model with replication; Searle, Casella & McCulloch 1992, ch. 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Components:
    """Variances, in the square of the table's unit; unbiased, so small ones can come out negative.

    Attributes:
        images: between images.
        orders: between orders, the same for all images; 0 for a single order.
        interaction: of an image with an order; 0 for a single order.
        noise: within a cell; 0 without repeats.
        images_error, interaction_error: standard errors of these two, for normal effects.
    """

    images: float
    orders: float
    interaction: float
    noise: float
    images_error: float = 0.0
    interaction_error: float = 0.0


def components(y_NSR: torch.Tensor) -> Components:
    """From a whole table: at least two images.

    With a single order (S = 1) everything that is an image's own is in ``images``; without repeats (R = 1) the noise is
    in ``interaction``, or in ``images`` where there is a single order.
    """
    y_NSR = y_NSR.double()
    n, s, r = y_NSR.shape
    y_NS, grand = y_NSR.mean(2), y_NSR.mean()
    image_N, order_S = y_NS.mean(1), y_NS.mean(0)
    noise = float((y_NSR - y_NS[..., None]).square().sum() / (n * s * (r - 1))) if r > 1 else 0.0
    mean_square_images = float(s * r * (image_N - grand).square().sum() / (n - 1))
    if s == 1:
        return Components(
            (mean_square_images - noise) / r, 0.0, 0.0, noise, (2 / (n - 1)) ** 0.5 * mean_square_images / r
        )
    residual_NS = y_NS - image_N[:, None] - order_S + grand
    mean_square_cells = float(r * residual_NS.square().sum() / ((n - 1) * (s - 1)))
    mean_square_orders = float(n * r * (order_S - grand).square().sum() / (s - 1))
    return Components(
        images=(mean_square_images - mean_square_cells) / (s * r),
        orders=(mean_square_orders - mean_square_cells) / (n * r),
        interaction=(mean_square_cells - noise) / r,
        noise=noise,
        images_error=(2 / (n - 1)) ** 0.5 * mean_square_images / (s * r),
        interaction_error=(2 / ((n - 1) * (s - 1))) ** 0.5 * mean_square_cells / r,
    )


def standard_error(y_NS: torch.Tensor) -> float:
    """Of the mean of a table of N images under the same S orders, over the choice of both.

    Var = images / N + orders / S + interaction / (N S).
    """
    n, s = y_NS.shape
    found = components(y_NS[..., None])
    return max(0.0, found.images / n + found.orders / s + found.interaction / (n * s)) ** 0.5

"""Ablations with chosen figures, to hold the statistics of tables against closed forms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mar.experiments.result import AblationResult, Row, TrainedModel
from mar.likelihood.summary import Likelihood
from mar.metrics.fid import FidResult, GeneratedImages, ImageScores


def scored(nats_of_image: Sequence[float], kind: str = "exact") -> Likelihood:
    """A likelihood of 64 dimensions."""
    n, mean = len(nats_of_image), math.fsum(nats_of_image) / len(nats_of_image)
    per_bit = 64 * math.log(2.0)
    return Likelihood(
        "raster", kind, n, mean, 1.0, mean / per_bit, 1.0 / per_bit, 64, 1, 64.0, (), (mean,), (64.0,),
        (mean / 64,) * 64, tuple(nats_of_image),
    )  # fmt: skip


def generated(fid: float, inception_score: float = 5.0, n_images: int = 30) -> FidResult:
    scores = ImageScores(n_images, fid, 0.01, 0.001, inception_score, 0.1, 0.8, 0.7)
    return FidResult(scores, replace(scores, fid=1.0), "train", 40, "test", "a-classifier-abcd", 64, 10, 100, 2)


def row(settings: Mapping[str, str], **figures: Any) -> Row:
    made = Row("raster", "raster", "singles", model=", ".join(settings.values()), settings=dict(settings))
    return changed(made, **figures)


_OF_IMAGES = ("sampling_seconds", "sampling_cpu_seconds", "samples", "animation")


def changed(
    row: Row, likelihood: Any = ..., images: Any = ..., probe: Any = ..., nll_seconds: Any = ..., **others: Any
) -> Row:
    """The row with other answers (None: without) and other fields."""
    answers, seconds = dict(row.answers), dict(row.seconds)
    pictures = {key: others.pop(key) for key in _OF_IMAGES if key in others}
    new = {"nll": likelihood, "probe": probe, "fid": images}
    if images not in (None, ...):
        new["fid"] = GeneratedImages(images)
    answers |= {name: answer for name, answer in new.items() if answer is not ...}
    if pictures and answers.get("fid") is not None:
        answers["fid"] = replace(answers["fid"], **pictures)
    seconds |= {} if nll_seconds is ... else {"nll": nll_seconds}
    kept = {name: answer for name, answer in answers.items() if answer is not None}
    others.setdefault("seconds", {k: v for k, v in seconds.items() if v is not None})
    return replace(row, answers=kept, **others)


def made(rows: Sequence[Row], data: Mapping[str, str] | None = None, **grid: object) -> AblationResult:
    """A result of these rows, a model each.

    Args:
        data: model -> its data set; without, they share one.
    """
    axes = tuple(rows[0].settings)
    learns = data or {}
    models = tuple(
        TrainedModel(r.model, r.settings, {"data": {"kind": learns.get(r.model, "one")}, "seed": 0}, "f", 1, "w", None)
        for r in rows
    )
    said = {"nll": {"split": "test"}, "fid": {"guidance": 1.0, "temperature": 1.0}, "select": "last", **grid}
    environment = {"python": "3.11", "packages": {}, "command": "mar ablate made.yaml"}
    return AblationResult(
        "made", said, axes, models, "digits", "d" * 64, environment, "raster", tuple(rows), (), 1.0
    )  # fmt: skip

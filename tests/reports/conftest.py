"""A made-up ablation with everything that a report can show, and its pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mar.ablation.result import AblationResult, Difference, PlanMap, Row, Training
from mar.evaluation.result import FidResult, ImageScores
from mar.likelihood.score import Likelihood

GRID = (2, 3)


def likelihood(plan: str, nats: float, steps: int, warnings: tuple[str, ...] = ()) -> Likelihood:
    bits = nats / (6 * math.log(2.0))
    return Likelihood(
        plan, "exact", 20, nats, 0.123456, bits, 0.0123456, steps, 1, float(steps), warnings, (nats / steps,) * steps,
        (6 / steps,) * steps, (nats / 6,) * 6, (nats,) * 20,
    )  # fmt: skip


def fid(value: float) -> FidResult:
    scores = ImageScores(30, value, 0.0123, 0.001, 7.5, 0.1, 0.8, 0.7)
    return FidResult(
        scores, replace(scores, fid=1.25), "train", 40, "test", "a-classifier-acc0.99-abcd", 64, 10, 100, 2
    )


def difference(nats: float) -> Difference:
    per_dim = 6 * math.log(2.0)
    interval = (nats - 0.1, nats + 0.1)
    bits = (interval[0] / per_dim, interval[1] / per_dim)
    return Difference("raster", 20, nats, interval, nats / per_dim, bits, 0.95, 0.01, 0.0004)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("L", (16, 8)).save(tmp_path / "samples.png")
    frames = [Image.new("L", (16, 8), shade) for shade in (0, 200)]
    frames[0].save(tmp_path / "animation.gif", save_all=True, append_images=frames[1:])
    return tmp_path


@pytest.fixture
def result() -> AblationResult:
    """Two good plans, one that failed, with characters that must be escaped."""
    raster = PlanMap(GRID, False, (0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5))
    random = PlanMap(GRID, True, (3, 1, 0, 2, 5, 4), (1, 0, 0, 0, 1, 1))
    pictures = {"sampling_seconds": 2.0, "samples": "samples.png", "animation": "animation.gif"}
    rows = (
        Row("raster", "raster", "singles", raster, likelihood("raster", 7.25, 6), None, fid(12.5), 1.0, **pictures),
        Row(
            "random/linear:2", "random", "linear:2", random, likelihood("random/linear:2", 7.125, 2, ("beware",)),
            difference(-0.125), fid(13.75), 1.0, **pictures,
        ),
        Row("spiral", "spiral", "singles", raster, errors=("NLL: RuntimeError: <script>a|b & c</script>",)),
    )  # fmt: skip
    baseline = Row("independent tokens", "independent tokens", "all at once", likelihood=likelihood("", 9.0, 1))
    return AblationResult(
        name="made <up>",
        grid={"nll": {"split": "test"}, "fid": {"guidance": 1.5, "temperature": 1.0}, "seeds": [0]},
        recipe={"name": "r", "seed": 0},
        fingerprint="f" * 12,
        weights="w" * 16,
        data="digits",
        data_fingerprint="d" * 64,
        environment={"python": "3.11", "packages": {"torch": "2"}, "command": "mar ablate x 'a=[b]' <&>"},
        training=Training(1234, 100, 32, 61.0, (50, 100), (1.5, 1.25), (100,), (1.3,)),
        reference="raster",
        rows=rows,
        baselines=(baseline,),
        seconds=5.0,
    )

"""A made-up ablation with everything that a report can show, and its pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mar.experiments.result import AblationResult, Row, TrainedModel, Training
from mar.likelihood.summary import Likelihood
from mar.metrics.base import PlanMap
from mar.metrics.fid import FidResult, ImageScores
from mar.metrics.probe import Probe
from mar.metrics.speed import Speed
from mar.metrics.statistics import Difference
from tests.experiments.made import changed, generated, made, row, scored

GRID = (2, 3)
NAMES = ("raster", "spiral", "random")
NATS = {"raster": (80.0, 81.0, 82.0), "spiral": (80.5, 80.5, 82.1), "random": (90.0, 91.1, 92.0)}  # of three trainings


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


def model(name: str, settings: dict[str, str], iterations: tuple[int, ...], nats: tuple[float, ...]) -> TrainedModel:
    training = Training(100, 32, 100, 61.0, (50, 100), (1.5, 1.25), iterations, nats)
    speed = Speed(64, "cpu", 2, "wall", 1000.5, 50.25, 3e6, 8e6)
    return TrainedModel(name, settings, {"name": name, "seed": 0}, "f" * 12, 1234, "w" * 16, training, {"speed": speed})


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
        changed(
            Row("raster", "raster", "singles", raster, "r"), likelihood=likelihood("raster", 7.25, 6), images=fid(12.5),
            nll_seconds=1.0, **pictures,
        ),
        changed(
            Row("random/linear:2", "random", "linear:2", random, "r"), difference=difference(-0.125), images=fid(13.75),
            likelihood=likelihood("random/linear:2", 7.125, 2, ("beware",)), nll_seconds=1.0, **pictures,
        ),
        Row("spiral", "spiral", "singles", raster, "r", errors=("NLL: RuntimeError: <script>a|b & c</script>",)),
    )  # fmt: skip
    baseline = Row("independent tokens", "independent tokens", "all at once", answers={"nll": likelihood("", 9.0, 1)})
    return AblationResult(
        name="made <up>",
        grid={"nll": {"split": "test"}, "fid": {"guidance": 1.5, "temperature": 1.0}, "seeds": [0]},
        axes=(),
        models=(model("r", {}, (100,), (1.3,)),),
        data="digits",
        data_fingerprint="d" * 64,
        environment={"python": "3.11", "packages": {"torch": "2"}, "command": "mar ablate x 'a=[b]' <&>"},
        reference="raster",
        rows=rows,
        baselines=(baseline,),
        seconds=5.0,
    )


@pytest.fixture
def several(result: AblationResult) -> AblationResult:
    """A grid of networks × orderings: two models, and a cell that is refused."""
    rising, falling = ((25, 50, 75, 100), (1.5, 1.2, 1.3, 1.4)), ((25, 50, 75, 100), (1.5, 1.4, 1.3, 1.2))
    settings = [{"network": n, "ordering": o} for n, o in (("lstm", "raster"), ("lstm", "random"), ("row", "random"))]
    names = [", ".join(each.values()) for each in settings]
    models = [model(names[0], settings[0], *rising), model(names[1], settings[1], *falling)]
    refused = replace(
        models[0], name=names[2], settings=settings[2], parameters=0, weights="", training=None, answers={}
    )
    raster, random, _ = (changed(row, images=None) for row in result.rows)
    probe = Probe(0.875, 0.0174, 64, 100, 360, 8)
    rows = (
        changed(raster, model=names[0], settings=settings[0], probe=probe),
        replace(random, model=names[1], settings=settings[1], partition="singles"),
        Row("random", "random", "singles", model=names[2], settings=settings[2], refused="rows serve raster order"),
    )
    grid = {"nll": {"split": "test"}, "fid": None, "select": "best", "notes": ["All of one size."]}
    return replace(
        result, grid=grid, axes=("network", "ordering"), models=(*models, refused), rows=rows, reference="raster"
    )  # fmt: skip


def paper(**keys: Any) -> dict[str, Any]:
    rows = [{"where": {"ordering": name}, "value": value} for name, value in zip(NAMES, (8.5, 4.25, 2), strict=True)]
    return {
        "title": "FID, ImageNet 256²",
        "of": "fid",
        "source": "a paper, Table 1",
        "recalled": True,
        "rows": rows,
    } | keys


@pytest.fixture
def ablation() -> AblationResult:
    """Three orderings, three seeds: FID in the paper's order reversed; spiral ties with raster, random does not."""
    rows = [
        row({"ordering": name, "seed": str(seed)}, likelihood=scored([nats - 1, nats + 1]), images=generated(10 + k))
        for k, name in enumerate(NAMES)
        for seed, nats in enumerate(NATS[name])
    ]
    return made(rows, published=[paper(), paper(title="IS", of="inception_score", recalled=False)])

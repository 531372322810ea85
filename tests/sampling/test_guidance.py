"""Schedules of guidance and temperature against numbers of the published codes, and in the samplers."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import stream
from mar.heads.base import SamplingOptions
from mar.sampling.guidance import NONE, Guidance, Place, Temperature
from mar.sampling.many import Settings
from mar.sampling.remask import Remask, generate_remasked
from mar.sampling.samplers import generate
from mar.sampling.speculate import Speculation
from orderings import Grid, Plan, PlanSpec
from tests.sampling.test_samplers import make


def along(schedule: str, scale: float, *sizes: int) -> list[float]:
    """The scale of every token of a generation in sets of these sizes."""
    total, rows = sum(sizes), []
    for step, (size, after) in enumerate(zip(sizes, accumulate(sizes), strict=True)):
        rows += [(after - size, after - size + at, after, total, step, len(sizes)) for at in range(size)]
    return Guidance(scale, schedule).at(Place(*torch.tensor(rows).T)).tolist()


PUBLISHED = {  # one run of each code's own lines
    "RAR-B": ("power-cosine:2.75", 16, [1] * 8, [1, 1.0004, 1.01807, 1.16745, 1.80308, 3.62163, 7.4044, 12.76738]),
    "RAR-XL": ("power-cosine:1.5", 6.9, [1] * 8, [1, 1.02839, 1.22456, 1.73497, 2.64015, 3.89538, 5.2853, 6.43323]),
    "RAR, power 0": ("power-cosine:0", 4.0, [1] * 3, [4.0] * 3),
    "LPD": ("linear-rank", 4.8, [1, 1, 2, 4], [1.0, 1.475, 1.95, 2.425, 2.9, 3.375, 3.85, 4.325]),
    "RandAR": ("linear-before", 4.0, [1, 1, 2, 4], [1.0, 1.375, 1.75, 1.75, 2.5, 2.5, 2.5, 2.5]),
    "MAR": ("linear", 4.0, [128, 128], [2.5] * 128 + [1 + 3 * 255 / 256] * 128),
    "constant": ("constant", 2.9, [2, 1], [2.9] * 3),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_guidance_has_the_numbers_of_the_published_codes(name):
    schedule, scale, sizes, wanted = PUBLISHED[name]
    assert along(schedule, scale, *sizes) == pytest.approx(wanted, abs=1e-5)


def test_outside_its_interval_there_is_no_guidance():
    assert along("constant@0.25-0.75", 3.0, *[1] * 8) == [1, 1, 3, 3, 3, 3, 1, 1]
    assert along("linear@0.5-1", 3.0, *[1] * 4) == pytest.approx([1, 1, 2.5, 2.5])
    assert along("constant@0.2-0.3", 3.0, *[1] * 10) == [1, 1, 3, 1, 1, 1, 1, 1, 1, 1]  # 3 / 10 is not below 0.3


TEMPERATURES = {  # of four steps
    "MaskGIT (TiTok), 2": (0.0, "linear:1.5", [1.5, 1.0, 0.5, 0.0]),
    "MaskGen, 2": (2.0, "maskgen", [1.65, 0.9, 0.35, 0.0]),
    "MaskGen's softmax": (0.5, "linear:1.1", [1.1, 0.9, 0.7, 0.5]),
    "Halton-MaskGIT, sm_temp 1 to 1.2": (1 / 1.2, "inverse:1", [1.0, 0.9375, 0.88235294, 0.83333333]),
    "cosine": (0.0, "cosine:1", [1.0, 0.75, 0.25, 0.0]),
    "constant": (0.7, "constant", [0.7] * 4),
}


@pytest.mark.parametrize("name", TEMPERATURES)
def test_temperatures_have_the_numbers_of_the_published_codes(name):
    value, schedule, wanted = TEMPERATURES[name]
    assert [Temperature(value, schedule).at(k, 4) for k in range(4)] == pytest.approx(wanted, abs=1e-7)
    assert Temperature(value, schedule).at(0, 1) == pytest.approx(wanted[-1])  # a single step is the last


@pytest.mark.parametrize("wrong", ["power-cosine", "power-cosine:-1", "power-cosine:1.2.3", "linear:2", "sine", ""])
def test_other_texts_are_refused_in_one_line(wrong):
    with pytest.raises(UserError, match=r"guidance wants.*not '") as refused:
        Guidance(2.0, wrong)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="a temperature schedule is"):
        Temperature(1.0, wrong.replace("linear:2", "linear"))


@pytest.mark.parametrize("within", ["", "1", "0.8-0.2", "0-2", "a-b", "-0.1-1"])
def test_an_interval_is_written_from_to(within):
    with pytest.raises(UserError, match="AR steps is written FROM-TO, within 0-1"):
        Guidance(2.0, f"constant@{within}")


@pytest.fixture(scope="module")
def model():
    return make()


def draw(model, plan: str, **options) -> torch.Tensor:
    noise = stream(0, "sample", 6)
    rows = Plan.sample(*PlanSpec.parse(plan), Grid(model.tokenizer.shape), 6, noise.at("order"))
    if "remask" in options:
        return generate_remasked(model, rows, torch.arange(6), noise.at("tokens"), **options)
    return generate(model, rows, torch.arange(6), noise.at("tokens"), **options)


def asked_of(model, monkeypatch, plan: str, **options) -> list[tuple[list[float], float]]:
    """The scales and the temperature of every call of the head for the first image."""
    found, sample = [], model.head.sample

    def record(z, noise, null, scale, temperature):
        first = scale[: len(scale) // 6].tolist() if isinstance(scale, torch.Tensor) else [scale]
        found.append((first, temperature))
        return sample(z, noise, null, scale, temperature)

    monkeypatch.setattr(model.head, "sample", record)
    draw(model, plan, **options)
    return found


def test_the_head_is_asked_with_the_schedules(model, monkeypatch):
    options = {"guidance": Guidance(3.0, "linear-rank"), "temperature": Temperature(0.5, "linear:1")}
    asked = asked_of(model, monkeypatch, "raster/equal:32", **options)
    assert [temperature for _, temperature in asked] == [1.0, 0.5]
    assert [scale for scales, _ in asked for scale in scales] == pytest.approx([1 + 2 * k / 64 for k in range(64)])


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_neutral_schedules_draw_the_same_bits(model, schedule):
    plain = draw(model, "random/equal:8", guidance=Guidance(2.5, schedule), temperature=0.8)
    neutral = {"guidance": Guidance(2.5, f"{schedule}@0-1"), "temperature": Temperature(0.8, "linear:0.8")}
    assert torch.equal(draw(model, "random/equal:8", **neutral), plain)
    power = draw(model, "random/equal:8", guidance=Guidance(2.5, "power-cosine:0"), temperature=0.8)
    assert torch.equal(power, plain) == (schedule == "constant")


def test_rounds_of_remasking_have_what_the_last_step_leads_to(model, monkeypatch):
    options = {"guidance": Guidance(3.0, "power-cosine:2"), "temperature": Temperature(0.5, "linear:1")}
    rounds = asked_of(model, monkeypatch, "raster/equal:32", remask=Remask("random", 2, 0.1), **options)[2:]
    assert all(set(scales) == {3.0} and temperature == 0.5 for scales, temperature in rounds) and len(rounds) == 2
    assert Guidance(3.0, "linear@0-0.9").ended == NONE and Guidance(3.0, "linear").ended == Guidance(3.0, "linear")


def test_what_a_schedule_cannot_follow_is_refused(model):
    with pytest.raises(Unsupported, match="linear-rank needs an order"):
        draw(model, "raster/equal:32", guidance=Guidance(2.0, "linear-rank"), rule="lowest-entropy")
    with pytest.raises(Unsupported, match="finds the number of steps"):
        draw(model, "raster", temperature=Temperature(1.0, "linear:2"), rule="entropy-bound:1")
    with pytest.raises(UserError, match="at one temperature"):
        Settings(temperature=Temperature(1.0, "linear:2"), speculation=Speculation())
    with pytest.raises(UserError, match="are positive"):
        Temperature(0.0, "inverse:1")


def test_records_omit_options_that_older_records_lack():
    assert SamplingOptions().told() == {}

"""The family of metrics: the documented example is one, and every metric keeps the promises of the base class."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mar.core.errors import UserError
from mar.metrics import METRICS
from mar.metrics.base import Metric, Question, Subject, Variant, Workspace, plan_variants
from orderings import PlanSpec

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-metric.md"


class FakeRun:
    """Samples are all equal."""

    def sample(self, n: int, plan: str, progress: Any) -> torch.Tensor:
        return torch.zeros(n, 1, 2, 2)


def test_the_documented_metric_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"```python\n(# distinct.py.*?)```", PAGE.read_text(), re.DOTALL)[0]
    (tmp_path / "distinct.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    from distinct import Distinct  # type: ignore[import-not-found]

    metric: Metric = Distinct(Distinct.Options(images=4), {})
    assert (
        metric.question(Subject("recipe", "weights", PlanSpec.parse("raster"), Variant(name="hot", temperature=2.0)))
        is None
    )
    question = metric.question(Subject("recipe", "weights", PlanSpec.parse("raster")))
    assert question == Question("distinct", "raster") and question.content["images"] == 4
    at = Workspace(FakeRun, None, None, None, tmp_path, tmp_path)  # type: ignore[arg-type]
    answer = metric.compute(question, at)
    assert (answer.distinct_share, answer.n_images) == (0.25, 4)
    assert [column.value(answer) for column in Distinct.data_columns()] == [0.25, 4]


def test_a_variant_has_schedules_and_omits_those_that_are_off() -> None:
    schedules = {"guidance_schedule": "power-cosine:2.75", "temperature_schedule": "linear:1.1"}
    assert Variant(name="rar", **schedules).model_dump().items() >= schedules.items()  # type: ignore[arg-type]
    assert not Variant(name="plain").model_dump().keys() & schedules.keys()
    assert not Variant(name="rar", **schedules).is_scored_alone  # type: ignore[arg-type]
    for wrong in ({"guidance_schedule": "sine"}, {"temperature_schedule": "sine"}):
        with pytest.raises(UserError, match="not 'sine'"):
            Variant(name="wrong", **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_says_what_identifies_its_answer(name: str) -> None:
    cls = METRICS[name]
    assert cls.name == name and is_dataclass(cls.Answer) and cls.title
    metric = cls(cls.Options(), {"sets": METRICS["sets"].Options()})
    plan = PlanSpec.parse("random" if name == "consistency" else "random/optimal:4")  # single tokens alone
    asked = metric.question(Subject("recipe", "weights", plan))
    assert asked is not None and asked.metric == name
    assert set(cls.Options().model_dump()) <= set(asked.content)  # an option that is off may be omitted
    off = {"fid": ("features", "nearest", "sfid", "infinity")}.get(name, ())
    assert set(cls.Options.model_fields) <= {*asked.content, *off}
    other = metric.question(Subject("recipe", "other weights", plan))
    assert other == asked and (other.content != asked.content or cls.alone)  # speed depends on the recipe alone
    assert all(column.title for column in (*cls.columns([]), *cls.data_columns())) and fields(cls.Answer)


def test_an_adaptive_variant_takes_a_partition_once() -> None:
    plain, rule = Variant(name="plain"), Variant(name="rule", adaptive="lowest-entropy")
    plans = [PlanSpec.parse(text) for text in ("raster/linear:4", "random/linear:4", "raster/linear:8")]
    found = plan_variants(plans, (plain, rule))
    assert [plan for plan, variant in found if variant is plain] == plans
    assert [str(plan) for plan, variant in found if variant is rule] == ["raster/linear:4", "raster/linear:8"]

"""The pages docs/adding-a-*.md: each example is at most 60 lines and keeps the contract of its family."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mar.data.base import DataSpec
from mar.experiments.engine import Engine, assemble
from mar.experiments.grid import grid_type, referring
from mar.metrics import METRICS
from mar.reports.tables import data_table, grid_table
from mar.verification.heads import verify_head
from mar.verification.networks import verify_network

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Write the first code block of a page to a file and import it."""

    def load(page: str) -> ModuleType:
        code = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)[0]
        assert len(code.splitlines()) <= 60
        name = re.match(r"# (\w+)\.py\n", code)[1]
        path = tmp_path / f"{name}.py"
        path.write_text(code)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize(
    ("page", "name", "verify"),
    [("adding-a-network.md", "BagOfTokens", verify_network), ("adding-a-head.md", "LaplaceHead", verify_head)],
)
def test_the_example_keeps_its_contract(example, page, name, verify):
    verdicts = verify(getattr(example(page), name), name)
    assert verdicts and not [verdict for verdict in verdicts if not verdict.passed]


def test_the_tokenizer_is_one_to_one_and_rejects_other_levels(example):
    cls = example("adding-a-tokenizer.md").BitPlanes
    tokenizer = cls(DataSpec((1, 3, 4), 16), cls.Options())
    x = torch.arange(24).remainder(16).to(torch.uint8).reshape(2, 1, 3, 4)
    token = tokenizer.encode(x)
    assert token.shape == (2, 48) and tokenizer.shape == (3, 4, 4)
    assert token[0, 4:8].tolist() == [0, 0, 0, 1]  # the second pixel is 1
    assert torch.equal(tokenizer.decode(token), x)
    with pytest.raises(Exception, match="power of two"):
        cls(DataSpec((1, 3, 4), 17), cls.Options())


def test_the_data_set_loads(example):
    page = example("adding-a-data-set.md")
    data = page.Stripes.load(page.StripesOptions(n=6))
    x, label = data.train.batch(torch.tensor([0, 5]))
    assert x.shape == (2, 1, 8, 8) and label.tolist() == [0, 1] and int(x.max()) < data.spec.levels


def test_a_grid_asks_the_metric_and_shows_its_columns(example, tmp_path, monkeypatch):
    cls = example("adding-a-metric.md").Distinct
    monkeypatch.setitem(METRICS, "distinct", cls)
    grid = grid_type()(
        name="tiny", recipe="digits", orderings=("raster",), partitions=("linear:2",), nll=None, distinct={"images": 4},
        overrides=("train.iterations=1", "train.batch_size=2", "train.validate_every=0", "train.sample_every=0",
                   *(f"network.{part}_{size}" for part in ("encoder", "decoder") for size in ("width=32", "depth=1"))),
    )  # fmt: skip
    engine = Engine(referring(grid), tmp_path)
    engine.work()
    result = assemble(engine)
    answer = result.rows[0].answers["distinct"]
    assert answer.n_images == 4 and answer.distinct_share in (0.25, 0.5, 0.75, 1.0)
    assert "distinct ↑" in grid_table(result).markdown() and "distinct_distinct_share" in data_table(result).csv()


def test_the_blocks_of_the_concepts_page_hold():
    scope: dict = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "concepts.md").read_text(), flags=re.DOTALL):
        exec(compile(block, "concepts.md", "exec", dont_inherit=True), scope)
    assert scope["half"].n_steps_B.tolist() == [2]

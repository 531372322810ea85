"""scripts/minimal.py runs, and its scores are those of the library."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from mar.data.digits import Digits
from mar.likelihood.chain import score

SCRIPT = Path(__file__).parents[1] / "scripts" / "minimal.py"


@pytest.fixture
def minimal():
    spec = importlib.util.spec_from_file_location("minimal", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_has_at_most_150_lines_and_runs(minimal, monkeypatch, capsys):
    assert len(SCRIPT.read_text().splitlines()) <= 150
    monkeypatch.setattr(sys, "argv", ["minimal.py", "--iterations", "2", "--images", "3"])
    minimal.main()
    assert capsys.readouterr().out.count("bits/dim") == 4


@pytest.mark.parametrize("plan", ["raster/singles", "spiral/equal:8"])
def test_its_likelihood_is_that_of_the_library(minimal, plan):
    data = Digits.load(Digits.Options())
    model = minimal.build_model(data.spec)
    x, label_B = data.test.batch(torch.arange(4))
    mean, error = minimal.score(model, plan, x, label_B)
    expected = score(model, x, label_B, lambda noise: minimal.draw_plan(plan, minimal.Grid((8, 8)), noise), plan)
    assert mean == pytest.approx(expected.bits_per_dim, abs=1e-5)
    assert error == pytest.approx(expected.standard_error_bits_per_dim, rel=1e-4)

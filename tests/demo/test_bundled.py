"""The small run that comes with ``mar demo``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mar.demo.session import Request, Session, bundled

README = Path(__file__).parents[2] / "mar" / "demo" / "fashion-mnist" / "README.md"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(bundled(device="cpu"), tmp_path_factory.mktemp("orders"))


def test_it_generates_images_of_fashion_and_needs_no_data(session):
    assert session.picture_shape == (1, 28, 28) and (session.rows, session.columns) == (7, 7)
    assert session.classes[9] == "ankle boot" and len(session.run.data.test) == 100
    made = session.generate(Request("subsample/cosine:8", label=1, guidance=2.0))
    trousers = session.run.data.test.x[session.run.data.test.label == 1].float().mean(0)[0]
    similarity = torch.corrcoef(torch.stack([made.image[0, 0].float().flatten(), trousers.flatten()]))[0, 1]
    assert similarity > 0.8 and made.notes == []


def test_its_likelihood_is_the_one_in_its_readme(session):
    scored = session.run.nll(plan="random/cosine:16", limit=100)
    assert f"{scored.nats_per_image:.1f} nats" in README.read_text()


def test_its_weights_take_less_than_a_megabyte():
    assert sum(file.stat().st_size for file in README.parent.rglob("*.safetensors")) < 1_000_000

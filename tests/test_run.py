"""A run from Python: what was asked of it before never changes what it answers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

import mar
import tests.helpers
from mar import config
from mar.core.errors import UserError
from mar.likelihood.estimate import Repeats
from mar.metrics.samples import GenerationRecorder
from mar.networks import NETWORKS
from mar.run import Run, load, train
from mar.sampling.output import to_bytes
from orderings import GIVEN, Plan
from tests.helpers import StepByStep


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run") / "made"
    made = config.read("digits", [
        "network=made", "network.widths=[16]", "network.masks=4", "ordering=random", "partition=singles", 
        "train.mask_ratio=plan", "train.iterations=2", "train.batch_size=8", "train.sample_every=0",
        "train.validate_every=0",
    ])  # fmt: skip
    train(made, folder)
    return load(folder)


def test_a_mixture_of_connectivities_leaves_the_model_at_the_first_one(run: Run) -> None:
    before = run.sample(4, "raster/linear:4")
    run.nll(plan="random/linear:4", limit=4, repeats=Repeats(orders=3))
    assert run.model.network.drawn_H is None
    assert torch.equal(run.sample(4, "raster/linear:4"), before)


def test_a_film_ends_with_the_sample_and_colours_what_is_unknown(run: Run) -> None:
    film = GenerationRecorder(run, 2, torch.arange(64) >= 48)
    x = run.sample(3, "raster/linear:4", on_step=film.record)
    first, *_, last = film.frames
    assert len(film.steps) == 4 and torch.equal(last, to_bytes(x[:2], run.spec.levels).permute(0, 3, 1, 2))
    blue_NHW = (first == torch.tensor([70, 110, 170])[:, None, None]).all(1)
    assert not blue_NHW[:, :2].any() and blue_NHW[:, 2:6].all() and not blue_NHW[:, 6:].any()


def test_a_plan_as_tensor_says_itself_what_is_given(run: Run) -> None:
    image = torch.full((1, 8, 8), 1, dtype=torch.uint8)
    rank_BL = torch.arange(64).repeat(2, 1)
    mask = torch.arange(64) >= 32
    with pytest.raises(UserError, match="given"):
        run.sample(2, Plan(rank_BL, rank_BL), given=image, mask=mask)
    below_BL = torch.where(mask, rank_BL - 32, GIVEN)
    made = run.sample(2, Plan(below_BL, below_BL), given=image, mask=mask)
    assert torch.equal(made.flatten(1)[:, :32], image.flatten()[:32].expand(2, -1))
    with pytest.raises(UserError, match="2 rows and 64 tokens, for 3 examples"):
        run.sample(3, Plan(rank_BL, rank_BL))


@pytest.mark.parametrize("plan", ["raster/linear:4", "random", "lowest-entropy/linear:4"])
def test_log_prob_of_tokens_adds_up_to_the_likelihood(run: Run, plan: str) -> None:
    images, labels = run.subset("test", 5)
    found, whole = run.log_prob(images, plan, labels), run.nll(images, plan, labels)
    assert found.nats_NL.shape == found.step_NL.shape == (5, 64) and found.kind == whole.kind
    assert (-found.nats_NL.sum(1)).tolist() == pytest.approx(list(whole.nats_of_image))
    assert found.position_LD[9].tolist() == [1, 1] and int(found.step_NL.max()) + 1 == whole.steps
    assert repr(found).startswith(f"TokenScores({plan}, exact: 5 examples of 64 tokens")


@pytest.mark.parametrize("options", [{}, {"guidance": 2.0}, {"adaptive": "lowest-entropy"}, {"adaptive": "confidence"}])
def test_a_walk_draws_what_sample_draws(run: Run, options: dict[str, Any]) -> None:
    steps = list(run.walk("random/linear:4", n=3, **options))
    assert [step.number for step in steps] == [0, 1, 2, 3]
    assert all(step.x_M.shape == (int(step.target_BL.sum()),) for step in steps)
    assert steps[0].logits_MV.shape == (len(steps[0].x_M), 17)
    assert torch.equal(run.decode(steps[-1].token), run.sample(3, "random/linear:4", **options))


def test_tokens_of_a_walk_may_be_replaced(run: Run) -> None:
    for step in run.walk("raster/linear:4", n=2):
        step.x_M = torch.full_like(step.x_M, step.number)
    assert torch.equal(step.token.flatten().unique(), torch.arange(4))


def test_reprs_are_short(run: Run) -> None:
    result = run.nll(plan="raster/linear:4", limit=4)
    assert repr(result).startswith("Likelihood(raster/linear:4, exact, 4 images: ") and len(repr(result)) < 120
    assert "made, categorical head, digits, plan random, " in repr(run) and len(repr(run)) < 260


def test_frames_have_units_in_their_columns(run: Run) -> None:
    pytest.importorskip("pandas")
    result = run.nll(plan="raster/linear:4", limit=4)
    figure = result.to_frame()
    assert figure["nats_per_image"].tolist() == [result.nats_per_image] and "bits_per_dim" in figure
    assert result.to_frame("image")["nats_per_image"].tolist() == list(result.nats_of_image)
    assert result.to_frame("step")["nats_per_image"].sum() == pytest.approx(result.nats_per_image)
    assert len(result.to_frame("position")) == 64


def test_without_pandas_a_frame_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="mar-orderings"):
        run.nll(plan="raster/linear:4", limit=2).to_frame()


class Shifted(StepByStep):
    """One's own network."""


@pytest.fixture
def shifted() -> Iterator[type[Shifted]]:
    """The network, out of the registry again when the test ends."""
    yield Shifted
    NETWORKS.pop("Shifted", None)


def images_of_levels() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randint(0, 4, (40, 1, 3, 3), generator=torch.Generator().manual_seed(0))
    return x, torch.arange(40) % 2


SHORT = ("train.iterations=2", "train.batch_size=4", "train.sample_every=0", "train.validate_every=0")


@pytest.mark.parametrize("made", ["class", "instance", "file", "recipe"])
def test_fit_trains_ones_own_network_on_data_in_memory(made: str, tmp_path: Path, shifted: type[Shifted]) -> None:
    if made == "recipe":
        network: Any = config.read("digits", ["network=made", "network.widths=[8]", "ordering=raster"])
    else:
        file = f"{Path(tests.helpers.__file__)}:StepByStep"
        network = {"class": Shifted, "instance": Shifted((3, 3), Shifted.Options()), "file": file}[made]
    data = TensorDataset(*images_of_levels())
    ordering = () if made == "recipe" else ("ordering=raster",)
    run = mar.fit(network, data, *SHORT, *ordering, out=tmp_path / "run")
    assert run.data.spec.levels == 4 and run.data.spec.n_classes == 2 and run.grid.shape == (3, 3)
    assert run.sample(3).shape == (3, 1, 3, 3) and run.nll(plan="raster").n_images == 4
    again = load(tmp_path / "run")
    assert torch.equal(again.sample(3), run.sample(3))
    with pytest.raises(UserError, match="data set in memory"):
        again.nll(plan="raster")
    with pytest.raises(UserError, match="have changed since it began"):
        mar.fit(
            network, (images_of_levels()[0].flip(3), images_of_levels()[1]), *SHORT, *ordering, out=tmp_path / "run"
        )


def test_fit_makes_a_folder_of_its_own(shifted: type[Shifted]) -> None:
    x, _ = images_of_levels()
    run = mar.fit(Shifted, x, *SHORT)
    try:
        assert run.folder.path.is_dir() and run.model.n_classes == 0 and run.nll(limit=2).n_images == 2
    finally:
        shutil.rmtree(run.folder.path)


def test_the_package_says_its_version_and_has_no_other_names() -> None:
    assert isinstance(mar.__version__, str) and mar.Run is Run
    with pytest.raises(AttributeError):
        mar.train_everything  # noqa: B018


def test_images_and_labels_mean_the_same_in_every_form(run: Run) -> None:
    x, y = run.subset("test", 6)
    assert y is not None
    right = run.nll(x, "raster", y).nats_of_image
    for images, labels in ((x.float() / 16, y.tolist()), (x.numpy()[:, 0], y.numpy()), (x.flatten(1).tolist(), y)):
        assert run.nll(images, "raster", labels).nats_of_image == right
        assert torch.equal(run.log_prob(images, "raster", labels).nats_NL, run.log_prob(x, "raster", y).nats_NL)
    with pytest.warns(UserWarning, match="without a class"):
        assert run.nll(x, "raster").nats_of_image == run.nll(x, "raster", -1).nats_of_image != right
    drawn = run.sample(2, "raster", labels=torch.tensor([3]))
    assert torch.equal(run.sample(2, "raster", labels=[3, 3]), drawn)
    for said, asked in {
        "levels 0..16": lambda: run.nll(x.long() + 200, "raster", y),
        "5 classes for 6": lambda: run.nll(x, "raster", y[:5]),
        "class 10": lambda: run.log_prob(x, "raster", [10] * 6),
        "did you mean 'test'": lambda: run.nll(split="tset"),
        "at least 1 example": lambda: run.nll(limit=0),
        "at least 1 image": lambda: run.sample(0),
        "no images": lambda: run.nll(x[:0], "raster", y[:0]),
        "2 given images for 3": lambda: run.sample(3, given=x[:2], mask=torch.ones(64)),
        "whole numbers 0..16": lambda: run.decode(torch.full((2, 64), 17)),
        "temperature": lambda: run.sample(1, temperature=float("nan")),
        "guidance": lambda: run.sample(1, guidance=float("nan")),
    }.items():
        with pytest.raises(UserError, match=said):
            asked()


def test_weights_that_are_not_finite_stop_a_generation(run: Run) -> None:
    damaged = load(run.folder.path)
    for parameter in damaged.model.network.parameters():
        parameter.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        damaged.sample(1, "raster/equal:4")

"""What ``mar fid`` and ``mar fid-stats`` are pointed at: a store, a run, statistics, a folder of images or a data set."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from mar import build
from mar.config import parse
from mar.core.errors import UserError
from mar.core.files import STORE, digest, settings_digest
from mar.core.spec import DataSpec
from mar.data import DATA
from mar.data.base import Data, Split
from mar.data.folder import every_image
from mar.metrics.extractors import choose
from mar.metrics.fid import Images, Judge, images_of
from mar.metrics.statistics import Statistics, read_statistics
from mar.metrics.store import Store
from mar.training.run_folder import RunFolder
from orderings.user import is_file_target

Features = Literal["auto", "inception", "classifier"]


@dataclass(frozen=True)
class Source:
    """Images, with the data set that they are a split of, if any; or statistics alone."""

    name: str
    images: Images | None = None
    data: Data | None = None
    statistics: Statistics | None = None

    @property
    def identity(self) -> str:
        """Names exactly this reference, in a record."""
        if self.images is not None:
            return self.images.identity
        assert self.statistics is not None
        mu, sigma = self.statistics.mu_D, self.statistics.sigma_DD
        return f"statistics-{digest(mu.tobytes(), sigma.tobytes(), digits=16)}"


@dataclass(frozen=True)
class Looks:
    """How images are looked at."""

    features: Features = "auto"
    inception_weights: Path | None = None
    labelled: str = ""
    seed: int = 0
    device: torch.device | str = "cpu"


def device() -> str:
    """Where images that belong to no run are looked at."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def cache_folder() -> Path:
    """Where classifiers and features of real images are kept when they belong to no run."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mar"


def is_run(path: str | Path) -> bool:
    return (Path(path) / "recipe.yaml").is_file()


def open_source(text: str, split: str = "test", like: DataSpec | None = None, n: int | None = None) -> Source:
    """What ``text`` names: an .npz of statistics, a store, a run (its data), a folder of images, or ``kind:path``.

    Args:
        split: of a data set.
        like: size and channels for the images of a folder; None: those of its first.
        n: images of a store; None: all.

    Raises:
        UserError: nothing of the kind.
    """
    path = Path(text).expanduser()
    if path.suffix == ".npz":
        return Source(path.stem, statistics=read_statistics(path))
    if (path / STORE).is_file():
        store = Store.open(path)
        images = store.images(n)
        return Source(
            path.name,
            Images(path.name, images, store.spec, f"store-{settings_digest(store.question, 12)}-{len(images)}"),
        )
    if is_run(path):
        return from_data(build.images(build.data(RunFolder(path).recipe())), split)
    if path.is_dir():
        return Source(path.name, _folder(path, like))
    kind, inside = DATA.split(text)
    if kind not in DATA and not is_file_target(kind):
        raise UserError(
            f"{text!r} is neither statistics (.npz), a store, a run, a folder of images nor a data set (kind:path, "
            f"kind of {', '.join(sorted(DATA))})"
        )
    return from_data(load_data(kind, inside), split)


def from_data(data: Data, split: str) -> Source:
    return Source(split, images_of(data, split), data)


def load_data(kind: str, path: str) -> Data:
    options = {"path": str(Path(path).expanduser())} if path else {}
    return build.data(parse({"data": {"kind": kind, **options}}))


def _folder(path: Path, like: DataSpec | None) -> Images:
    if like is not None and like.shape[1] != like.shape[2]:
        raise UserError(f"a folder of images is read square, not {like.shape[2]}x{like.shape[1]}: use statistics")
    split = every_image(path, like.shape[1] if like else 0, "grey" if like and like.shape[0] == 1 else "rgb")
    found = ((file, (path / file).stat()) for file in split.files)
    listing = "".join(f"{file} {stat.st_size} {stat.st_mtime_ns};" for file, stat in found)
    channels = 1 if split.options.colour == "grey" else 3
    spec = DataSpec((channels, split.options.size, split.options.size), 256)
    identity = digest(f"{path.resolve()} {spec.shape} {listing}")
    return Images(path.name, split, spec, f"folder-{identity}")


def make_judge(reference: Source, own: Data | None, spec: DataSpec, looks: Looks, cache_dir: Path) -> Judge:
    """Who compares images like ``spec`` with ``reference``. The noise floor is another split of ``own``, or of the
    reference's data set.

    Raises:
        UserError: the features cannot be had, or are not those of the statistics; images of another shape.
    """
    data = own or reference.data
    if reference.images is not None and reference.images.spec.shape != spec.shape:
        shape = reference.images.spec.shape
        raise UserError(f"the images of {reference.name} have shape {shape}, those to score {spec.shape}")
    extractor = _extractor(data, spec, looks, cache_dir)
    floor = None
    if data is not None:
        # never the split compared with: ``data`` may be the same data set, read once more
        floor = images_of(data, "train" if reference.data is not None and reference.name != "train" else "test")
    what = reference.images
    if what is None:
        assert reference.statistics is not None
        what = (reference.name, reference.statistics)
    return Judge(what, extractor, cache_dir, floor, looks.seed, looks.device)


def statistics_of(source: Images, data: Data | None, looks: Looks) -> Statistics:
    """Of the features of all images of a source."""
    extractor = _extractor(data, source.spec, looks, cache_folder())
    return Judge(source, extractor, cache_folder(), None, looks.seed, looks.device).statistics


def _extractor(data: Data | None, spec: DataSpec, looks: Looks, cache_dir: Path):
    labelled = load_data(*DATA.split(looks.labelled)) if looks.labelled else None
    if data is None:  # nothing is known but what the images look like
        nothing = Split()
        data = Data("these images", spec, nothing, nothing, nothing, "")
    return choose(looks.features, data, cache_dir, looks.inception_weights, labelled)

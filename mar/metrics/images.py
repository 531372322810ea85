"""Images to score and to compare with: as 8-bit values 0..255, as statistics of features in ADM's layout, by name.

N images · C channels · H height · W width · D feature width
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from mar import build
from mar.config import parse
from mar.core.errors import UserError, unknown
from mar.core.files import RUN, STORE, digest, settings_digest, write_atomic
from mar.core.readers import read_npz, reading
from mar.core.spec import DataSpec
from mar.data import DATA
from mar.data.base import Data, Split
from mar.data.files import contents
from mar.data.folder import every_image
from mar.metrics.store import Store, StoredImages
from mar.training.run_folder import RunFolder
from orderings.user import is_file_target


def check_images(spec: DataSpec, what: str) -> None:
    """Raise unless ``spec`` describes images of 2 to 256 levels."""
    if spec.modality != "image" or len(spec.shape) != 3 or spec.shape[0] not in (1, 3):
        raise UserError(
            f"{what} has examples of kind {spec.modality}, of shape {spec.shape}: FID needs images of shape (1 or 3, "
            "H, W)"
        )
    if not 2 <= spec.levels <= 256:
        raise UserError(f"{what} has {spec.levels} levels: FID needs images of 2 to 256 levels")


def requantise(x: torch.Tensor, levels: int, target: int) -> torch.Tensor:
    """Map levels 0..levels-1 to the nearest of 0..target-1 on the same range (ties upward), as uint8; target <= 256.

    256 levels to 2 is the threshold at one half; 2 levels to 256 gives 0 and 255.
    """
    if levels == target:
        return x.to(torch.uint8)
    span = levels - 1
    return ((2 * x.to(torch.int32) * (target - 1) + span) // (2 * span)).to(torch.uint8)


class ImageSet(Dataset[torch.Tensor]):
    """A split, or some of its examples, as (C, H, W) uint8 images 0..255.

    Args:
        split: examples (C, H, W) of integer levels.
        spec: their shape and levels.
        rgb: repeat a single channel three times.
        index_N: the examples to show, in this order; None: all.
    """

    def __init__(self, split: Split, spec: DataSpec, *, rgb: bool = False, index_N: torch.Tensor | None = None) -> None:
        self.split, self.spec = split, spec
        self.channels = 3 if rgb else spec.shape[0]
        self.index_N = torch.arange(len(split)) if index_N is None else index_N

    def __len__(self) -> int:
        return len(self.index_N)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[torch.Tensor]:
        """Return a batch; torch's DataLoader calls this method."""
        x_NCHW, _ = self.split.batch(self.index_N[torch.as_tensor(numbers)])
        if tuple(x_NCHW.shape[1:]) != self.spec.shape:
            raise UserError(f"images of shape {tuple(x_NCHW.shape[1:])} cannot be scored as {self.spec.shape}")
        if int(x_NCHW.min()) < 0 or int(x_NCHW.max()) >= self.spec.levels:
            span = f"{int(x_NCHW.min())}..{int(x_NCHW.max())}"
            raise UserError(f"images have values {span}: expected levels 0..{self.spec.levels - 1}")
        x_NCHW = requantise(x_NCHW, self.spec.levels, 256)
        return list(x_NCHW.expand(-1, self.channels, -1, -1).unbind())


@dataclass(frozen=True)
class Statistics:
    """A Gaussian fitted to features, in float64.

    Attributes:
        extractor: name of the extractor, with a hash of its weights; "" where the file does not say, like ADM's.
        n_images: images that it was fitted to; 0 where the file does not say.
    """

    mu_D: np.ndarray
    sigma_DD: np.ndarray
    extractor: str = ""
    n_images: int = 0


def read_statistics(path: Path) -> Statistics:
    """Read ``mu`` and ``sigma``; ignore the other arrays of ADM's reference batches.

    Raises:
        UserError: not such a file.
    """
    wanted = "statistics are an .npz file with mu (D,) and sigma (D, D), as mar fid-stats and ADM write"
    with reading(path, wanted):
        stored = read_npz(path, wanted, ("mu", "sigma", "extractor", "n_images"))
        if not {"mu", "sigma"} <= stored.keys():
            raise UserError(f"{path} has no arrays mu and sigma: {wanted}")
        mu_D, sigma_DD = stored["mu"].astype(np.float64), stored["sigma"].astype(np.float64)
        extractor, n_images = str(stored.get("extractor", "")), int(stored.get("n_images", 0))
    if mu_D.ndim != 1 or sigma_DD.shape != (len(mu_D), len(mu_D)):
        raise UserError(f"{path} has mu {mu_D.shape} and sigma {sigma_DD.shape}: {wanted}")
    if not (np.isfinite(mu_D).all() and np.isfinite(sigma_DD).all()):
        raise UserError(f"{path} has values that are not finite: {wanted}")
    return Statistics(mu_D, sigma_DD, extractor, n_images)


def write_statistics(statistics: Statistics, path: Path) -> None:
    """Write ADM's layout with the extra arrays ``extractor`` and ``n_images``, which its readers ignore."""

    def save(aside: Path) -> None:
        with aside.open("wb") as file:
            np.savez(
                file, mu=statistics.mu_D, sigma=statistics.sigma_DD, extractor=statistics.extractor,
                n_images=statistics.n_images,
            )  # fmt: skip

    write_atomic(path, save)


@dataclass(frozen=True)
class Images:
    """Images with a cache key: features are kept under ``identity``, and never under ""."""

    name: str
    split: Split
    spec: DataSpec
    identity: str = ""


def images_of(data: Data, split: str) -> Images:
    """Return a split of a data set.

    Raises:
        UserError: no such split, or its examples are no images.
    """
    check_images(data.spec, f"data set {data.name!r}")
    if split not in ("train", "validation", "test"):
        raise unknown("split", split, ("train", "validation", "test"))
    return Images(split, data.split(split), data.spec, f"{data.name}-{data.fingerprint}-{split}")


@dataclass(frozen=True)
class Source:
    """Images, with the data set that they are a split of, if any; or statistics alone."""

    name: str
    images: Images | None = None
    data: Data | None = None
    statistics: Statistics | None = None

    @property
    def identity(self) -> str:
        """A text that names exactly this reference."""
        if self.images is not None:
            return self.images.identity
        assert self.statistics is not None
        mu, sigma = self.statistics.mu_D, self.statistics.sigma_DD
        return f"statistics-{digest(mu.tobytes(), sigma.tobytes(), digits=16)}"


@dataclass(frozen=True)
class FeatureSettings:
    """Feature-extractor settings.

    Attributes:
        kind: auto, inception or classifier.
        labelled: kind:path of labelled data for the classifier of unlabelled images.
    """

    kind: Literal["auto", "inception", "classifier"] = "auto"
    inception_weights: Path | None = None
    labelled: str = ""
    seed: int = 0
    device: torch.device | str = "cpu"


def open_source(text: str, split: str = "test", like: DataSpec | None = None, n: int | None = None) -> Source:
    """Open an .npz of statistics, a store, a run (its data), a folder of images, or ``kind:path`` of a data set.

    Args:
        split: of a data set.
        like: size and channels for the images of a folder; None: those of its first.
        n: images of a store; None: all.

    Raises:
        UserError: ``text`` names nothing of the kind.
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
    if (path / RUN).is_file():
        return split_source(build.images(build.data(RunFolder(path).located())), split)
    if path.is_dir():
        return Source(path.name, _folder(path, like))
    kind, inside = DATA.split(text)
    if kind not in DATA and not is_file_target(kind):
        raise UserError(
            f"{text!r} is neither statistics (.npz), a store, a run, a folder of images nor a data set (kind:path, "
            f"kind of {', '.join(sorted(DATA))})"
        )
    return split_source(load_data(kind, inside), split)


def split_source(data: Data, split: str) -> Source:
    """Return a split of a data set as a source."""
    return Source(split, images_of(data, split), data)


def load_data(kind: str, path: str) -> Data:
    """Load a data set by its kind and path."""
    options = {"path": str(Path(path).expanduser())} if path else {}
    return build.data(parse({"data": {"kind": kind, **options}}))


def _folder(path: Path, like: DataSpec | None) -> Images:
    if like is not None and like.shape[1] != like.shape[2]:
        raise UserError(f"a folder of images is read square, not {like.shape[2]}x{like.shape[1]}: use statistics")
    split = every_image(path, like.shape[1] if like else 0, "grey" if like and like.shape[0] == 1 else "rgb")
    channels = 1 if split.options.colour == "grey" else 3
    spec = DataSpec((channels, split.options.size, split.options.size), 256)
    identity = digest(f"{spec.shape}", *contents(path, split.files))
    return Images(path.name, split, spec, f"folder-{identity}")


def write_npz(images: StoredImages, path: Path) -> None:
    """Write stored images in ADM's layout, arr_0 (N, H, W, 3) uint8. All of them pass through memory."""
    check_images(images.store.spec, str(images.store.path))
    shown = ImageSet(images, images.store.spec, rgb=True)
    parts = [torch.stack(shown.__getitems__(index.tolist())) for index in torch.arange(len(shown)).split(1000)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, arr_0=torch.cat(parts).permute(0, 2, 3, 1).contiguous().numpy())

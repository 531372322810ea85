"""Images to score and to compare with: splits as 8-bit values 0..255, statistics of features in ADM's layout, by name.

N images · C channels · H height · W width · D feature width
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mar import build
from mar.config import parse
from mar.core.errors import UserError, unknown
from mar.core.files import RUN, STORE, checksum, digest, write_atomic
from mar.core.readers import read_npz, reading
from mar.core.spec import DataSpec
from mar.data import DATA
from mar.data.base import SPLITS, Data, Split, Subset, TensorSplit
from mar.data.files import contents
from mar.data.folder import FolderSplit, every_image
from mar.data.hub import PictureSplit
from mar.metrics.store import Store
from mar.training.run_folder import RunFolder
from orderings.user import existing, is_file_target

BEFORE_TEST = "train+validation"  # all published training images of a data set that publishes no validation split
RESIZING = "scaled to the shorter side and cropped to the centre, as ADM"  # of the files of a folder


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


@dataclass(frozen=True)
class Images:
    """A split as images."""

    name: str
    split: Split
    spec: DataSpec
    identity: str = ""  # names exactly these images: their features are kept under it; "": they are not kept
    data: Data | None = None  # the data set of the split

    @property
    def _whole(self) -> Any:
        """The split that these are a subset of."""
        return self.split.split if isinstance(self.split, Subset) else self.split

    @property
    def of_any_size(self) -> bool:
        """True for files or pictures, which are read in the size asked for."""
        return isinstance(self._whole, FolderSplit | PictureSplit)

    @property
    def resizing(self) -> str:
        """How files became images of this size."""
        return RESIZING if self.of_any_size and self._whole.options.size else "none"

    def first(self, n: int | None) -> Images:
        """Return the first ``n`` images; None: all. Raises UserError: there are fewer."""
        if n is None or n == len(self.split):
            return self
        if n > len(self.split):
            raise UserError(f"{self.name} has {len(self.split)} images, not {n}")
        return replace(self, split=Subset(self.split, torch.arange(n)), identity=f"{self.identity}-first{n}")

    def bytes(self, index_N: torch.Tensor, rgb: bool = False) -> torch.Tensor:
        """Return images (N, C, H, W) uint8, 0..255; ``rgb`` repeats a single channel three times."""
        x_NCHW, _ = self.split.batch(index_N)
        if tuple(x_NCHW.shape[1:]) != self.spec.shape:
            raise UserError(f"images of shape {tuple(x_NCHW.shape[1:])} cannot be scored as {self.spec.shape}")
        low, high = int(x_NCHW.min()), int(x_NCHW.max())
        if low < 0 or high >= self.spec.levels:
            raise UserError(f"images have values {low}..{high}: expected levels 0..{self.spec.levels - 1}")
        x_NCHW = requantise(x_NCHW, self.spec.levels, 256)
        return x_NCHW.expand(-1, 3, -1, -1) if rgb else x_NCHW


@dataclass(frozen=True)
class Joined(Split):
    """The examples of several splits, one split after another."""

    splits: tuple[Split, ...]

    def __len__(self) -> int:
        return sum(map(len, self.splits))

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        first, places, parts = 0, [], []
        for split in self.splits:
            place = ((index_B >= first) & (index_B < first + len(split))).nonzero()[:, 0]
            if len(place):
                places.append(place)
                parts.append(split.batch(index_B[place] - first))
            first += len(split)
        order_B = torch.cat(places).argsort()
        labels = [label for _, label in parts if label is not None]
        label_B = torch.cat(labels)[order_B] if len(labels) == len(parts) else None
        return torch.cat([x for x, _ in parts])[order_B], label_B


@dataclass(frozen=True)
class Statistics:
    """A Gaussian fitted to features, in float64."""

    mu_D: np.ndarray
    sigma_DD: np.ndarray
    extractor: str = ""  # with a hash of its weights; "" where the file does not say, like ADM's
    n_images: int = 0  # that it was fitted to; 0 where the file does not say
    name: str = "statistics"
    shape: tuple[int, ...] = ()  # (C, H, W) of the images; () where the file does not say
    resizing: str = ""  # as ``Images.resizing``; "" where the file does not say
    spatial: Statistics | None = None  # of the features of sFID; None where the file has none
    images: Images | None = None  # some of the real images, as in ADM's files: for precision, recall and KID

    @property
    def spec(self) -> DataSpec | None:
        """Shape of the images, where the file says it."""
        if self.images is not None:
            return self.images.spec
        return DataSpec(self.shape, 256) if self.shape else None

    @property
    def identity(self) -> str:
        found = f"statistics-{digest(self.mu_D.tobytes(), self.sigma_DD.tobytes(), digits=16)}"
        return found if self.images is None else f"{found}-{self.images.identity}"


Reference = Images | Statistics


def read_statistics(path: Path) -> Statistics:
    """Read ``mu`` and ``sigma``, and where ADM wrote them ``mu_s``, ``sigma_s`` and the images ``arr_0``.

    Raises UserError: no such file.
    """
    what = "statistics: mu (D,) and sigma (D, D), as mar fid-stats and ADM write them"
    stored = read_npz(path, what, ("mu", "sigma", "mu_s", "sigma_s", "extractor", "n_images", "shape", "resizing"))
    with reading(path, what):
        mu_D, sigma_DD = _gaussian(stored, "mu", "sigma")
        spatial = Statistics(*_gaussian(stored, "mu_s", "sigma_s")) if "mu_s" in stored else None
        extractor, n_images = str(stored.get("extractor", "")), int(stored.get("n_images", 0))
        shape, resizing = tuple(int(side) for side in stored.get("shape", ())), str(stored.get("resizing", ""))
    return Statistics(mu_D, sigma_DD, extractor, n_images, path.stem, shape, resizing, spatial, _batch(path))


def _gaussian(stored: dict[str, np.ndarray], mean: str, covariance: str) -> tuple[np.ndarray, np.ndarray]:
    mu_D, sigma_DD = (stored[name].astype(np.float64) for name in (mean, covariance))
    if mu_D.ndim != 1 or sigma_DD.shape != (len(mu_D), len(mu_D)):
        raise ValueError(f"{mean} {mu_D.shape} and {covariance} {sigma_DD.shape}")
    if not (np.isfinite(mu_D).all() and np.isfinite(sigma_DD).all()):
        raise ValueError("values that are not finite")
    return mu_D, sigma_DD


def _batch(path: Path) -> Images | None:
    """Return the images of an .npz file in the layout of ADM's evaluator, with classes if it has ``arr_1``."""
    what = "images: arr_0 (N, H, W, 1 or 3) uint8, as ADM's evaluator reads them"
    stored = read_npz(path, what, ("arr_0", "arr_1"))
    if "arr_0" not in stored:
        return None
    x_NHWC, label_N = stored["arr_0"], stored.get("arr_1")
    with reading(path, what):
        if x_NHWC.dtype != np.uint8 or x_NHWC.ndim != 4 or x_NHWC.shape[3] not in (1, 3):
            raise ValueError(f"arr_0 {x_NHWC.shape} of {x_NHWC.dtype}")
        label = None
        if label_N is not None and label_N.dtype.kind in "iu" and label_N.shape == x_NHWC.shape[:1]:
            label = torch.from_numpy(label_N.astype(np.int64))
    x_NCHW = torch.from_numpy(x_NHWC).permute(0, 3, 1, 2)
    identity = f"batch-{digest(str(x_NHWC.shape), np.ascontiguousarray(x_NHWC).data, digits=16)}"
    return Images(path.stem, TensorSplit(x_NCHW, label), DataSpec(tuple(x_NCHW.shape[1:]), 256), identity)


def write_statistics(statistics: Statistics, path: Path) -> None:
    """Write ADM's layout with further arrays, which its readers ignore."""
    spatial = statistics.spatial
    write_arrays(
        path, mu=statistics.mu_D, sigma=statistics.sigma_DD, extractor=statistics.extractor,
        **({} if spatial is None else {"mu_s": spatial.mu_D, "sigma_s": spatial.sigma_DD}),
        n_images=statistics.n_images, shape=np.array(statistics.shape, np.int64), resizing=statistics.resizing,
    )  # fmt: skip


def write_npz(images: Images, path: Path) -> None:
    """Write images in the layout of ADM's evaluator, arr_0 (N, H, W, 3) uint8. All of them pass through memory."""
    check_images(images.spec, images.name)
    parts = [images.bytes(index, rgb=True) for index in torch.arange(len(images.split)).split(1000)]
    write_arrays(path, arr_0=torch.cat(parts).permute(0, 2, 3, 1).contiguous().numpy())


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write an .npz file under exactly this name."""

    def save(aside: Path) -> None:
        with aside.open("wb") as file:
            np.savez(file, **arrays)

    write_atomic(path, save)


@dataclass(frozen=True)
class FeatureSettings:
    """The feature extractor, and how features are computed and compared."""

    extractor: Any = "auto"  # auto, classifier, a name or class as ``mar.metrics.extractors`` takes, or an Extractor
    weights: Path | None = None  # of a named extractor; None: torch's own cache of downloads, filled if need be
    labelled: str | Data = ""  # labelled data, or their kind:path, for the classifier of unlabelled images
    seed: int = 0  # of the subsets of KID, the splits of the Inception score and the images of the noise floor
    device: torch.device | str = "cpu"
    batch_size: int = 64  # images at once on that device
    spatial: bool = False  # compute sFID, of Inception alone
    infinity: bool = False  # extrapolate FID to infinitely many images
    by_class: bool = False  # FID of each class, of images with classes on both sides
    resize: str = ""  # clean: to Inception's size as clean-fid; "": as torch-fidelity

    @property
    def identity(self) -> str:
        """Name the features of a record before a network is loaded: files by their content, not their path."""
        text = str(self.extractor)
        files = [self.weights, existing(text.rpartition(":")[0]) if is_file_target(text) else None]
        hashes = " ".join(checksum(file)[:8] for file in files if file is not None and file.is_file())
        asked = " ".join(name for name, on in _asked(self) if on)
        return f"{text} {hashes} {self.labelled}{asked and f' {asked}'}".strip()


def _asked(settings: FeatureSettings) -> tuple[tuple[str, bool], ...]:
    asked = {"sfid": settings.spatial, "fd-infinity": settings.infinity, "by-class": settings.by_class}
    return *asked.items(), ("clean", settings.resize == "clean")


def images_of(data: Data, split: str) -> Images:
    """Return a split of a data set. Raises UserError: no such split, or its examples are no images."""
    check_images(data.spec, f"data set {data.name!r}")
    if split not in (*SPLITS, BEFORE_TEST):
        raise unknown("split", split, SPLITS)
    found = Joined((data.train, data.validation)) if split == BEFORE_TEST else data.split(split)
    return Images(split, found, data.spec, f"{data.name}-{data.fingerprint}-{split}", data)


def images_in(store: Store, n: int | None = None) -> Images:
    """Return the first ``n`` images of a store; None: all. Raise UserError: it holds other examples."""
    check_images(store.spec, store.path.name)
    split = store.images(n)
    return Images(store.path.name, split, store.spec, f"store-{store.identity(len(split))}")


def open_source(text: str, split: str = "test", like: DataSpec | None = None, n: int | None = None) -> Reference:
    """Open statistics or images (.npz), a store, a run (its data), a folder of images, or ``kind:path`` of a data set.

    Args:
        split: of a data set.
        like: size and channels for the images of a folder; None: those of its first.
        n: images of a store; None: all.

    Raises UserError: ``text`` names nothing of the kind.
    """
    path = Path(text).expanduser()
    if path.suffix == ".npz":
        batch = None if read_npz(path, "statistics (mu, sigma) or images (arr_0)", ("mu",)) else _batch(path)
        return batch or read_statistics(path)
    if (path / STORE).is_file():
        return images_in(Store.open(path), n)
    if (path / RUN).is_file():
        return images_of(build.images(build.data(RunFolder(path).located())), split)
    if path.is_dir():
        return _folder(path, like)
    kind, _ = DATA.split(text)
    if kind not in DATA and not is_file_target(kind):
        raise UserError(
            f"{text!r} is neither statistics or images (.npz), a store, a run, a folder of images nor a data set "
            f"(kind:path, kind of {', '.join(sorted(DATA))})"
        )
    return images_of(load_data(text, like), split)


def load_data(text: str, like: DataSpec | None = None) -> Data:
    """Load the data set ``kind:path``; the images of a folder or of hub in the size and colour of ``like``, or of its
    first."""
    kind, path = DATA.split(text)
    options: dict[str, Any] = {"path": str(Path(path).expanduser())} if path else {}
    if kind == "folder" and path:
        options |= _square(like) if like else {"size": every_image(Path(options["path"])).options.size}
    if kind == "hub" and like and like.shape[1] == like.shape[2]:
        options |= _square(like)
    return build.data(parse({"data": {"kind": kind, **options}}))


def _square(like: DataSpec) -> dict[str, Any]:
    """Return the options of a folder of images like ``like``."""
    if like.shape[1] != like.shape[2]:
        raise UserError(f"a folder of images is read square, not {like.shape[2]}x{like.shape[1]}: use statistics")
    return {"size": like.shape[1], "colour": "grey" if like.shape[0] == 1 else "rgb"}


def _folder(path: Path, like: DataSpec | None) -> Images:
    """Return all images below a folder; of one that ``mar sample`` wrote, the samples without their pictures."""
    root = path / "images" if (path / "images.npz").is_file() and (path / "images").is_dir() else path
    split = every_image(root, **(_square(like) if like else {}))
    spec = DataSpec((1 if split.options.colour == "grey" else 3, split.options.size, split.options.size), 256)
    content = (f"{file} {found};" for file, found in zip(split.files, contents(root, split.files), strict=True))
    return Images(path.name, split, spec, f"folder-{digest(str(spec.shape), *content)}")

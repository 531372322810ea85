"""Feature extractors: Inception, CLIP and DINOv2 by name, a classifier of the data, or a class of yours.

Importing this module imports torch_fidelity (seconds): import it inside the function that scores.

N images · C channels · H height · W width · D feature width · K classes
"""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from mar.core import torchvision  # noqa: F401  (torch_fidelity imports torchvision)
from mar.core.devices import back, double
from mar.core.errors import UserError, unknown
from mar.core.files import checksum, digest
from mar.core.readers import reading
from mar.core.spec import DataSpec
from mar.data.base import Data
from mar.metrics.classifier import FEATURE_WIDTH, trained_classifier, weight_hash
from mar.metrics.images import FeatureSettings, load_data
from orderings.user import existing, is_file_target, load_class

# isort: split
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, FeatureExtractorCLIP
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

INCEPTION_WIDTH = 2048
_SPATIAL_CHANNELS, _SPATIAL_SIDE = 7, 17  # of the layer mixed_6/conv, as ADM's evaluator takes them
SPATIAL_WIDTH = _SPATIAL_CHANNELS * _SPATIAL_SIDE**2
_IMAGENET_CLASSES = 1000
_IMAGENET_RGB = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])  # mean and standard deviation
_BILINEAR = "bilinear to {0} x {0} without antialiasing, as TensorFlow 1 and torch-fidelity"
_RESIZE = interpolate_bilinear_2d_like_tensorflow1x.__name__
_CLEAN = "bicubic to {0} x {0} with antialiasing, as PIL and clean-fid"

# uint8 (N, C, H, W) -> features (N, D), logits (N, K; K = 0 without classes), spatial features (N, S) where asked
Network = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Extractor:
    """A network whose features are compared; its logits give the Inception score and the classes."""

    name: str  # contains a hash of the weights: features are kept under it
    feature_width: int
    load: Callable[[], Network]
    rgb: bool = False  # it takes three channels
    n_classes: int = 0  # among its logits, from ``first_class`` on; 0: they are no classes of the data
    first_class: int = 0
    knows_labels: bool = False  # class k of the logits is label k of the data
    notes: tuple[str, ...] = ()  # printed below its scores
    resizing: str = "none"  # of images to the size that the network takes
    spatial_width: int = 0  # of the features of sFID; 0: it gives none
    cmmd: bool = False  # CMMD is defined on its features

    @cached_property
    def network(self) -> Network:
        return self.load()


class Published(NamedTuple):
    """A published file of weights."""

    url: str
    file: str  # its name in torch's download cache
    sha256: str = ""  # the first digits, or all; "": its authors publish none


def _inception_file() -> Published:
    file = URL_INCEPTION_V3.rsplit("/", 1)[-1]
    return Published(URL_INCEPTION_V3, file, file.removesuffix(".pth").rsplit("-", 1)[-1])


INCEPTION = _inception_file()
CLIP = {  # under the file names of torch-fidelity
    name: Published(MODEL_URLS[name], f"{name}-{about['hash']}.pt", about["hash"])
    for name, about in MODEL_METADATA.items()
}
_DINOV2_TIMM = {
    f"dinov2-vit-{size[0]}-14": f"vit_{size}_patch14_dinov2" for size in ("small", "base", "large", "giant")
}
_DINOV2_URL = "https://dl.fbaipublicfiles.com/dinov2/{0}/{0}_pretrain.pth"
DINOV2 = {
    name: Published(_DINOV2_URL.format(f"dinov2_vit{name[11]}14"), f"dinov2_vit{name[11]}14_pretrain.pth")
    for name in _DINOV2_TIMM
}


def choose(settings: FeatureSettings, data: Data, cache_dir: Path) -> Extractor:
    """Return Inception for RGB images of at least 32 x 32 pixels, otherwise a classifier; or what the settings name.

    Args:
        data: the scored images; it trains the classifier unless ``settings.labelled`` does.
        cache_dir: where a classifier is kept.

    Raises UserError: the weights cannot be had, or there is nothing to train the classifier on.
    """
    kind, (channels, height, width) = settings.extractor, data.spec.shape
    if isinstance(kind, Extractor):
        return kind
    if kind == "inception" or (kind == "auto" and channels == 3 and min(height, width) >= 32):
        found = inception(settings.weights, settings.spatial, settings.resize == "clean")
        if data.spec.n_classes != _IMAGENET_CLASSES:
            return found
        return replace(found, n_classes=_IMAGENET_CLASSES, first_class=1)  # 0 is background, those after 1,000 empty
    if settings.resize:
        raise UserError("--resize clean is of Inception's features: choose --features inception, or leave it out")
    if settings.spatial:
        raise UserError("sFID compares spatial features of Inception: choose --features inception, or leave out --sfid")
    if kind in CLIP:
        return clip(kind, settings.weights)
    if kind in DINOV2:
        return dinov2(kind, settings.weights)
    if settings.weights is not None:
        raise UserError(
            f"weights are those of inception, clip-… or dinov2-…, but {data.name!r} is scored by "
            f"{kind if is_file_target(kind) else 'a classifier of its own'}: leave out one"
        )
    if is_file_target(kind):
        return own(kind, data.spec)
    if kind not in ("auto", "classifier"):
        raise unknown("features", kind, ("auto", "inception", "classifier", *CLIP, *DINOV2, "FILE.py:Class"))
    labelled = settings.labelled or data
    source = load_data(labelled, data.spec) if isinstance(labelled, str) else labelled
    if source.spec.shape != data.spec.shape:
        raise UserError(
            f"the FID classifier of {source.name!r} takes images of shape {source.spec.shape}, not {data.spec.shape}: "
            f"choose labelled images of the shape of {data.name!r}"
        )
    return of_classifier(source, data.spec.levels, cache_dir, knows_labels=not settings.labelled)


def of_classifier(data: Data, levels: int, cache_dir: Path, knows_labels: bool) -> Extractor:
    """Return the features and logits of the classifier of ``data`` requantised to ``levels``."""
    trained = trained_classifier(data, levels, cache_dir)

    def network(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        feature_ND, logits_NK = trained.model.to(image.device)(image)
        # float64, so that the sums behind mean and covariance do not depend on the order of the images
        return double(feature_ND), double(logits_NK)

    return Extractor(
        trained.name, FEATURE_WIDTH, lambda: network, n_classes=data.spec.n_classes, knows_labels=knows_labels
    )


def own(target: str, spec: DataSpec) -> Extractor:
    """Return the extractor ``FILE.py:Class``: a torch module that is made without arguments.

    It takes uint8 images (N, C, H, W), 0..255, of three channels where the class has ``rgb = True``, and returns
    features (N, D), or features and logits (N, K). Its name hashes the file and all weights.

    Raises UserError: there is no such class, or it does not take images of ``spec``.
    """
    cls: Any = load_class(target, (torch.nn.Module,), UserError)
    rgb = getattr(cls, "rgb", False)
    shape = (3 if rgb else spec.shape[0], *spec.shape[1:])
    try:
        model = cls().eval().requires_grad_(False)
        tried = _answer(model, torch.zeros(2, *shape, dtype=torch.uint8))
        if not all(part.ndim == 2 and len(part) == 2 for part in tried):
            raise ValueError(f"it returns {' and '.join(str(tuple(part.shape)) for part in tried)} for two images")
    except Exception as error:  # code of the user raises anything
        raise UserError(
            f"{target} takes uint8 images {(2, *shape)} and returns features (2, D), or features and logits (2, K): "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error
    file = existing(target.rpartition(":")[0])
    assert file is not None  # the class was read from it
    name = f"{cls.__name__}-{digest(file.read_bytes(), weight_hash(model), digits=8)}"
    return Extractor(
        name, tried[0].shape[1], lambda: lambda image: _answer(model.to(image.device), image), rgb,
        resizing=str(getattr(cls, "resizing", "by the extractor")),
    )  # fmt: skip


def _answer(model: torch.nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    found = model(image)
    feature_ND, logits_NK = found if isinstance(found, tuple | list) else (found, found[:, :0])
    return double(feature_ND), double(logits_NK)


def clip(name: str, weights: Path | None) -> Extractor:
    """Return the image embedding of OpenAI's CLIP (Radford et al. 2021), not normalised, in torch-fidelity's port."""
    path = _downloaded(name, CLIP[name]) if weights is None else weights
    digest_, notes = _identity(path, name, CLIP[name])
    with reading(path, f"the weights of {name}: {CLIP[name].url}"):
        found = FeatureExtractorCLIP(name, ["clip"], feature_extractor_weights_path=str(path)).eval()
    resizing = _BILINEAR.format(found.resolution)

    def network(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        [feature_ND] = found.to(image.device)(image)
        return feature_ND, feature_ND[:, :0]

    width = found.model.visual.output_dim
    return Extractor(f"{name}-{digest_}", width, lambda: network, True, notes=notes, resizing=resizing, cmmd=True)


def dinov2(name: str, weights: Path | None) -> Extractor:
    """Return the class token of DINOv2 (Oquab et al. 2023) with the authors' weights, prepared as by torch-fidelity.

    The network is timm's, with the position embeddings resized as by the authors' code: nothing is run from the net.
    """
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    path = _downloaded(name, DINOV2[name]) if weights is None else weights
    digest_, notes = _identity(path, name, DINOV2[name])
    side = FeatureExtractorDinoV2.INPUT_IMAGE_SIZE
    with reading(path, f"the weights of {name}: {DINOV2[name].url}"):
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        state["pos_embed"] = _resized_positions(state["pos_embed"], side // 14)
        model: Any = timm.create_model(_DINOV2_TIMM[name], img_size=side, num_classes=0, global_pool="token")
        model.load_state_dict(checkpoint_filter_fn(state, model))
    model.eval().requires_grad_(False)

    def network(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = interpolate_bilinear_2d_like_tensorflow1x(image.float(), size=(side, side), align_corners=False)
        mean_C, sd_C = 255 * _IMAGENET_RGB.to(image.device)
        feature_ND = model.to(image.device)((x - mean_C[:, None, None]) / sd_C[:, None, None])
        return feature_ND, feature_ND[:, :0]

    width = model.num_features
    return Extractor(f"{name}-{digest_}", width, lambda: network, True, notes=notes, resizing=_BILINEAR.format(side))


def _resized_positions(position_1LD: torch.Tensor, side: int) -> torch.Tensor:
    """Return the embeddings of a class token and of a square of patches, resized to ``side``, as DINOv2's code does."""
    token, patches = position_1LD[:, :1], position_1LD[:, 1:]
    before = round(patches.shape[1] ** 0.5)
    scale = (side + 0.1) / before  # its interpolate_offset
    grid = patches.reshape(1, before, before, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", antialias=False)
    return torch.cat([token, grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def inception(weights: Path | None, spatial: bool = False, clean: bool = False) -> Extractor:
    """Return torch-fidelity's port of the Inception of the original FID (float32, 2048 features).

    Args:
        clean: resize as clean-fid does; the name says so, since features of both are compared with their own alone.
        spatial: also return the features of sFID (Nash et al. 2021), the first 7 channels of mixed_6/conv, rows first.
    """
    path = _downloaded("inception", INCEPTION) if weights is None else weights
    digest_, notes = _identity(path, "inception", INCEPTION)
    # torch-fidelity unpickles the file without restrictions: refuse one that could do harm there
    with reading(path, f"torch-fidelity's Inception weights: {INCEPTION.url}"):
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        if state["fc.weight"].shape[1] != INCEPTION_WIDTH:
            raise ValueError(f"fc.weight {tuple(state['fc.weight'].shape)}")
    name = f"inception-v3-compat-{digest_}{'-clean' if clean else ''}"

    def load() -> Network:
        layers = ["2048", "logits_unbiased"]
        found = FeatureExtractorInceptionV3(name, layers, feature_extractor_weights_path=str(path))
        kept: list[torch.Tensor] = []
        if spatial:
            found.Mixed_6d.branch1x1.register_forward_hook(lambda *call: kept.append(call[-1][:, :_SPATIAL_CHANNELS]))

        def network(image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            kept.clear()
            with patch.object(feature_extractor_inceptionv3, _RESIZE, clean_resize) if clean else nullcontext():
                answer = found.to(image.device)(image)
            return (*answer, *(x_NCHW.permute(0, 2, 3, 1).flatten(1) for x_NCHW in kept))

        return network

    side = FeatureExtractorInceptionV3.INPUT_IMAGE_SIZE
    width = SPATIAL_WIDTH if spatial else 0
    resizing = _CLEAN.format(side) if clean else _BILINEAR.format(side)
    return Extractor(name, INCEPTION_WIDTH, load, True, notes=notes, resizing=resizing, spatial_width=width)


def clean_resize(x_NCHW: torch.Tensor, size: tuple[int, int], align_corners: bool = False) -> torch.Tensor:
    """Return images in [0, 255] as PIL resizes each channel in float, which clean-fid does (Parmar et al. 2022).

    float64, on the CPU where the device has none: the weights of torch's filter are 1e-5 off in float32.
    """
    y_NCHW = torch.nn.functional.interpolate(double(x_NCHW), size, mode="bicubic", antialias=True)
    return back(y_NCHW.clamp(0, 255).float(), x_NCHW.device)


def _downloaded(name: str, published: Published) -> Path:
    """Return the file in torch's cache of downloads, downloaded if need be."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / published.file
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(published.url, str(path), progress=False)
        except (urllib.error.URLError, OSError) as error:
            raise UserError(
                f"the weights of {name} could not be downloaded ({error}): fetch {published.url} elsewhere and "
                f"give its path (--features-weights FILE), put it at {path}, or compare the features of a classifier "
                "trained on the data (--features classifier)"
            ) from error
    return path


def _identity(path: Path, name: str, published: Published) -> tuple[str, tuple[str, ...]]:
    """Return the first eight digits of the file's SHA-256, and what to note if it is not the published file's."""
    if not path.is_file():
        raise UserError(f"there is no file {path}: the weights of {name} are {published.url}")
    found = checksum(path)
    if found.startswith(published.sha256):
        return found[:8], ()
    return found[:8], (f"the weights {path.name} are not the published ones of {name}: compare with no published FID",)

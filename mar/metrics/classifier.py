"""A small classifier whose features stand in for Inception's on digit-like images.

N images · C channels · H height · W width · D feature width · K classes

Inception knows photographs of 299 x 299 pixels; for grey images of a few pixels a classifier of the data itself
separates what matters. Its features have at most 64 dimensions, so that a covariance of a few hundred images has full
rank, and unit variance over the training data, so that their scale does not depend on the training run.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from mar.core.errors import UserError
from mar.core.files import digest, write_atomic
from mar.core.noise import derived_seed, stream
from mar.core.processes import threads
from mar.data.base import Data, Split
from mar.metrics.images import check_images, requantise

FEATURE_WIDTH = 64
_BATCH = 128
_LEARNING_RATE = 3e-3
_VERSION = 1  # of architecture and training together; part of the cache's key


@dataclass(frozen=True)
class Budget:
    """The length of the training: a least number of epochs, and a least number of images."""

    epochs: int = 2
    images: int = 30_000


BUDGET = Budget()


class Classifier(nn.Module):
    """Strided convolutions down to at most 7 x 7, then the features, then one linear layer to the logits."""

    def __init__(self, shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        layers: list[nn.Module] = []
        stride, out = (1 if max(height, width) < 16 else 2), 32
        while not layers or max(height, width) > 7:
            layers += [nn.Conv2d(channels, out, 3, stride, padding=1), nn.ReLU()]
            height, width = (height - 1) // stride + 1, (width - 1) // stride + 1
            channels, stride, out = out, 2, 64
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.features = nn.Sequential(
            nn.Linear(channels * height * width, FEATURE_WIDTH), nn.BatchNorm1d(FEATURE_WIDTH, affine=False)
        )
        self.logits = nn.Linear(FEATURE_WIDTH, n_classes)

    def forward(self, image_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (N, D) and logits (N, K) of uint8 images 0..255."""
        feature_ND = self.features(self.convolutions(image_NCHW.float() / 127.5 - 1.0))
        return feature_ND, self.logits(F.relu(feature_ND))


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier with its source. ``name`` holds its test accuracy and a hash of its weights."""

    model: Classifier
    name: str
    test_accuracy: float


def trained_classifier(data: Data, levels: int, cache_dir: Path) -> TrainedClassifier:
    """Return the classifier of ``data`` requantised to ``levels``: read from ``cache_dir``, or trained and kept there.

    The same data gives the same weights for any number of threads; another kind of CPU or version of torch may round
    differently, and the hash in the name says so.

    Raises UserError: the data has no labels, or its examples are not images.
    """
    check_images(data.spec, f"data set {data.name!r}")
    if data.spec.n_classes < 2 or not data.fingerprint:  # unlabelled images
        raise UserError(
            f"data set {data.name!r} has no labels to train the FID classifier on: pass labelled images of the same "
            "shape (beside statistics: those they were made of), e.g. --labelled mnist:FOLDER"
        )
    key = repr((_VERSION, data.fingerprint, data.spec.shape, data.spec.n_classes, levels))
    path = cache_dir / f"classifier-{digest(key, digits=16)}.safetensors"
    if known := _read(path, data):
        model, accuracy = known
    else:
        model = train(data, levels)
        image_NCHW, label_N = _all(data.test, data.spec.levels, levels)
        with torch.no_grad():
            guess_N = torch.cat([model(x)[1].argmax(-1) for x in image_NCHW.split(1000)])
        accuracy = (guess_N == label_N).cpu().double().mean().item()
        metadata = {"test_accuracy": repr(accuracy)}
        with contextlib.suppress(OSError, SafetensorError):  # without a place to keep it, it is trained the next time
            write_atomic(path, lambda aside: save_file(model.state_dict(), aside, metadata=metadata))
    model.eval().requires_grad_(False)
    source = data.name if levels == data.spec.levels else f"{data.name}-{levels}levels"
    return TrainedClassifier(model, f"{source}-classifier-acc{accuracy:.3f}-{weight_hash(model)}", accuracy)


def _read(path: Path, data: Data) -> tuple[Classifier, float] | None:
    """Return the kept classifier and its accuracy; None if the file is missing, damaged or another one."""
    with torch.device("meta"):  # no initialisation that would move the global generator
        model = Classifier(data.spec.shape, data.spec.n_classes)
    try:
        with safe_open(path, framework="pt") as file:
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()}, assign=True)  # noqa: SIM118
            return model, float(file.metadata()["test_accuracy"])
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError):
        return None


def train(data: Data, levels: int, seed: int = 0) -> Classifier:
    """Minimise cross-entropy on the training split: Adam with one learning-rate cycle, always on the CPU."""
    image_NCHW, label_N = _all(data.train, data.spec.levels, levels)
    n = len(label_N)
    epochs = max(BUDGET.epochs, -(-BUDGET.images // n))
    # sums have one order on every machine, and layers this small gain little from threads
    with threads(1), torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.default_generator.manual_seed(derived_seed(seed, "classifier"))
        model = Classifier(data.spec.shape, data.spec.n_classes).train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=1e-2)
        steps = epochs * len(torch.arange(n).split(_BATCH))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=steps)
        order = stream(seed, "classifier/order", n)
        for epoch in range(epochs):
            shuffled_N = order.at(draw=epoch).uniform(1)[:, 0].argsort(stable=True)
            for index_B in shuffled_N.split(_BATCH):
                if len(index_B) == 1 < n:  # a batch of one has no variance to normalise by
                    index_B = shuffled_N[-2:]
                _, logits_BK = model(image_NCHW[index_B])
                loss = F.cross_entropy(logits_BK, label_N[index_B])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
    return model.eval()


def weight_hash(model: nn.Module) -> str:
    """Return eight hexadecimal digits of a SHA-256 over all weights and buffers."""
    state = sorted(model.state_dict().items())
    parts = ((name, tensor.detach().cpu().contiguous().numpy().tobytes()) for name, tensor in state)
    return digest(*chain.from_iterable(parts), digits=8)


def _all(split: Split, levels: int, target: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every image of a split, requantised to ``target`` levels, as uint8 0..255, and its label."""
    x_NCHW, label_N = split.batch(torch.arange(len(split)))
    if label_N is None:
        raise UserError("the FID classifier needs a label for every image")
    return requantise(requantise(x_NCHW, levels, target), target, 256), label_N

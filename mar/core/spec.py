"""What one example of a data set looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mar.core.errors import unknown


@dataclass(frozen=True)
class Latents:
    """Examples of a cache of latents, in place of images: a KL autoencoder's means and standard deviations, (2 C, h, w)
    float32, or a VQ model's indices, (1, h, w) int16 or int32.

    Attributes:
        kind: kind of the tokenizer that reads them.
        folder: folder of the autoencoder that made them.
        sha256: hash of that autoencoder.
        mean: mean of each channel over the training split; () for indices.
        std: standard deviation of each channel, including the variance of the posterior; () for indices.
    """

    kind: Literal["kl", "vq"]
    folder: str
    sha256: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class Conditions:
    """Vectors that examples are generated under, in place of classes: float32 (N, E), or sequences (N, T, E).

    A vector of NaN is absent: no condition, or the padding of a shorter sequence.

    Attributes:
        width: E.
        mean: of each entry over the training split.
        std: standard deviation of each entry; 1 where it is constant.
        length: T; 0: one vector.
    """

    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    length: int = 0


@dataclass(frozen=True)
class DataSpec:
    """Shape and meaning of one example.

    Attributes:
        shape: (C, H, W) for images and latents, (T, C, H, W) for videos of T frames, (1, 1, L) for all else.
        levels: integer values 0..levels-1 (2 binary, 17 digits, 256 images); 0 for real values.
        n_classes: number of classes; 0 without labels.
        modality: how an example is shown.
        alphabet: text: the character of each level; () where the levels are bytes or tokens.
        tokenizer: text: the ``tokenizer.json`` whose token ids are the levels, as text; "" without one.
        end: the level that ends and pads an example shorter than ``shape``; None: all examples have one length.
        rate: audio: samples per second; level v is mu-law code v (``mar.data.audio``).
        latents: the examples of a cache; all other attributes describe the images that they decode to.
        conditions: the vectors that stand in for labels.
    """

    shape: tuple[int, ...]
    levels: int
    n_classes: int = 0
    class_names: tuple[str, ...] = ()
    modality: Literal["image", "video", "text", "audio", "vector", "latent"] = "image"
    alphabet: tuple[str, ...] = ()
    tokenizer: str = ""
    end: int | None = None
    rate: int = 0
    latents: Latents | None = None
    conditions: Conditions | None = None

    @property
    def symbol(self) -> str:
        """What a level of text is."""
        return "token" if self.tokenizer else "character" if self.alphabet else "byte"

    @property
    def is_codebook(self) -> bool:
        """True of indices of a codebook, without the VQ tokenizer that decodes them."""
        return self.modality == "latent" and self.levels > 0

    def class_number(self, text: str) -> int:
        """Return the number of a class, written as the number or the name. Raises UserError: there is no such name."""
        if text.strip().lstrip("-").isdecimal():
            return int(text)
        names = [name.casefold() for name in self.class_names]
        if text.casefold() not in names:
            raise unknown("class", text, self.class_names or ("its number",))
        return names.index(text.casefold())

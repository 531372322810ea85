"""Videos of digits that move and bounce off the borders, as Moving MNIST (Srivastava et al. 2015, arXiv 1502.04681).

B batch · D digits of a video · T frames · P pixels of a digit
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from mar.core.errors import UserError
from mar.core.files import digest, in_data_folder
from mar.core.noise import Noise
from mar.core.options import at_least, between
from mar.core.spec import DataSpec
from mar.data.base import SPLITS, Data, DataOptions, DataSource, Split, TensorSplit
from mar.data.digits import Digits, DigitsOptions
from mar.data.mnist import IdxOptions, Mnist


@dataclass(frozen=True)
class MovingDigitsOptions(DataOptions):
    frames: int = 4
    size: int = 12  # side of a frame, in pixels
    digits: int = 1  # in a video; with one, videos have its class
    speed: float = 2.0  # pixels a frame along each axis, at most
    binary: bool = True  # two levels; else those of the digits
    mnist: str = ""  # folder of MNIST's files; none: the bundled 8x8 digits
    seed: int = 0
    bounds: ClassVar = {
        "frames": between(2, 1024), "size": between(1, 1024), "digits": between(1, 16), "speed": between(0, 1024),
        "seed": at_least(0),
    }  # fmt: skip


@dataclass(frozen=True)
class Moving(Split):
    """Example k shows digit k of its split, and others drawn from it. Each epoch of training draws their paths anew."""

    digits: TensorSplit
    options: MovingDigitsOptions
    name: str  # of the split

    def __len__(self) -> int:
        return len(self.digits)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.training_batch(index_B, torch.zeros_like(index_B))

    def training_batch(self, index_B: torch.Tensor, epoch_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return x (B, T, 1, size, size) and label_B. A digit's place is its straight path, reflected and rounded."""
        o, side = self.options, self.digits.x.shape[-1]
        u = Noise(o.seed, f"data/moving-digits/{self.name}", index_B, epoch_B).uniform(5 * o.digits)
        u_BD5 = u.reshape(len(index_B), o.digits, 5)  # the digit, start and speed along rows and columns
        which_BD = (u_BD5[..., 0] * len(self)).long().clamp(max=len(self) - 1)
        which_BD[:, 0] = index_B
        ink_BD1P = self.digits.x[which_BD].flatten(2)[:, :, None]
        room = max(o.size - side, 1e-6)
        moved_BDT2 = (2 * u_BD5[:, :, None, 3:] - 1) * o.speed * torch.arange(o.frames)[:, None]
        path_BDT2 = u_BD5[:, :, None, 1:3] * room + moved_BDT2
        corner_BDT2 = (room - (path_BDT2.remainder(2 * room) - room).abs()).round().long()
        start_BDT = torch.arange(o.frames) * o.size**2 + corner_BDT2 @ torch.tensor([o.size, 1])
        inside_P = (torch.arange(side)[:, None] * o.size + torch.arange(side)).flatten()
        cell_BDTP = start_BDT[..., None] + inside_P
        x = torch.zeros(len(index_B), o.frames * o.size**2, dtype=torch.uint8)
        x.scatter_reduce_(1, cell_BDTP.flatten(1), ink_BD1P.expand_as(cell_BDTP).flatten(1), "amax")
        label_B = self.digits.batch(index_B)[1] if o.digits == 1 else None
        return x.reshape(-1, o.frames, 1, o.size, o.size), label_B


class MovingDigits(DataSource):
    """The splits are those of the digits: no digit of a test video was seen in training."""

    Options = MovingDigitsOptions
    name = "moving-digits"

    @classmethod
    def load(cls, options: MovingDigitsOptions) -> Data:
        path = in_data_folder(options.mnist, "")
        if path and not Path(path).expanduser().is_dir():
            raise UserError(f"data.mnist={options.mnist} is not a folder: it should hold the files of MNIST")
        still = Mnist.load(IdxOptions(path)) if path else Digits.load(DigitsOptions())
        side, levels = still.spec.shape[-1], still.spec.levels
        if options.size < side:
            raise UserError(
                f"data.size={options.size} is smaller than the {side}x{side} digits: use {side + 4} or more"
            )
        splits = {}
        for name in SPLITS:
            x, label_N = still.split(name).batch(torch.arange(len(still.split(name))))
            x = (x >= levels // 2).to(torch.uint8) if options.binary else x
            splits[name] = Moving(TensorSplit(x, label_N), options, name)
        shape = (options.frames, 1, options.size, options.size)
        classes = still.spec.class_names if options.digits == 1 else ()
        spec = DataSpec(shape, 2 if options.binary else levels, len(classes), classes, modality="video")
        content = digest(still.fingerprint, repr(replace(options, mnist="")))
        return Data(cls.name, spec, **splits, fingerprint=content)

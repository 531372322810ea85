"""Data sets of independent samples from a distribution that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mar.data.base import Data, DataOptions, DataSource, DataSpec, TensorSplit, fingerprint
from mar.errors import UserError
from mar.noise import stream


@dataclass(frozen=True)
class SampledOptions(DataOptions):
    rows: int = 3
    cols: int = 3
    n: int = 2000  # training examples; validation and test have a quarter of it each

    def __post_init__(self) -> None:
        if self.n < 4:
            raise UserError(f"data.n must be at least 4, not {self.n}")


class SampledData(DataSource):
    """Independent samples of ``distribution(options)``, on a grid of ``rows`` and ``cols`` binary sites."""

    @staticmethod
    def distribution(options: Any) -> Any:
        """An object whose ``sample(noise)`` draws one (1, H, W) uint8 example for each stream."""
        raise NotImplementedError

    @classmethod
    def load(cls, options: SampledOptions) -> Data:
        model = cls.distribution(options)
        sizes = {"train": options.n, "validation": options.n // 4, "test": options.n // 4}
        x = {split: model.sample(stream(0, f"data/{cls.name}/{split}", n)) for split, n in sizes.items()}
        return Data(
            name=cls.name,
            spec=DataSpec((1, options.rows, options.cols), 2),
            train=TensorSplit(x["train"]),
            validation=TensorSplit(x["validation"]),
            test=TensorSplit(x["test"]),
            fingerprint=fingerprint(*x.values()),
        )

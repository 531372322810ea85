"""A user's own order, read from a file.

L tokens · D grid dimensions
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from orderings.base import FixedOrdering, Source, inverse
from orderings.grid import Grid, InvalidRequest, Unsupported


@dataclass(frozen=True)
class File(FixedOrdering):
    """An order from a .txt, .json or .npy file, on the grid it was made for.

    ``ranks``: one whole number for each token, in the grid's layout, 0 for the first to be generated. ``positions``:
    the tokens in the order they are generated, as token numbers or as L rows of coordinates. A .json file that holds
    {"ranks": …} or {"positions": …} says itself which; in a .txt file numbers stand between blanks or commas, and #
    starts a comment.
    """

    path: str = ""
    holds: Literal["ranks", "positions"] = "ranks"
    summary: ClassVar[str] = "your own order, from a .txt, .json or .npy file"

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        return self.rank(grid).repeat(batch, 1)

    def rank(self, grid: Grid) -> torch.Tensor:
        """rank_L.

        Raises:
            Unsupported: no path is set, or the file was made for another grid.
            InvalidRequest: there is no such file, or it holds no permutation.
        """
        if not self.path:
            raise Unsupported("file needs the path of an order: file:my-order.json")
        path = Path(self.path)
        if not path.is_file():
            raise InvalidRequest(f"no order file {self.path!r}")
        return _load(path, path.stat().st_mtime_ns, self.holds, grid)


@lru_cache(maxsize=64)
def _load(path: Path, modified_ns: int, holds: str, grid: Grid) -> torch.Tensor:
    """Read once for each version of the file."""
    numbers, holds = _numbers(path, holds)
    length = len(grid)
    if holds == "positions" and numbers.shape == (length, grid.ndim) and grid.ndim > 1:
        if (numbers < 0).any() or (numbers >= np.array(grid.shape)).any():
            raise InvalidRequest(f"{path}: a position lies outside the grid {grid}")
        numbers = np.ravel_multi_index(tuple(numbers.T), grid.shape)
    if numbers.size != length:
        raise Unsupported(f"{path} holds {numbers.size} {holds}, but the grid {grid} has {length} tokens")
    permutation_L = torch.from_numpy(np.ascontiguousarray(numbers.reshape(-1), dtype=np.int64))
    rule = f"{path}: {holds} are the numbers 0..{length - 1}, each once"
    outside = permutation_L[(permutation_L < 0) | (permutation_L >= length)]
    if len(outside) > 0:
        raise InvalidRequest(f"{rule}, but it holds {int(outside[0])}")
    count_L = torch.bincount(permutation_L, minlength=length)
    if int(count_L.max()) > 1:
        twice, missing = int((count_L > 1).nonzero()[0]), int((count_L == 0).nonzero()[0])
        raise InvalidRequest(f"{rule}, but {twice} is there twice and {missing} is missing")
    return inverse(permutation_L) if holds == "positions" else permutation_L


def _numbers(path: Path, holds: str) -> tuple[np.ndarray, str]:
    """The integers of the file, and whether they are ranks or positions."""
    try:
        if path.suffix == ".npy":
            content: Any = np.load(path, allow_pickle=False)
        elif path.suffix == ".json":
            content = json.loads(path.read_text())
            if isinstance(content, dict):
                if len(content) != 1 or not content.keys() <= {"ranks", "positions"}:
                    raise ValueError('a JSON object holds one key, "ranks" or "positions"')
                [(holds, content)] = content.items()
        elif path.suffix == ".txt":
            lines = re.sub(r"#.*", "", path.read_text())
            content = [int(word) for word in re.split(r"[\s,]+", lines) if word]
        else:
            raise ValueError("an order file ends in .txt, .json or .npy")
        numbers = np.asarray(content)
    except (ValueError, OSError) as error:
        raise InvalidRequest(f"{path}: {' '.join(str(error).split())}") from None
    if numbers.dtype.kind not in "iu":
        raise InvalidRequest(f"{path}: an order holds whole numbers only")
    return numbers, holds

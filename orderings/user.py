"""A user's own order from a file of numbers, and a user's own class from a Python file.

L tokens · D grid dimensions
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import numpy as np

from orderings.base import Ordering, Source, inverse, option
from orderings.grid import Grid, InvalidRequest, UnknownName, Unsupported, shortened, torch


@dataclass(frozen=True)
class File(Ordering):
    """Your own order, from a .txt, .json or .npy file, on the grid it was made for; of many orders one for each image.

    ``ranks``: one whole number for each token, in the grid's layout, 0 for the first to be generated. ``positions``:
    the tokens in the order they are generated, as token numbers or as L rows of coordinates. A .json file may hold
    {"ranks": …} or {"positions": …}; in a .txt file numbers stand between blanks or commas, and # starts a comment.
    A list of S orders in a .json file, or an array of shape (S, …), is a mixture: each image draws one of the S.
    """

    path: str = ""
    holds: Literal["ranks", "positions"] = "ranks"
    index: int | None = option(None, least=0, omitted=True)  # of many orders the one for all images, from 0
    time: ClassVar[bool] = True

    @property
    def random(self) -> bool:
        return bool(self.components)

    @property
    def components(self) -> tuple[Ordering, ...]:
        file = existing(self.path) if self.path and self.index is None else None
        count = _count(*_numbers(file, file.stat().st_mtime_ns, self.holds)) if file else 1
        return tuple(replace(self, index=k) for k in range(count)) if count > 1 else ()

    def ranks(self, grid: Grid, batch: int, generator: Source) -> torch.Tensor:
        if not self.path:
            raise Unsupported("file needs the path of an order: file:my-order.json")
        path = existing(self.path)
        if path is None:
            raise InvalidRequest(f"no order file {shortened(self.path)!r}")
        rank_SL = _load(path, path.stat().st_mtime_ns, self.holds, grid)
        if (last := len(rank_SL) - 1) < (self.index or 0):
            raise InvalidRequest(f"{path} holds {last + 1} orders: index is in 0..{last}")
        if self.index is not None or last == 0:
            return rank_SL[self.index or 0].repeat(batch, 1)
        choice_B = (generator.uniform(1)[:, 0] * (last + 1)).long().clamp(max=last)
        return rank_SL.to(choice_B.device)[choice_B]


def existing(path: str | Path) -> Path | None:
    """Return the path of a file, with ``~`` as the home folder; None if there is no such file."""
    with suppress(OSError, RuntimeError, ValueError):  # a name that is too long, no home folder, a null byte
        file = Path(path).expanduser()
        return file if file.is_file() else None
    return None


def _is_coordinates(numbers: np.ndarray, holds: str) -> bool:
    """Return True for rows of coordinates, of which one is the origin: two zeros in a row are in no permutation."""
    return holds == "positions" and numbers.ndim > 1 and 1 < numbers.shape[-1] < 4 and (numbers == 0).all(-1).any()


def _count(numbers: np.ndarray, holds: str) -> int:
    """Return how many orders valid numbers hold, on whatever grid: each order has its token 0, once."""
    return int(((numbers == 0).all(-1) if _is_coordinates(numbers, holds) else numbers == 0).sum())


@lru_cache(maxsize=64)
def _load(path: Path, modified_ns: int, holds: str, grid: Grid) -> torch.Tensor:
    """Return rank_SL of the S orders of the file. Read each version of it once."""
    numbers, holds = _numbers(path, modified_ns, holds)
    length = len(grid)
    if grid.ndim > 1 and numbers.shape[-2:] == (length, grid.ndim) and _is_coordinates(numbers, holds):
        if (numbers < 0).any() or (numbers >= np.array(grid.shape)).any():
            raise InvalidRequest(f"{path}: a position lies outside the grid {grid}")
        numbers = np.ravel_multi_index(tuple(np.moveaxis(numbers, -1, 0)), grid.shape)
    if numbers.size != length and (numbers.ndim == 1 or numbers.size == 0 or numbers.size % length):
        raise Unsupported(f"{path} holds {numbers.size} {holds}, but the grid {grid} has {length} tokens")
    numbers = np.array(numbers.reshape(-1, length), dtype=np.int64)  # a copy: a .npy file is mapped read-only
    wrong = (np.sort(numbers, axis=1) != np.arange(length)).any(1).nonzero()[0]
    if len(wrong):
        first, place = numbers[wrong[0]], f"order {wrong[0]}: " if len(numbers) > 1 else ""
        rule = f"{path}: {place}{holds} are the numbers 0..{length - 1}, each once"
        if len(outside := first[(first < 0) | (first >= length)]):
            raise InvalidRequest(f"{rule}, but it holds {outside[0]}")
        count_L = np.bincount(first, minlength=length)
        raise InvalidRequest(f"{rule}, but {count_L.argmax()} is there twice and {count_L.argmin()} is missing")
    permutation_SL = torch.from_numpy(numbers)
    return inverse(permutation_SL) if holds == "positions" else permutation_SL


@lru_cache(maxsize=64)
def _numbers(path: Path, modified_ns: int, holds: str) -> tuple[np.ndarray, str]:
    """Return the integers of the file, and their meaning: ranks or positions. Read each version of it once."""
    try:
        if path.suffix == ".npy":
            content: Any = np.load(path, mmap_mode="r", allow_pickle=False)  # a false length allocates nothing
        elif path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8-sig"))
            if isinstance(content, dict):
                if len(content) != 1 or not content.keys() <= {"ranks", "positions"}:
                    raise ValueError('a JSON object holds one key, "ranks" or "positions"')
                [(holds, content)] = content.items()
        elif path.suffix == ".txt":
            lines = re.sub(r"#.*", "", path.read_text(encoding="utf-8-sig"))
            content = [int(word) for word in re.split(r"[\s,]+", lines) if word]
        else:
            raise ValueError("an order file ends in .txt, .json or .npy")
        numbers = np.asarray(content)
    except (ValueError, OSError, EOFError, RecursionError, MemoryError) as error:
        raise InvalidRequest(f"{path}: {shortened(' '.join(str(error).split()), 160)}") from None
    if numbers.dtype.kind not in "iu":
        raise InvalidRequest(f"{path}: an order holds whole numbers only")
    return numbers, holds


FILE_TARGET = re.compile(r"[^:()=+,]*\.py:\w+")
TARGETS: dict[type, str] = {}  # the FILE.py:Class that each class was loaded from


def is_file_target(text: str) -> bool:
    """Return True for ``FILE.py:Class``."""
    return FILE_TARGET.fullmatch(text) is not None


@cache  # one class object a process: plans are compared and hashed
def load_class(target: str, bases: tuple[type, ...], error: type[Exception] = InvalidRequest) -> type:
    """Return the class that ``FILE.py:Class`` or ``module:Class`` names, a subclass of one of ``bases``.

    Raise ``error`` if it does not exist, does not import, or is of another family.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise error(f"write FILE.py:Class or module:Class, not {target!r}")
    try:
        module = _from_file(Path(place).expanduser()) if place.endswith(".py") else importlib.import_module(place)
    except FileNotFoundError:
        raise error(f"no file {place!r}") from None
    except ImportError as wrong:
        raise error(f"no module {place!r}: {wrong}") from None
    except Exception as wrong:
        raise error(f"{place} does not import: {type(wrong).__name__}: {wrong}") from None
    cls, family = vars(module).get(name), " or ".join(base.__name__ for base in bases)
    if cls is None:
        defined = {key: value for key, value in vars(module).items() if inspect.isclass(value)}
        names = [
            key for key, value in defined.items() if issubclass(value, bases) and value.__module__ == module.__name__
        ]
        raise error(str(UnknownName(f"class of {place}:", name, names or [f"(it defines no {family})"])))
    if not inspect.isclass(cls) or not issubclass(cls, bases) or cls in bases:
        raise error(f"{target}: {name} is no {family}: subclass the one that it is")
    if place.endswith(".py"):
        TARGETS[cls] = target
    return cls


def _from_file(path: Path) -> ModuleType:
    """Import a Python file once; it may import its neighbours and modules of the working directory, as a script."""
    path = path.resolve(strict=True)
    name = f"file_{path.stem}_{abs(hash(path)):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    before = list(sys.path)
    sys.path[:0] = [str(path.parent), str(Path.cwd())]
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, ImportError | SystemExit):
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise
    finally:
        sys.path[:] = before
    return module

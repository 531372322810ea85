"""CIFAR-10 and CIFAR-100 from their published archives, binary or python, packed or unpacked (Krizhevsky 2009).

Binary: rows of one label byte (CIFAR-100: the coarse one, then the fine one) and 3,072 pixels, red, green, blue.
Python: pickled dicts of ``data`` (N, 3072) and ``labels``, read without executing what a pickle may call.

N examples
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from mar.core.errors import UserError
from mar.core.options import at_least
from mar.core.readers import reading, unpickled
from mar.core.spec import DataSpec
from mar.data.base import Data, DataOptions, DataSource, TensorSplit, fingerprint
from mar.data.files import folder_at

_PIXELS = 3 * 32 * 32
_HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class CifarOptions(DataOptions):
    path: str = ""  # the folder with an archive, or with its unpacked folder or files
    validation: int = 5000  # the last training examples
    bounds: ClassVar = {"validation": at_least(1)}


@dataclass(frozen=True)
class Cifar100Options(CifarOptions):
    classes: Literal["fine", "coarse"] = "fine"  # 100, or 20 of five each


class Cifar10(DataSource):
    """Photographs of ten kinds of things, 50,000 + 10,000, 32x32."""

    Options = CifarOptions
    name = "cifar10"
    train: ClassVar = tuple(f"data_batch_{n}" for n in range(1, 6))
    test: ClassVar = "test_batch"
    meta: ClassVar = "batches.meta"
    names: ClassVar = {"fine": ("label_names", "batches.meta.txt")}  # key in the python meta, binary file
    label_bytes: ClassVar[tuple[str, ...]] = ("fine",)

    @classmethod
    def load(cls, options: CifarOptions) -> Data:
        """Return the training examples without the last ``validation``, those, and the published test examples."""
        kind = getattr(options, "classes", "fine")
        files = _files(cls, options.path)
        x_train, y_train = _joined(cls, options, files, cls.train)
        x_test, y_test = _joined(cls, options, files, (cls.test,))
        names = _names(cls, files, kind) or tuple(map(str, range(int(y_train.max()) + 1)))
        if (highest := max(int(y_train.max()), int(y_test.max()))) >= len(names):
            raise UserError(f"{options.path} has a label {highest} of {len(names)} classes: get it again from {_HOME}")
        cut = len(x_train) - options.validation
        if cut < 1:
            raise UserError(f"data.validation={options.validation} leaves none of {len(x_train)} examples to train on")
        parts = (x_train[:cut], y_train[:cut], x_train[cut:], y_train[cut:], x_test, y_test)
        train, validation, test = map(TensorSplit, parts[::2], parts[1::2])
        return Data(
            cls.name, DataSpec((3, 32, 32), 256, len(names), names), train, validation, test, fingerprint(*parts)
        )


class Cifar100(Cifar10):
    """The same with 100 kinds, in 20 groups."""

    Options = Cifar100Options
    name = "cifar100"
    train = ("train",)
    test = "test"
    meta = "meta"
    names: ClassVar = {
        "fine": ("fine_label_names", "fine_label_names.txt"), 
        "coarse": ("coarse_label_names", "coarse_label_names.txt"),
    }  # fmt: skip
    label_bytes = ("coarse", "fine")


def _files(cls: type[Cifar10], path: str) -> dict[str, bytes]:
    """Return the files that there are by name, of the binary archive or else the python one. UserError: one lacks."""
    dashed = cls.name.replace("cifar", "cifar-")
    unpacked = {"binary": "batches-bin", "python": "batches-py"} if cls is Cifar10 else {}
    root = folder_at(path, f"{dashed}-binary.tar.gz or {dashed}-python.tar.gz", f"get it from {_HOME}")
    for form, end in (("binary", ".bin"), ("python", "")):
        wanted = {f"{name}{end}" for name in (*cls.train, cls.test)}
        extra = {cls.meta, *(file for _, file in cls.names.values())}
        archive, inside = root / f"{dashed}-{form}.tar.gz", f"{dashed}-{unpacked.get(form, form)}"
        for place in (root, root / inside):
            if all((place / name).is_file() for name in wanted):
                with reading(place, f"the files of {dashed}"):
                    return {name: (place / name).read_bytes() for name in wanted | extra if (place / name).is_file()}
        if archive.is_file():
            with reading(archive, f"the {form} archive of {dashed}"):
                found = _unpacked(archive, wanted | extra)
            if lacks := sorted(wanted - set(found)):
                raise UserError(f"{archive} lacks {lacks[0]}: get it again from {_HOME}")
            return found
    raise UserError(f"{root} has neither {dashed}-binary.tar.gz nor {dashed}-python.tar.gz, nor their files: {_HOME}")


def _unpacked(archive: Path, names: Iterable[str]) -> dict[str, bytes]:
    found, wanted = dict[str, bytes](), set(names)
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and (name := member.name.split("/")[-1]) in wanted:
                stream = tar.extractfile(member)
                found[name] = b"" if stream is None else stream.read()
    return found


def _joined(
    cls: type[Cifar10], options: CifarOptions, files: dict[str, bytes], names: Iterable[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x (N, 3, 32, 32) uint8 and label_N of some files."""
    images, labels, kind = [], [], getattr(options, "classes", "fine")
    for name in names:
        file = name if name in files else f"{name}.bin"
        with reading(Path(options.path) / file, f"images of 32x32 pixels of {cls.name} with labels"):
            x, y = (
                _python(files[file], kind) if file == name else _binary(files[file], cls.label_bytes.index(kind), cls)
            )
            images.append(x.reshape(-1, 3, 32, 32))
            labels.append(y)
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels))


def _binary(raw: bytes, at: int, cls: type[Cifar10]) -> tuple[np.ndarray, np.ndarray]:
    width = len(cls.label_bytes)
    if not raw or len(raw) % (width + _PIXELS):
        raise ValueError(f"its {len(raw):,} bytes are no rows of {width + _PIXELS}")
    rows = np.frombuffer(raw, np.uint8).reshape(-1, width + _PIXELS)
    return rows[:, width:], rows[:, at].astype(np.int64)


def _python(raw: bytes, kind: str) -> tuple[np.ndarray, np.ndarray]:
    content = unpickled(raw)
    x = content["data"]
    y = np.array(content["labels"] if "labels" in content else content[f"{kind}_labels"], np.int64)
    if x.dtype != np.uint8 or x.ndim != 2 or x.shape != (len(y), _PIXELS):
        raise ValueError(f"{x.shape} values of {x.dtype} for {len(y)} labels")
    return x, y


def _names(cls: type[Cifar10], files: dict[str, bytes], kind: str) -> tuple[str, ...]:
    key, text = cls.names[kind]
    if text in files:
        return tuple(files[text].decode().split())
    if cls.meta in files:
        with reading(Path(cls.meta), "the names of the classes"):
            content: Any = unpickled(files[cls.meta])
            return tuple(map(str, content[key]))
    return ()

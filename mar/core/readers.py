"""Readers of files from users and other programs: one per format, with limits, refusing in one line."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter

from mar.core.errors import MarError, UserError

if TYPE_CHECKING:
    import numpy as np
    import torch

T = TypeVar("T")
_LARGEST_TEXT = 2**28  # bytes; records, recipes and manifests are far smaller


@contextmanager
def reading(file: Path, what: str) -> Iterator[None]:
    """Turn the errors of a missing, damaged or foreign file into one UserError; ``what`` names the expected content."""
    try:
        yield
    except MarError:
        raise
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error}): it should hold {what}") from None
    except Exception as error:  # damaged files raise almost anything, RecursionError and MemoryError among it
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{file} does not hold {what} ({reason}): the file is damaged or another one") from None


def read_bytes(file: Path, what: str, largest: int = _LARGEST_TEXT) -> bytes:
    """Return the content. Raises UserError: the file cannot be read, or has more than ``largest`` bytes."""
    with reading(file, what), file.open("rb") as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise UserError(f"{file} has more than {largest:,} bytes: it should hold {what}")
    return content


def read_text(file: Path, what: str) -> str:
    """Return a UTF-8 text without its byte order mark. Raises UserError as ``reading``."""
    with reading(file, what):
        return read_bytes(file, what).decode("utf-8-sig")


def read_json(file: Path, what: str, kind: type = dict) -> Any:
    """Return the mapping (or ``kind``) in a JSON file. Raises UserError as ``reading``."""
    with reading(file, what):
        content = json.loads(read_text(file, what))
        if not isinstance(content, kind):
            raise ValueError(f"it holds a {type(content).__name__}, not a {kind.__name__}")
        return content


def read_as(cls: type[T], file: Path, what: str) -> T:
    """Return the object of ``cls`` whose fields a JSON file holds. Raises UserError as ``reading``."""
    with reading(file, what):
        return TypeAdapter(cls).validate_python(read_json(file, what, object))


def read_yaml(file: Path, what: str) -> Any:
    """Return an OmegaConf node of a YAML file, its interpolations of the file's own keys (``${a.b}``) unresolved.

    Raises:
        UserError: as ``reading``; or a value calls a resolver (``${oc.env:NAME}``), which would read this machine.
    """
    from omegaconf import OmegaConf

    with reading(file, what):
        found = OmegaConf.create(read_text(file, what))
        _refuse_resolvers(file, OmegaConf.to_container(found) if OmegaConf.is_config(found) else found)
        return found


def _refuse_resolvers(file: Path, value: Any) -> None:
    if isinstance(value, dict | list):
        for inner in [*value.keys(), *value.values()] if isinstance(value, dict) else value:
            _refuse_resolvers(file, inner)
    depth = 0
    for part in re.findall(r"\\?\$\{|[{}:]", value) if isinstance(value, str) else ():
        if part == ":" and depth:
            raise UserError(f"{file}: {value!r} calls a resolver, and a file reads its own keys alone: write the value")
        depth += part == "${" or (part == "{" and depth > 0)
        depth -= part == "}" and depth > 0


def read_npz(file: Path, what: str, names: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file, those of ``names`` that it has or all.

    Raises:
        UserError: as ``reading``; an array is larger than the memory, or its header disagrees with its size.
    """
    with reading(file, what), zipfile.ZipFile(file) as archive:
        wanted = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        return {name: _array(archive, member) for name, member in wanted.items() if not names or name in names}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Return one array; the size that its header promises is checked before memory is reserved."""
    from numpy.lib import format as npy

    if hasattr(os, "sysconf") and member.file_size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise ValueError(f"{member.filename} has {member.file_size:,} bytes, more than the memory")
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize != member.file_size - stream.tell():
            raise ValueError(f"the header of {member.filename} promises another size")
    with archive.open(member) as stream:
        return npy.read_array(stream, allow_pickle=False)


class _Plain(pickle.Unpickler):
    """Makes arrays, texts, numbers, lists and dicts; calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        any_array = np.zeros(1)  # private functions of numpy, by its own pickling
        old, new = any_array.__reduce__()[0], any_array.__reduce_ex__(5)[0]
        made = {"ndarray": np.ndarray, "dtype": np.dtype, "_reconstruct": old, "_frombuffer": new}
        if name in made and re.fullmatch(r"numpy(\._?core\.(multiarray|numeric))?", module):
            return made[name]
        if (module, name) == ("_codecs", "encode"):  # of bytes, by Python 3
            return lambda text, codec: text.encode("latin1")
        raise ValueError(f"it calls {module}.{name}, and only arrays, texts, numbers, lists and dicts are read")


def unpickled(content: bytes) -> dict[str, Any]:
    """Return a pickled dict of arrays and plain values, of Python 2 or 3. ValueError: it holds anything else."""
    found = _Plain(io.BytesIO(content), encoding="latin1").load()
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not a dict")
    return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in found.items()}


def read_tensors(file: Path, what: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file. Raises UserError as ``reading``."""
    from safetensors.torch import load_file

    with reading(file, what):
        return load_file(file)

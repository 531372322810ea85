"""``FILE.py:Class`` and ``module:Class``, read from the command line."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from mar.errors import UserError, unknown
from mar.heads.base import Head
from mar.networks.base import Network
from orderings import Ordering, Partition

_CONTRACTS = (Ordering, Partition, Network, Head)


def load(target: str) -> type:
    """The class that a target names.

    Raises:
        UserError: the file, the module or the class is not there, or is none of ours.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise UserError(f"write FILE.py:Class or module:Class, not {target!r}")
    path = Path(place)
    with _importable(path.parent if path.suffix == ".py" else Path()):
        module = _from_file(path) if path.suffix == ".py" else _from_name(place)
    classes = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, _CONTRACTS) and value not in _CONTRACTS
    }
    if name in classes:
        return classes[name]
    if hasattr(module, name):
        raise UserError(f"{target}: {name} is no Ordering, Partition, Network or Head: subclass the one that it is")
    defined = [key for key, value in classes.items() if value.__module__ == module.__name__]
    raise unknown(f"class of {place}:", name, defined or ["(it defines no ordering, partition, network or head)"])


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """A user's file may import its neighbours and what lies in the working directory, as a script may."""
    before = list(sys.path)
    sys.path[:0] = [str(folder.resolve()), str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = before


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"no file {str(path)!r}")
    name = f"verified_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{path} does not import: {type(error).__name__}: {error}") from None
    return module


def _from_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"no module {name!r}: {error}") from None

"""What a scoring has finished so far, so that the same command goes on after it was killed.

One folder for one question: its name is the fingerprint of everything that the answer depends on. In it, one file for
each part: the conditionals of a batch of images as far as they are known, or the finished likelihood along one order.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mar.likelihood.summary import Likelihood

_SECONDS = 30.0  # between two savings of the same part


def fingerprint(settings: dict[str, Any]) -> str:
    """16 hexadecimal digits of everything that an answer depends on (plain values)."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class Partial:
    """A folder of parts. Files are written aside and renamed; a damaged one counts as missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def part(self, name: str) -> Part:
        return Part(self.folder / f"{name}.safetensors")

    def finished(self, name: str) -> Likelihood | None:
        """The likelihood kept under ``name``, if it is done."""
        read = self.part(name).read()
        return TypeAdapter(Likelihood).validate_python(read[1]["likelihood"]) if read else None

    def finish(self, name: str, likelihood: Likelihood) -> None:
        """Keep a likelihood; the parts ``name-…`` that it was made of are no longer needed."""
        self.part(name).write({}, {"likelihood": likelihood.to_dict()})
        self.drop(name)

    def drop(self, name: str) -> None:
        """Forget the parts ``name-…``."""
        for path in self.folder.glob(f"{name}-*.safetensors"):
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Part:
    """One file: the conditionals of a batch of images as far as they are computed, with what to know of them."""

    path: Path
    written: float = field(default_factory=time.monotonic)

    def keep(self, tensors: dict[str, torch.Tensor], notes: dict[str, Any], last: bool) -> None:
        """Written when it is the last time, or some time has passed since it was."""
        if last or time.monotonic() - self.written >= _SECONDS:
            self.write(tensors, notes)
            self.written = time.monotonic()

    def read(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors and notes of the file; None where it is missing or damaged."""
        try:
            with safe_open(self.path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
                return tensors, json.loads(file.metadata()["notes"])
        except (OSError, SafetensorError):
            return None

    def write(self, tensors: dict[str, torch.Tensor], notes: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".partial")
        save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, aside, metadata={"notes": json.dumps(notes)})
        os.replace(aside, self.path)

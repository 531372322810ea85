"""Checkpoints: written to a temporary folder, then renamed; resuming uses the newest undamaged one.

A checkpoint is a folder ``checkpoints/00001000`` with ``model.safetensors``, ``ema.safetensors``, ``optimizer.pt``
(loaded without executing code) and ``state.json`` (the position, and a checksum of every other file). Tensors are full,
never shards. Random states are not stored: every random number is a function of (seed, iteration, rank).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from mar.core.errors import UserError
from mar.core.files import checksums, flush
from mar.core.log import logger
from mar.core.readers import read_tensors, reading

_WEIGHTS = "the weights of a checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """An undamaged checkpoint on disk, taken after ``iteration`` iterations."""

    path: Path
    iteration: int

    @property
    def trained(self) -> int:
        """Iterations that the run was trained: more than ``iteration`` for the best checkpoint of an exported run."""
        return json.loads((self.path / "state.json").read_text()).get("trained", self.iteration)

    def load_model(self, model: nn.Module, ema: bool = False) -> None:
        """Load the weights into ``model``; with ``ema`` the averaged ones (buffers are never averaged)."""
        state = read_tensors(self.path / "model.safetensors", _WEIGHTS)
        if ema:
            state |= self.load_ema()
        state |= {name: state[first] for name, first in tied(model.state_dict()).items() if first in state}
        ours = {k: v.shape for k, v in model.state_dict().items()}
        theirs = {k: v.shape for k, v in state.items()}
        wrong = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
        if wrong:
            raise UserError(
                f"{self.path} holds another model: {len(wrong)} tensors disagree with the recipe, first {wrong[0]!r} "
                f"({tuple(theirs.get(wrong[0], ()))} in the file, {tuple(ours.get(wrong[0], ()))} in the recipe)"
            )
        model.load_state_dict(state)

    def holds(self, weights: dict[str, torch.Tensor], ema: dict[str, torch.Tensor]) -> bool:
        """True if the weights are identical to the checkpoint's."""
        pairs = ((read_tensors(self.path / "model.safetensors", _WEIGHTS), weights), (self.load_ema(), ema))
        pairs = [(a, {k: v for k, v in b.items() if k not in tied(b)}) for a, b in pairs]
        return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs)

    def load_ema(self) -> dict[str, torch.Tensor]:
        return read_tensors(self.path / "ema.safetensors", _WEIGHTS)

    def load_optimizer(self) -> dict[str, Any] | None:
        """Return the state of the optimiser and the scaler; None: the run was exported or downloaded without it."""
        file = self.path / "optimizer.pt"
        if not file.is_file():
            return None
        with reading(file, "the state of an optimiser (plain tensors, as mar train writes them)"):
            return torch.load(file, weights_only=True, map_location="cpu", mmap=True)


def tied(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return {name: first name} of tensors that are the memory of an earlier one, such as tied weights."""
    first: dict[tuple[Any, ...], str] = {}
    places = {name: (t.data_ptr(), t.shape, t.stride(), t.dtype) for name, t in tensors.items() if t.numel()}
    return {name: first[place] for name, place in places.items() if first.setdefault(place, name) != name}


def _write(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors once each: tied ones under their first name, and parts of a larger one as copies."""
    again, content = tied(tensors), {}
    for name, tensor in tensors.items():
        if name not in again:
            whole = tensor.detach().contiguous()
            content[name] = whole if whole.untyped_storage().nbytes() == whole.nbytes else whole.clone()
    save_file(content, path)


def save(
    folder: Path, iteration: int, weights: dict[str, torch.Tensor], ema: dict[str, torch.Tensor],
    training: dict[str, Any], keep: int,
) -> Checkpoint:  # fmt: skip
    """Write a checkpoint with ``training`` (state of the optimiser and the scaler); keep the newest ``keep``.

    Raises:
        UserError: the checkpoint cannot be written; earlier ones are unchanged.
    """
    final, aside = folder / f"{iteration:08d}", folder / f".{iteration:08d}.partial"
    for left in folder.glob(".*.partial"):  # by a process that was killed
        shutil.rmtree(left)
    try:
        aside.mkdir(parents=True)
        _write(weights, aside / "model.safetensors")
        _write(ema, aside / "ema.safetensors")
        with (aside / "optimizer.pt").open("wb") as file:  # opened here, so that a failure keeps its reason
            torch.save(training, file)
        seal(aside, iteration)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(aside, final)
        flush(folder)
    except (OSError, SafetensorError, RuntimeError) as error:  # RuntimeError: torch.save's
        shutil.rmtree(aside, ignore_errors=True)
        good = _folders(folder)
        kept = f"the newest before it is {good[-1]}" if good else "there is none before it"
        why = error.__context__ if isinstance(error.__context__, OSError) else error
        raise UserError(
            f"the checkpoint of iteration {iteration} could not be written to {folder} ({why}): {kept}; "
            "mend that, and the same command goes on from there"
        ) from None
    for old in [path for path in _folders(folder) if int(path.name) <= iteration][:-keep]:  # later ones are damaged
        shutil.rmtree(old)
    return Checkpoint(final, iteration)


def seal(folder: Path, iteration: int, trained: int | None = None) -> None:
    """Write ``state.json`` beside the files of a checkpoint and flush them to the disk. ``trained``: see Checkpoint."""
    files = sorted(folder.iterdir())
    state = {"iteration": iteration, "trained": trained or iteration, "sha256": checksums(files)}
    (folder / "state.json").write_text(json.dumps(state, indent=1))
    flush(*files, folder / "state.json")


def latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest undamaged checkpoint, and a line for each newer damaged one."""
    damaged = []
    for path in reversed(_folders(folder)):
        reason = _damage(path)
        if reason is None:
            return Checkpoint(path, int(path.name)), damaged
        damaged.append(f"{path}: {reason}; passed over")
    return None, damaged


def latest_or_fail(folder: Path) -> Checkpoint | None:
    """Return the newest undamaged checkpoint, None without checkpoints; print the damaged ones.

    Raises:
        UserError: every checkpoint is damaged.
    """
    newest, damaged = latest(folder)
    for line in damaged:
        logger.info(line)
    if damaged and newest is None:
        raise UserError(f"every checkpoint in {folder} is damaged: delete them to train from the start")
    return newest


def check_length(folder: Path, before: int, now: int) -> None:
    """Raise UserError if a training of ``before`` iterations is to be shorter than it is already."""
    newest = latest(folder)[0] if now < before else None
    if newest is not None and newest.iteration > now:
        raise UserError(
            f"{folder.parent} has {newest.iteration} iterations already, and {now} are asked for: "
            "choose another --out, or delete it"
        )


def at(folder: Path, iteration: int) -> Checkpoint:
    """Return the checkpoint of an iteration. Raise UserError if it is missing or damaged."""
    path = folder / f"{iteration:08d}"
    if (reason := _damage(path)) is not None:
        raise UserError(f"{path} is no whole checkpoint: {reason}")
    return Checkpoint(path, iteration)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("[0-9]*") if p.is_dir() and p.name.isdigit())


def _damage(path: Path) -> str | None:
    try:
        expected = dict(json.loads((path / "state.json").read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "state.json is missing or damaged"
    if missing := [name for name in expected if not (path / name).is_file()]:
        return f"{missing[0]} is missing"
    found = checksums(path / name for name in expected)
    return next((f"{name} does not match its checksum" for name in expected if found[name] != expected[name]), None)

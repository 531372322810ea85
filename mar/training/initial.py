"""``train.init``: a new run starts from the weights of another, on other data or classes.

Names and shapes decide what fits. The tokenizer is measured on the new data; averages and optimizer start fresh.
"""

from __future__ import annotations

import json

import torch

from mar.core.errors import UserError
from mar.core.files import digest
from mar.core.hub import local_folder
from mar.core.readers import read_tensors
from mar.model.model import Model
from mar.training import checkpoint
from mar.training.run_folder import RunFolder

_NAMED = 6  # tensors named in the note


RECORD = "init.json"


def initialise(model: Model, source: str) -> tuple[str, str]:
    """Give the model the weights of ``source`` that fit. Return a note, which names the others, and a record (JSON).

    Args:
        source: a run folder or hub name (averaged weights, as ``mar.load`` reads them), or a .safetensors file.

    Raises:
        UserError: there are no such weights, or none fits.
    """
    theirs = _tensors(source)
    ours, again = model.state_dict(), checkpoint.tied(model.state_dict())
    theirs |= {name: theirs[first] for name, first in again.items() if first in theirs}
    names = [name for name in ours if not name.startswith("tokenizer.")]
    fits = {name: theirs[name] for name in names if name in theirs and theirs[name].shape == ours[name].shape}
    if not fits:
        raise UserError(f"train.init={source}: none of its {len(theirs)} tensors fits this model")
    model.load_state_dict(ours | fits)
    new = [_described(name, theirs.get(name), ours[name]) for name in names if name not in fits]
    unused = [name for name in theirs if name not in ours and not name.startswith("tokenizer.")]
    content = digest(*(theirs[name].contiguous().view(torch.uint8).numpy().data for name in sorted(fits)))
    record = {"init": source, "sha256": content, "loaded": sorted(fits), "initialised": new, "unused": unused}
    lost = [f"{what}: {_listed(some)}" for what, some in (("initialised", new), ("not used", unused)) if some]
    return "; ".join([f"{len(fits)} of {len(names)} tensors start from {source}", *lost]), json.dumps(record, indent=1)


def _tensors(source: str) -> dict[str, torch.Tensor]:
    path = local_folder(source)
    if path.is_file():
        return read_tensors(path, "weights as safetensors")
    if not path.is_dir():
        raise UserError(f"train.init={source} is no run folder, .safetensors file or hub name (OWNER/NAME)")
    run = RunFolder(path)
    best = checkpoint.latest(run.best)[0] if run.recipe().train.keep_best else None
    found = best or checkpoint.latest(run.checkpoints)[0]
    if found is None:
        raise UserError(f"train.init={source} has no checkpoint yet")
    return read_tensors(found.path / "model.safetensors", "the weights of a checkpoint") | found.load_ema()


def _described(name: str, theirs: torch.Tensor | None, ours: torch.Tensor) -> str:
    if theirs is None:
        return name
    return f"{name} ({'x'.join(map(str, theirs.shape))} there, {'x'.join(map(str, ours.shape))} here)"


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")

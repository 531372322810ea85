"""Import released models of codebook indices as run folders: what all of them have in common.

L tokens · V categories · D width
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from mar import config
from mar.compat.released import IMPORTED, absolute, images_of, state_dicts, write
from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import About
from mar.tokenizers.autoencoder import AutoencoderFolder

_SIDE = 16  # of the released models of 256×256 images
State = Mapping[str, torch.Tensor]


class Measured(NamedTuple):
    """What the shapes of the weights tell."""

    n_tokens: int  # 0: they do not tell
    levels: int  # V
    n_classes: int
    hidden: int  # width of the hidden layers
    sizes: Any  # of the network, a dataclass with ``width`` and ``heads``


@dataclass(frozen=True)
class Family:
    """A published network over codebook indices, an entry of ``mar import``."""

    OPTIONS: ClassVar = ("heads", "data", "vae", "side")  # of ``mar import``

    NAME: str
    mark: str  # the end of the name of a weight that no other family has
    measure: Callable[[State, int | None], Measured]  # ``heads``: None: as published
    prepare: Callable[[State, Measured], State]  # joins and cuts weights, leaves out those that are never read
    names: Mapping[str, str]  # pattern of a prepared name, or of its beginning: ours
    recipe: Mapping[str, Any]  # the published order, and what else differs from the defaults
    sets: tuple[str, int] = ("singles", 0)  # a partition and its number of sets, of the published samples

    def recognises(self, content: Mapping[str, Any]) -> bool:
        """True if a file, or a state dict in it, has the mark."""
        inside = (content, *(value for value in content.values() if isinstance(value, Mapping)))
        return any(str(name).endswith(self.mark) for names in inside for name in names)

    def import_run(
        self, content: Mapping[str, Any], out: Path, heads: int | None = None, data: str = "", vae: str = "",
        side: int | None = None,
    ) -> tuple[Any, int]:  # fmt: skip
        """Write the run folder ``out`` from a released file, and return the sizes of the network and V.

        The run's examples are indices of the codebook (``data.kind=rar-tokens``), or with ``vae`` the images that they
        decode to. Raise UserError if the file is not the published network, ``vae`` has other codes, or as
        ``released.write`` does.

        Args:
            heads: attention heads; None: as in every released size, and for other widths heads of 64 channels.
            data: the file of tokens that RAR's code writes, or a folder of ``mar cache``, to score and train on.
            vae: folder or hub name of the VQ autoencoder of the indices; "": that of a folder ``data``, or none.
            side: rows of the square grid of tokens where no shape tells them; None: 16.
        """
        plain, average = state_dicts(content)
        try:
            found = self.measure(plain, heads)
            last, ema = (self._renamed(self.prepare(state, found)) for state in (plain, average))
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(f"no weights of the published {self.NAME}: give its state dict ({error})") from None
        if found.n_tokens and side:
            raise UserError(f"the weights tell the {found.n_tokens} tokens of this {self.NAME}: leave out --side")
        found = found._replace(n_tokens=found.n_tokens or (side or _SIDE) ** 2)
        side, levels = math.isqrt(max(0, found.n_tokens)), found.levels
        if side**2 != found.n_tokens or not side or found.n_classes < 1:
            counts = f"{found.n_tokens} tokens and {found.n_classes} classes"
            raise UserError(f"{counts}: the published {self.NAME} makes square images of classes")
        kind, k = self.sets
        sections = {
            "name": out.name,
            **self.recipe,
            **_source(data, vae, levels),
            "partition": {"kind": kind} | ({"k": min(k, found.n_tokens)} if k else {}),
            "network": self.recipe["network"] | vars(found.sizes) | {"mlp_ratio": found.hidden / found.sizes.width},
        }
        classes = tuple(map(str, range(found.n_classes)))
        spec = DataSpec((1, side, side), levels, found.n_classes, classes, modality="latent")
        if vae := str(sections.get("tokenizer", {}).get("path", "")):
            spec = images_of(spec, AutoencoderFolder.find(vae).config)
        about = About("unknown data", spec, fingerprint="", notes={"imported": IMPORTED})
        write(config.parse(sections), about, last, ema, out)
        return found.sizes, levels

    def _renamed(self, state: State) -> dict[str, torch.Tensor]:
        ours = {}
        for name, value in state.items():
            to = next((re.sub(theirs, mine, name) for theirs, mine in self.names.items() if re.match(theirs, name)), "")
            if not to:
                raise UserError(f"{name!r} is no weight of the published {self.NAME}: give its state dict")
            ours[to] = value.contiguous()
        return ours


def _source(data: str, vae: str, levels: int) -> dict[str, Any]:
    """Return the sections of the recipe that say where indices come from, and what decodes them."""
    path = str(Path(data).expanduser().resolve()) if data else ""
    if path and not Path(path).exists():
        raise UserError(f"--data {data} is not there: give a file of tokens, or a folder of mar cache")
    if vae and Path(path or "-").is_file():
        raise UserError(f"--data {data} is a file of tokens, which no --vae reads: leave one out, or use mar cache")
    if not vae and not Path(path or "-").is_dir():
        return {"data": {"kind": "rar-tokens", "path": path, "levels": levels}}
    folder = AutoencoderFolder.find(vae or f"{path}/tokenizer")
    codes = folder.config.get("num_vq_embeddings")
    if codes != levels:
        raise UserError(f"{folder.path} has {codes or 'no'} codes, the model {levels}: give the VQ of its training")
    tokenizer = {"kind": "vq", "path": absolute(vae) or str(folder.path)}
    return {"data": {"kind": "cache", "path": path}, "tokenizer": tokenizer}


def depth(state: State, blocks: str = "blocks") -> int:
    """Return the number of blocks of a state dict with names such as ``blocks.0.…``."""
    return 1 + max(int(found[1]) for name in state if (found := re.match(rf"{blocks}\.(\d+)\.", name)))

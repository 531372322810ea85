"""The optimizer of a training: AdamW, one of timm's by name, or Muon for hidden matrices beside AdamW for the rest.

Used by the training loop, the benchmark and imported runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mar.config import Train
from mar.core.errors import Unsupported, UserError, unknown
from mar.core.processes import shard_like
from mar.heads.base import Head

_OURS = ("adamw", "muon")  # torch's; further names are timm's


def check_name(train: Train) -> None:
    """Raise UserError: no optimizer has this name; the nearest is named."""
    kind = train.optimizer.kind
    if kind not in _OURS and kind not in (names := _timm().list_optimizers()):
        raise unknown("optimizer", kind, {*_OURS, *names})


def _timm() -> Any:
    from mar.core import torchvision  # noqa: F401, I001 - before timm
    from timm import optim

    if not hasattr(optim, "list_optimizers"):
        raise UserError("train.optimizer takes names of timm 1.0.12 or later, and an older timm is installed")
    return optim


def make_optimizer(model: nn.Module, train: Train) -> torch.optim.Optimizer:
    """Return ``train.optimizer``, without weight decay of biases, norms, single vectors and a head that is not
    ``decayed``.

    ``train.decayed=published`` decays the mask token and the unconditional embedding, too: matrices of one row in the
    code of Li et al. 2024. The optimizer's own options replace ``train.betas``, which applies where there are two.

    Raises:
        UserError: this machine lacks the optimizer, or it has no such option.
        Unsupported: it needs second derivatives, which no training here computes.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    head = getattr(model, "head", None)
    exempt = set(head.parameters()) if isinstance(head, Head) and not head.decayed else set()
    named = dict(model.named_parameters()) if train.decayed == "published" else {}
    rows = {p for name, p in named.items() if name in ("null", "network.mask_token")}
    decays = [(p.ndim > 1 or p in rows) and p not in exempt for p in parameters]
    groups = [
        {"params": [p for p, own in zip(parameters, decays, strict=True) if own == decayed], "weight_decay": decay}
        for decayed, decay in ((True, train.weight_decay), (False, 0.0))
    ]
    kind, options = train.optimizer.kind, train.optimizer.model_extra or {}
    common = {"lr": train.learning_rate, "betas": train.betas}
    try:
        if kind == "adamw":
            return torch.optim.AdamW(groups, **{**common, "fused": True, **options})
        if kind == "muon":
            return _with_muon(hidden_matrices(model), groups, common, options)
        info = _timm().get_optimizer_info(kind)
        if info.second_order:
            raise Unsupported(f"train.optimizer={kind} needs second derivatives, which training does not compute")
        if not (info.has_betas and info.num_betas == 2):
            del common["betas"]
        return _timm().create_optimizer_v2(groups, kind, **{**common, **options})
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise UserError(f"train.optimizer={kind}: {' '.join(str(error).split())}") from None


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the weight matrices of the network: no embeddings, positions, convolutions and heads."""
    network = getattr(model, "network", model)
    return [p for name, p in network.named_parameters() if p.ndim == 2 and name.split(".")[-1].startswith("weight")]


def _with_muon(
    hidden: list[nn.Parameter], groups: list[dict[str, Any]], common: dict[str, Any], options: dict[str, Any]
) -> torch.optim.Optimizer:
    """Return Muon (Jordan et al. 2024) with AdamW; its updates have AdamW's root mean square, and so its learning rate
    (Liu et al. 2025, arXiv 2502.16982, section 2.2)."""
    if not hasattr(torch.optim, "Muon"):
        raise UserError("train.optimizer=muon needs torch 2.9 or later")
    if not hidden:
        raise UserError("train.optimizer=muon: this network has no hidden matrices, choose adamw")
    decay, chosen = groups[0]["weight_decay"], set(hidden)
    rest = [{**group, "params": [p for p in group["params"] if p not in chosen]} for group in groups]
    settings = {"adjust_lr_fn": "match_rms_adamw", "weight_decay": decay, **options}
    muon = torch.optim.Muon(hidden, lr=common["lr"], **settings)
    return Several([muon, torch.optim.AdamW(rest, **common, fused=True)])


class Several(torch.optim.Optimizer):
    """Optimizers of different parameters as one, with the groups and the state of all."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.state = self.state
            part.param_groups = [next(groups) for _ in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a saved state (full tensors) into the optimizer, which may hold shards.

    Raises:
        UserError: the parameters are grouped differently, as in earlier versions.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]  # as state_dict numbers them
    if [len(group["params"]) for group in state["param_groups"]] != [len(g["params"]) for g in optimizer.param_groups]:
        raise UserError(
            "the checkpoint's optimiser decays other weights than this version does: it can be sampled from and "
            "scored, but not trained further"
        )
    shares = {
        number: {key: shard_like(value, parameters[number]) for key, value in of.items()}
        for number, of in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": shares})

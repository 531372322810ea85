"""What the parts of a model cannot do together, refused when a recipe is read.

B batch · L tokens
"""

from __future__ import annotations

import torch

from mar.errors import Unsupported
from mar.model import Model
from mar.noise import stream
from mar.training.objective import MaskRatio, Uniform
from orderings import Plan


def check_lengths(model: Model, plan: Plan, network: str) -> None:
    """Refuse what examples of their own lengths cannot have, if they are such."""
    model.tokenizer.check(plan.step_BL)
    if model.tokenizer.end is not None and (model.network.shares_plan or not model.network.one_pass):
        raise Unsupported(
            f"network={network} would be told where a document ends: use one that reads from left to "
            "right, e.g. causal-transformer, lstm, gru or wavenet, or windows of one length (data.kind=text)"
        )


def check_tasks(model: Model, plan: Plan, ratio: MaskRatio, kind: str, seed: int) -> None:
    """Refuse a mask ratio that makes tasks which the network cannot serve, though it serves the plan."""
    position_B, iteration = torch.arange(len(plan.step_BL)), stream(seed, "check", 1)
    task = ratio.task(plan, position_B, iteration, model.network.one_pass)
    try:
        for row in task.step_BL.split(1):
            model.network.check(row)
    except Unsupported as refusal:
        asked = f"train.mask_ratio={kind} asks for other plans"
        raise Unsupported(f"{asked}: use train.mask_ratio=plan ({refusal})") from None


def check_policy(model: Model, ratio: MaskRatio, head: str) -> None:
    """Refuse a learned order whose bound cannot be trained with this head or mask ratio."""
    if not model.head.loss_is_nll:
        raise Unsupported(
            f"ordering=learned trains a bound in nats, and the loss of head {head!r} is none: use head=categorical"
        )
    if ratio != Uniform():
        raise Unsupported(
            "ordering=learned trains on one step drawn uniformly, all unknown tokens its targets: "
            "use train.mask_ratio=uniform"
        )

"""The model that is trained, saved and loaded: tokenizer, embedding, network, head, and the condition.

B batch · L tokens · C condition width · D width · M gathered tokens
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from mar.core.noise import compile_rounds
from mar.core.options import replaced, swapped
from mar.core.spec import Conditions
from mar.heads.base import Head, replaced_options
from mar.model.conditions import absent, embedding_of
from mar.model.embedding import TokenEmbedding
from mar.networks.base import Network
from mar.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from mar.model.policy import OrderPolicy

_SHAPES = 64  # of compiled code: buckets, with and without gradients; beyond this limit torch silently runs eager code


class Model(nn.Module):
    """The four parts, and the embedding of the condition: one of ``n_classes``, or vectors. ``policy``: that of a
    learned order.

    ``label_B`` is one class for each row, int64 (B,), negative: none; or conditions (``mar.model.conditions``)."""

    def __init__(
        self, tokenizer: Tokenizer, network: Network, head: Head, n_classes: int = 0, given: Conditions | None = None
    ) -> None:
        super().__init__()
        self.tokenizer, self.network, self.head, self.n_classes = tokenizer, network, head, n_classes
        self.embedding = TokenEmbedding(tokenizer.token, network.token_width, network.cosine_token_init)
        self.policy: OrderPolicy | None = None
        self.null = nn.Parameter(0.02 * torch.randn(network.condition_width))
        if n_classes:
            self.classes = nn.Embedding(n_classes, network.condition_width)
            nn.init.normal_(self.classes.weight, std=0.02)
        longest = network.condition_length
        self.given = None if given is None else embedding_of(given, network.condition_width, longest)
        self._shape = (given.length, -1) if given is not None and given.length and longest else (-1,)  # of a condition

    @property
    def conditional(self) -> bool:
        return bool(self.n_classes or self.given is not None)

    def condition(self, label_B: torch.Tensor, drop_B: torch.Tensor | None = None) -> torch.Tensor:
        """condition_BC: the embedded label, replaced by the null condition where ``drop_B`` (bool) or there is none.

        (B, T, C) of sequences, where the network reads them.
        """
        if not (self.n_classes if self.given is None else label_B.is_floating_point()):
            return self.null_condition(len(label_B))
        drop_B = absent(label_B) if drop_B is None else drop_B | absent(label_B)
        found = self.classes(label_B.clamp(min=0)) if self.given is None else self.given(label_B, self.null)
        found = found.to(self.null.dtype)  # also under autocast
        return torch.where(drop_B.view(-1, *[1] * len(self._shape)), self.null, found)

    def null_condition(self, batch: int) -> torch.Tensor:
        """The learned condition of a batch that stands for "no class"."""
        return self.null.expand(batch, *self._shape)

    def forward(
        self, token: torch.Tensor, step_BL: torch.Tensor, label_B: torch.Tensor, drop_B: torch.Tensor,
        target_BL: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """z_MD of the targets under ``condition(label_B, drop_B)``; otherwise as ``context``."""
        return self.context(token, step_BL, self.condition(label_B, drop_B), target_BL)

    def context(
        self, token: torch.Tensor, step_BL: torch.Tensor, condition_BC: torch.Tensor, target_BL: torch.Tensor
    ) -> torch.Tensor:
        """z_MD of the targets: the network's contract, on raw tokens."""
        return self.network(self.embedding(token), step_BL, condition_BC, target_BL)

    def compile_parts(self) -> None:
        """Compile in place where the time goes. On a CPU dropout's random numbers stay those of eager code; on a GPU
        they are made inside the compiled kernels, which saves a pass over memory."""
        import torch._dynamo
        import torch._inductor.config

        on_cpu = self.null.device.type == "cpu"
        torch._inductor.config.fallback_random = on_cpu  # there also the faster dropout
        if not on_cpu:
            compile_rounds()
        torch._dynamo.config.recompile_limit = max(_SHAPES, torch._dynamo.config.recompile_limit)
        self.network.compile_parts()
        self.head.compile_parts()

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def sampling_options(model: Model, options: dict[str, Any]) -> AbstractContextManager[None]:
    """Inside the block the model samples with ``options`` of its head (steps, top_k, …) or network (refresh)."""
    return _replaced(model, options, "sampling")


def scoring_options(model: Model, options: dict[str, Any]) -> AbstractContextManager[None]:
    """Inside the block likelihoods are computed with ``options`` of the head (timesteps, solver, …), or are those of
    samples made with options of the network (refresh)."""
    return _replaced(model, options, "scoring")


@contextmanager
def _replaced(model: Model, options: dict[str, Any], of_head: Literal["sampling", "scoring"]) -> Iterator[None]:
    """Raises UserError: neither head nor network has such an option; the message names those of the head."""
    network, names = model.network, {field.name for field in fields(model.network.sampling)}
    with ExitStack() as changes:
        if rest := {name: value for name, value in options.items() if name not in names}:
            changes.enter_context(replaced_options(model.head, of_head, rest))
        if chosen := {name: value for name, value in options.items() if name in names}:
            now = replaced(network.sampling, chosen, "option of the network:", "sampling option ")
            changes.enter_context(swapped(network, "sampling", now))
        yield

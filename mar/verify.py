"""Contract tests: ``verify(MyNetwork)``, or ``verify_registry()`` for everything of our own.

Every function returns ``Verdict(claim, subject, passed, detail)``; nothing raises because a contract is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mar import build
from mar.errors import UserError
from mar.heads.base import Head
from mar.heads.categorical import CategoricalHead
from mar.networks.base import Network
from mar.verification.heads import verify_head
from mar.verification.models import verify_network_in_model
from mar.verification.networks import verify_network
from mar.verification.orderings import verify_ordering, verify_partition
from mar.verification.registry import pairwise_cells, product, verify_cell
from mar.verification.verdict import Verdict
from orderings import ORDERINGS, PARTITIONS, Ordering, Partition

__all__ = ["Verdict", "verify", "verify_registry"]

_NEED_AN_OPTION = {"file", "optimal"}  # without the file that they read they are none


def verify(cls: type, subject: str | None = None) -> list[Verdict]:
    """The contract tests of an ordering, a partition (with their default options), a network or a head (with the
    options in its ``tiny``).

    Raises:
        UserError: ``cls`` is none of these.
    """
    subject = subject or cls.__name__
    if issubclass(cls, Ordering):
        return [verdict for name, part in _instances(cls, subject) for verdict in verify_ordering(part, name)]
    if issubclass(cls, Partition):
        return [verdict for name, part in _instances(cls, subject) for verdict in verify_partition(part, name)]
    if issubclass(cls, Network):
        return verify_network(cls, subject) + verify_network_in_model(cls, CategoricalHead, subject)
    if issubclass(cls, Head):
        return verify_head(cls, subject)
    raise UserError(f"{subject} is no Ordering, Partition, Network or Head: subclass the one that it is")


def _instances(cls: Any, subject: str) -> list[tuple[str, Any]]:
    """With default options, and with ``tiny`` ones where it has some."""
    try:
        tiny = [(f"{subject}, {cls.tiny}", cls(**cls.tiny))] if cls.tiny else []
        return [(subject, cls()), *tiny]
    except TypeError as error:
        raise UserError(f"{cls.__name__}: give every option a default, to be verified ({error})") from None


def verify_registry(whole_product: bool = False) -> Iterator[list[Verdict]]:
    """Everything of our own: each component alone, then models that cover every pair of components, or all of them."""
    for family, names in (("network", build.NETWORKS), ("head", build.HEADS)):
        for name in names:
            yield verify(build.find(family, name), name)
    for names in (ORDERINGS, PARTITIONS):
        for name, cls in names.items():
            if name not in _NEED_AN_OPTION:
                yield verify(cls, name)
    for cell in product() if whole_product else pairwise_cells():
        yield verify_cell(cell)

"""Plans as users write them, drawn on the grid of a run.

B batch · L tokens · K AR steps
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise, stream
from orderings import GIVEN, Adaptive, Grid, Ordering, Partition, Plan, PlanSpec, name_of, to_text
from orderings.base import shuffle
from orderings.optimal import Optimal

PlanLike = str | Plan | tuple[Ordering | Adaptive, Partition]


class Plans:
    """A plan for every image.

    Args:
        plan: short text, an ordering with a partition, or plans whose row k is that of example k.
        grid: of the model.
        folder: of the run, where measured set costs lie.
        device: where the plans are wanted.

    Raises:
        InvalidRequest, Unsupported: there is no such plan; the message says what is near or missing.
    """

    def __init__(self, plan: PlanLike, grid: Grid, folder: Path, device: torch.device) -> None:
        self.grid, self.device = grid, device
        self.text = "a plan given as a tensor"  # the canonical short text
        self.random, self.learned = False, False  # the order is drawn; the model's policy chooses it
        self.rule: Adaptive | None = None  # finds the order while generating; None: the order is drawn beforehand
        self.components: tuple[Ordering, ...] = ()  # of a mixture of fixed orders
        self._ordering: Ordering | None = None
        self._plan, self._partition = plan if isinstance(plan, Plan) else None, None
        if isinstance(plan, Plan):
            return
        ordering, partition = PlanSpec.parse(plan, adaptive=True) if isinstance(plan, str) else plan
        self.text = str(PlanSpec(ordering, partition))
        self._partition = resolve_optimal(partition, to_text(ordering), folder)
        if isinstance(ordering, Adaptive):
            self.rule = ordering
        else:
            self._ordering, self.random, self.learned = ordering, ordering.random, ordering.learned
            self.components = ordering.components

    def orders(self, wanted: int) -> int:
        """Return how many of the ``wanted`` orders shared by all images are scored.

        None of a fixed order; of a mixture of fixed orders at most all of these, each once, in an order drawn by the
        seed; else all that are wanted.
        """
        if not self.random:
            return 0
        return min(wanted, len(self.components)) if self.components else wanted

    def sample(self, noise: Noise, given_BL: torch.Tensor | None = None, ordering: Ordering | None = None) -> Plan:
        """One plan for each stream, a function of its key alone, along another ``ordering`` if there is one.

        Raises:
            Unsupported: the order is found while generating.
            UserError: a plan given as a tensor lacks rows or tokens, or has other tokens given than ``given_BL``.
        """
        if self._plan is not None:
            return self._rows(self._plan, noise.example_N, given_BL)
        if (ordering := ordering or self._ordering) is None or self._partition is None:
            raise Unsupported(f"{self.text} is no plan to draw: its order is found along the way, as by mar sample "
                              f"--adaptive {name_of(self.rule)}")  # type: ignore[arg-type]  # fmt: skip
        given_BL = None if given_BL is None else given_BL.cpu()
        drawn = Plan.sample(ordering, self._partition, self.grid, len(noise.example_N), noise.to("cpu"), given_BL)
        return drawn.to(self.device)

    def _rows(self, plan: Plan, example_N: torch.Tensor, given_BL: torch.Tensor | None) -> Plan:
        """Rows ``example_N`` of a plan given as a tensor."""
        shape, wanted = tuple(plan.step_BL.shape), (int(example_N.max()) + 1, len(self.grid))
        if shape[0] < wanted[0] or shape[1] != wanted[1]:
            raise UserError(f"a plan of {shape[0]} rows and {shape[1]} tokens, for {wanted[0]} examples of {wanted[1]}")
        plan = plan.to(self.device).rows(example_N.to(self.device))
        if given_BL is not None and not torch.equal(plan.step_BL == GIVEN, given_BL.to(self.device)):
            raise UserError("a plan given as a tensor says itself which tokens are given: GIVEN there and nowhere else")
        return plan

    def scored(self, noise: Noise, order: int | None = None, given_NL: torch.Tensor | None = None) -> Plan:
        """The plans that a likelihood is computed along.

        For a rule, plans of its set sizes; otherwise a plan for each stream, or the ``order``-th of the random orders
        that all images of a seed share. ``given_NL``: tokens that are conditioned on and not scored.

        Raises:
            Unsupported: an order shared by all that is not random; or tokens are given, and the order is shared or
                found along the way.
        """
        if given_NL is not None and (order is not None or self.rule is not None):
            raise Unsupported(f"after a given past, windows are scored along plans of their own, not {self.text}"
                              f"{'' if order is None else ' in one order for all'}")  # fmt: skip
        if order is not None:
            if not self.random or self.learned:
                raise Unsupported(f"{self.text} has one order for an image: several take a random one, e.g. random")
            component = None
            if n := len(self.components):
                if order >= n:
                    raise Unsupported(f"{self.text} is a mixture of {n} orders, each scored once: leave out the others")
                component = self.components[shuffle(stream(noise.seed, "components", 1).uniform(n))[0, order]]
            shared = self.sample(stream(noise.seed, "orders", torch.tensor([order])), ordering=component)
            return shared.rows(torch.zeros(len(noise), dtype=torch.int64, device=self.device))
        if self.rule is not None and self._partition is not None:
            return sizes_plan(self._partition, len(self.grid), len(noise)).to(self.device)
        return self.sample(noise, None if given_NL is None else given_NL[noise.example_N.cpu()])


def sizes_plan(partition: Partition, n_tokens: int, batch: int) -> Plan:
    """A plan for its set sizes alone; its tokens stand in raster order.

    Raises:
        Unsupported: the partition cuts by the tokens' places, or ``n_tokens`` cannot be cut this way.
    """
    if type(partition).sizes is Partition.sizes:
        raise Unsupported(
            f"{name_of(partition)} cuts by where the tokens lie: an order that is yet to be found wants a partition of "
            "set sizes, e.g. singles, equal:4 or cosine:16"
        )
    sizes_K = partition.sizes(n_tokens)
    step_L = torch.arange(len(sizes_K)).repeat_interleave(sizes_K)
    return Plan(torch.arange(n_tokens).repeat(batch, 1), step_L.repeat(batch, 1))


def costs_file(folder: Path, ordering: str) -> Path:
    """Return the file for the set costs of an ordering (its short text) in the run ``folder``."""
    return folder / "scores" / f"set-costs-{ordering.replace('/', '-').replace(':', '')}.json"


def resolve_optimal(partition: Partition, ordering: str, folder: Path) -> Partition:
    """Return ``optimal`` with the costs that the run in ``folder`` measured under ``ordering`` (its short text).

    Other partitions, and ``optimal`` with its own costs, are returned unchanged.

    Raises:
        Unsupported: the run has no such costs yet; the message gives the command.
    """
    if not isinstance(partition, Optimal) or partition.costs:
        return partition
    path = costs_file(folder, ordering)
    if not path.is_file():
        raise Unsupported(
            f"optimal:{partition.k} under {ordering} needs measured costs: measure first, "
            f"mar score sets {folder} --plans {ordering}"
        )
    return replace(partition, costs=str(path))

"""Which AR steps of a chain are computed: all of them, or an unbiased draw of a few.

B batch · K AR steps

A network that needs a pass for each step pays K passes for one image; a sum over K steps can be estimated from n of
them. The steps are cut into n strata of consecutive steps, as equal as whole numbers allow; one step is drawn uniformly
in each and weighted by its stratum's size, so that every step's expected weight is 1 and the weighted sum has the
expectation of the whole one (stratified sampling, Cochran 1977, ch. 5). Every image draws its own steps, independently
of the others, so the spread of the images' estimates holds all variance there is: that of images, orders and steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mar.errors import UserError
from mar.noise import Noise

_WRITTEN = "an estimator is exact, steps:8 or steps:8:antithetic"


@dataclass(frozen=True)
class Estimator:
    """``steps`` 0: every step. ``antithetic``: neighbouring strata draw mirrored places.

    Conditional entropies fall along an order; with mirrored places a linear fall cancels between the two neighbours.
    """

    steps: int = 0
    antithetic: bool = False

    @classmethod
    def parse(cls, text: str) -> Estimator:
        """``exact``, ``steps:8`` or ``steps:8:antithetic``.

        Raises:
            UserError: it is none of these.
        """
        if text == "exact":
            return cls()
        name, _, rest = text.partition(":")
        number, _, way = rest.partition(":")
        if name != "steps" or not number.isdecimal() or int(number) < 1 or way not in ("", "antithetic"):
            raise UserError(f"{_WRITTEN}, not {text!r}")
        return cls(int(number), way == "antithetic")

    def __str__(self) -> str:
        return f"steps:{self.steps}{':antithetic' * self.antithetic}" if self.steps else "exact"

    def weights(self, n_steps_B: torch.Tensor, noise: Noise) -> torch.Tensor | None:
        """weight_BK (float64): 1 over the probability of a drawn step, 0 for the others; None where all are drawn.

        Rows with no more than ``steps`` steps draw all of theirs. ``noise`` has one stream a row: plans of equally many
        steps draw the same ones for the same image, which keeps their comparison paired.
        """
        n_steps = int(n_steps_B.max())
        if not self.steps or n_steps <= self.steps:
            return None
        n_B1 = n_steps_B[:, None]
        edge_BJ = torch.arange(self.steps + 1, device=n_B1.device) * n_B1 // self.steps
        size_BJ = edge_BJ.diff(dim=1)
        place_BJ = self._places(noise.uniform(self.steps).to(n_B1.device).double(), size_BJ)
        weight_BK = torch.zeros(len(n_steps_B), n_steps + 1, dtype=torch.float64, device=n_B1.device)
        weight_BK.scatter_(1, (edge_BJ[:, :-1] + place_BJ).clamp(0, n_steps), size_BJ.double())
        step_K = torch.arange(n_steps, device=n_B1.device)
        return torch.where(n_B1 <= self.steps, (step_K < n_B1).double(), weight_BK[:, :n_steps])

    def _places(self, uniform_BJ: torch.Tensor, size_BJ: torch.Tensor) -> torch.Tensor:
        """One of 0..size-1 in each stratum."""
        if not self.antithetic:
            return (uniform_BJ * size_BJ).long()
        odd_J = torch.arange(self.steps, device=size_BJ.device) % 2 == 1
        shared_BJ = torch.where(odd_J, uniform_BJ.roll(1, 1), uniform_BJ)
        place_BJ = (shared_BJ * size_BJ).long()
        return torch.where(odd_J, size_BJ - 1 - place_BJ, place_BJ)


EVERY_STEP = Estimator()

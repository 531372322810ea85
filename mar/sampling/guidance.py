"""Guidance and temperature along a generation. This file imports no torch: the command line reads their texts first.

M gathered tokens · L tokens that exist · K AR steps

A schedule of guidance is written ``NAME`` or ``NAME@FROM-TO``. It grows from 1 to the scale s by a share of the
generation, 1 + (s - 1) share:

    constant          1
    linear            tokens known after the set, at most L - 1, of L: MAR's code (Li et al. 2024)
    linear-before     tokens known before the set, of L: RandAR's code (arXiv 2412.01827)
    linear-rank       tokens before this one in the generation order, of L: LPD's code (arXiv 2507.01957)
    power-cosine:P    (1 - cos(pi (k / K)^P)) / 2 at step k = 0, 1, …: RAR's ``guidance_scale_pow`` (arXiv 2411.00776)

Outside ``FROM <= k / K < TO`` there is none (Kynkäänniemi et al. 2024, of diffusion steps, which are
``guidance_interval`` of the continuous heads).

A schedule of temperature leads from F at the first step to the temperature T at the last:

    constant          T
    linear:F          linearly; MaskGIT's draws (Chang et al. 2022) have T = 0
    cosine:F          along half a cosine
    inverse:F         1 / temperature is linear: Halton-MaskGIT's code (arXiv 2503.17076), which multiplies
    maskgen           T (1 - r) (0.5 + 0.8 (1 - r)) with r = (k + 1) / K: MaskGen's code (arXiv 2501.07730)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from mar.core.errors import UserError
from mar.core.options import interval

if TYPE_CHECKING:
    from torch import Tensor

_GUIDANCE = (
    "guidance wants scale >= 0 and schedule constant, linear, linear-before, linear-rank or power-cosine:POWER, "
)
_NUMBER = r"\d+\.?\d*|\.\d+"
_TEMPERATURE = "a temperature schedule is constant, linear:FROM, cosine:FROM, inverse:FROM or maskgen, "


class Place(NamedTuple):
    """Where in the generation tokens are drawn: each (M,) int64."""

    before: Tensor  #: tokens of the row known before the set
    rank: Tensor  #: tokens of the row before this one, in the generation order
    after: Tensor  #: tokens of the row known after the set
    total: Tensor  #: L
    step: Tensor  #: k
    n_steps: Tensor  #: K


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (Ho & Salimans 2022). Scale 1 is none, and costs no second context."""

    scale: float = 1.0
    schedule: str = "linear"

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise UserError(f"{_GUIDANCE}not scale {self.scale}")
        _ = self._parsed

    @cached_property
    def _parsed(self) -> tuple[str, float, tuple[float, float] | None]:
        """The name, the power and the interval."""
        shape, at, within = str(self.schedule).partition("@")
        name, _, power = shape.partition(":")
        if name == "power-cosine" and re.fullmatch(_NUMBER, power):
            return name, float(power), interval(within, "AR steps", 1) if at else None
        if shape not in ("constant", "linear", "linear-before", "linear-rank"):
            raise UserError(f"{_GUIDANCE}each also @FROM-TO, not {self.schedule!r}")
        return name, 1.0, interval(within, "AR steps", 1) if at else None

    @property
    def active(self) -> bool:
        return self.scale != 1.0

    @property
    def ranked(self) -> bool:
        """True if tokens of one set differ."""
        return self._parsed[0] == "linear-rank"

    @property
    def counts_steps(self) -> bool:
        """True if the scale depends on k / K."""
        name, _, within = self._parsed
        return name == "power-cosine" or within is not None

    @property
    def ended(self) -> Guidance:
        """The guidance after the last step, as rounds of remasking have it."""
        name, _, within = self._parsed
        if within is not None and within[1] < 1:
            return NONE
        return replace(self, schedule="constant" if name == "power-cosine" else name)

    def at(self, place: Place) -> Tensor:
        """Return scale_M."""
        name, power, within = self._parsed
        total_M, rise = place.total, self.scale - 1.0
        if name == "constant":
            scale_M = (0 * total_M).float() + self.scale
        elif name == "power-cosine":
            share_M = place.step / place.n_steps
            scale_M = rise * (1 - (share_M**power * math.pi).cos()) / 2 + 1.0
        else:
            known_M = place.before if name == "linear-before" else place.rank
            if name == "linear":
                known_M = total_M - (total_M - place.after).clamp(min=1)
            scale_M = 1.0 + rise * known_M.float() / total_M
        if within is None:
            return scale_M
        from mar.core.devices import back, double

        low_M, high_M = (back(end * double(place.n_steps) - 1e-6, total_M.device) for end in within)
        return scale_M.where((low_M <= place.step) & (place.step < high_M), 1.0)


NONE = Guidance()


@dataclass(frozen=True)
class Temperature:
    """The temperature of the head at every AR step."""

    value: float = 1.0
    schedule: str = "constant"

    def __post_init__(self) -> None:
        if not 0 <= self.value < math.inf:
            raise UserError(f"temperature must be finite and at least 0, not {self.value}")
        name, first = self._parsed
        if name == "inverse" and not (first and self.value):
            raise UserError(f"the temperatures of {self.schedule} are positive, not from {first} to {self.value}")

    @classmethod
    def of(cls, given: float | Temperature) -> Temperature:
        """Return a number as a constant temperature."""
        return given if isinstance(given, Temperature) else cls(given)

    @cached_property
    def _parsed(self) -> tuple[str, float]:
        """The name, and the temperature at the first step where the text has it."""
        name, colon, first = str(self.schedule).partition(":")
        if name in ("constant", "maskgen") and not colon:
            return name, 0.0
        if name not in ("linear", "cosine", "inverse") or not re.fullmatch(_NUMBER, first):
            raise UserError(f"{_TEMPERATURE}not {self.schedule!r}")
        return name, float(first)

    @property
    def constant(self) -> bool:
        return self.schedule == "constant"

    def at(self, step: int, n_steps: int) -> float:
        """Return the temperature of step 0..K-1; of a single step that of the last."""
        name, first = self._parsed
        share = step / (n_steps - 1) if n_steps > 1 else 1.0
        if name == "linear":
            return first + (self.value - first) * share
        if name == "cosine":
            return self.value + (first - self.value) * (1 + math.cos(math.pi * share)) / 2
        if name == "inverse":
            return 1 / (1 / first + (1 / self.value - 1 / first) * share)
        if name == "maskgen":
            rest = 1 - (step + 1) / n_steps
            return self.value * rest * (0.5 + 0.8 * rest)
        return self.value

"""What a learning curve says: whether a training was long enough for its end value to be compared with others'."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

Verdict = Literal["falling", "flat", "overfits", "unknown"]

LATE = 0.25  # the last part of a training, in which a curve that has settled no longer falls
PLATEAU = 0.007  # nats per token, .01 bits: less is no fall and no rise

MEANINGS: dict[Verdict, str] = {
    "falling": f"the lowest validation loss of the last {100 * LATE:.0f} % of the training is more than {PLATEAU} nats "
    "per token below that of the time before: undertrained, a longer training would do better",
    "flat": "neither: the curve has settled",
    "overfits": f"the last validation loss is more than {PLATEAU} nats per token above the lowest",
    "unknown": "fewer than two validations",
}


def verdict(iterations: Sequence[int], nats: Sequence[float]) -> Verdict:
    """Of a validation curve in nats per token.

    A curve that fell late and rose again overfits: more training would not help it.
    """
    if len(nats) < 2:
        return "unknown"
    lowest = min(nats)
    if nats[-1] - lowest > PLATEAU:
        return "overfits"
    early = [value for at, value in zip(iterations, nats, strict=True) if at <= (1.0 - LATE) * iterations[-1]]
    return "falling" if not early or min(early) - lowest > PLATEAU else "flat"


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(nats: Sequence[float], most: int = 12) -> str:
    """The curve in one line of text, from its lowest value to twice the range of its later half; at most so many bars,
    each the mean of its part."""
    if not nats:
        return ""
    count = min(most, len(nats))
    edges = [round(k * len(nats) / count) for k in range(count + 1)]
    means = [sum(nats[a:b]) / (b - a) for a, b in pairwise(edges)]
    late = means[len(means) // 2 :]
    low = min(means)
    span = max(2.0 * (max(late) - low), PLATEAU)
    return "".join(_BARS[min(len(_BARS) - 1, int((value - low) / span * len(_BARS)))] for value in means)

"""Names beside the points of a picture, where there is room for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FONT = 9  # size of a name, in units of the drawing
_LETTER = 0.56 * FONT  # mean width of one, on the safe side
_POINT = 4  # half of a point's width, with a margin
_SHARES = {"start": 0.0, "middle": 0.5, "end": 1.0}

Box = tuple[float, float, float, float]  # left, top, right, bottom; y goes down


@dataclass(frozen=True)
class Label:
    """Where the foot of a name stands, seen from its point, in units of the drawing; ``anchor`` as in SVG."""

    dx: float
    dy: float
    anchor: str


_SIDES = (  # below first: a front runs to the left of its points and above them
    Label(5, 12, "start"), Label(6, 3, "start"), Label(-5, 12, "end"), Label(-6, 3, "end"), Label(0, -7, "middle"),
)  # fmt: skip


def labels(
    places: Sequence[tuple[float, float]], names: Sequence[str], first: Sequence[int], area: Box
) -> list[Label | None]:
    """A place for each name at a side of its point, inside the area, where it covers no point and no other name.

    Args:
        places: of the points.
        first: numbers of the points that choose before the others.

    Returns:
        For each point its label; None where there is no room.
    """
    taken: list[Box] = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in places]
    found: list[Label | None] = [None] * len(places)
    for number in dict.fromkeys((*first, *range(len(places)))):
        for label in _SIDES:
            box = _box(places[number], label, len(names[number]))
            if _inside(box, area) and not any(_overlap(box, other) for other in taken):
                found[number] = label
                taken.append(box)
                break
    return found


def _box(place: tuple[float, float], label: Label, letters: int) -> Box:
    width = letters * _LETTER
    left, foot = place[0] + label.dx - _SHARES[label.anchor] * width, place[1] + label.dy
    return left, foot - 0.8 * FONT, left + width, foot + 0.2 * FONT


def _inside(box: Box, area: Box) -> bool:
    return box[0] >= area[0] and box[1] >= area[1] and box[2] <= area[2] and box[3] <= area[3]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

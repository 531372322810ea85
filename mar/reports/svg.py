"""Small figures as inline SVG: heat maps and line charts. Lines and text take their colours from the style sheet."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_EMPTY = (0, 0, 0, 0)
_CELL = 10  # units of the drawing


def _rgb(share: float) -> tuple[int, int, int, int]:
    """Dark violet at 0, yellow at 1; opaque. Nothing where there is no number."""
    if math.isnan(share):
        return _EMPTY
    place = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    first = min(int(place), len(_VIRIDIS) - 2)
    r, g, b = (round(a + (b - a) * (place - first)) for a, b in zip(_VIRIDIS[first], _VIRIDIS[first + 1], strict=True))
    return r, g, b, 255


def rows_of(values: Sequence[float], grid: tuple[int, ...]) -> list[list[float]]:
    """Values (L,) as the rows of a picture: channels are averaged, a 1-D grid is folded into rows of 32."""
    if len(grid) == 1:
        return [list(values[start : start + 32]) for start in range(0, len(values), 32)]
    depth = math.prod(grid[2:])
    pixels = [math.fsum(values[k : k + depth]) / depth for k in range(0, len(values), depth)]
    return [pixels[start : start + grid[1]] for start in range(0, len(pixels), grid[1])]


def heat_map(
    rows: Sequence[Sequence[float]], label: str, low: float, high: float, what: str, path: bool = False
) -> str:
    """Cells coloured from ``low`` to ``high``, as a picture of a pixel each; ``path`` joins ranks in a row that touch.

    The values go with it as text, for the page's script to say under the pointer: ``what`` is said of one, as in
    "rank {}".
    """
    span, width, height = (high - low) or 1.0, max(map(len, rows)), len(rows)
    pixels = [[_rgb((value - low) / span) for value in row] + [_EMPTY] * (width - len(row)) for row in rows]
    size = f'width="{_CELL * width}" height="{_CELL * height}"'
    drawn = f'<image {size} preserveAspectRatio="none" href="data:image/png;base64,{_png(pixels)}"/>'
    if path:
        drawn += f'<path class="path" d="{_walk(rows)}"/>'
    values = ";".join(" ".join(f"{value:.4g}" for value in row) for row in rows)
    return (
        f'<svg class="map" viewBox="0 0 {_CELL * width} {_CELL * height}" role="img" aria-label="{escape(label)}" '
        f'data-what="{escape(what)}" data-values="{values}">{drawn}</svg>'
    )


def _png(pixels: Sequence[Sequence[tuple[int, ...]]]) -> str:
    """Rows of colours (red, green, blue, opacity) as a PNG file in base 64."""
    from PIL import Image

    picture = Image.new("RGBA", (len(pixels[0]), len(pixels)))
    picture.putdata([pixel for row in pixels for pixel in row])
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _walk(rows: Sequence[Sequence[float]]) -> str:
    """The path through cells of rising value, broken where the next one does not touch."""
    places = sorted((value, i, j) for i, row in enumerate(rows) for j, value in enumerate(row))
    parts, before = [], (math.inf, math.inf)
    for _, i, j in places:
        touching = max(abs(i - before[0]), abs(j - before[1])) <= 1
        parts.append(f"{'L' if touching else 'M'}{_CELL * j + _CELL // 2} {_CELL * i + _CELL // 2}")
        before = (i, j)
    return "".join(parts)


@dataclass(frozen=True)
class Line:
    """A line of a chart; ``style`` is its class in the style sheet, ``name`` what a pointer on it reads."""

    x: Sequence[float]
    y: Sequence[float]
    style: str
    name: str


@dataclass(frozen=True)
class Chart:
    """Axes of a line chart. Charts with equal axes can share lines drawn once (``shared``).

    Attributes:
        width, height: of the drawing, in its units.
        log_x: the horizontal axis is logarithmic; its range is positive.
    """

    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    width: int = 260
    height: int = 170
    log_x: bool = False

    _left, _right, _top, _bottom = 34, 8, 8, 30

    def svg(self, lines: Sequence[Line], label: str, shared: str = "", above: str = "") -> str:
        """The chart; ``shared`` is the id of lines drawn elsewhere by ``group``, behind these; ``above`` is SVG."""
        behind = f'<use href="#{shared}"/>' if shared else ""
        drawn = "".join(map(self._line, lines))
        return (
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(label)}">'
            f"{self._axes()}{behind}{drawn}{above}</svg>"
        )

    def group(self, lines: Sequence[Line], name: str) -> str:
        """Lines for other charts to share, in a drawing that shows nothing itself."""
        return f'<svg class="shared" aria-hidden="true"><g id="{name}">{"".join(map(self._line, lines))}</g></svg>'

    def _line(self, line: Line) -> str:
        points = " ".join(
            "{:.1f},{:.1f}".format(*self.place(x, y)) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)
        )
        return f'<polyline class="{line.style}" points="{points}"><title>{escape(line.name)}</title></polyline>'

    def _axes(self) -> str:
        base, end = self.height - self._bottom, self.width - self._right
        parts = [f'<path class="axis" d="M{self._left} {self._top}V{base}H{end}"/>']
        for x in (log_ticks if self.log_x else ticks)(*self.x_range):
            parts.append(_text("tick", f"{x:g}", self._x(x), base + 11))
        for y in ticks(*self.y_range, about=4):
            parts.append(f'<path class="rule" d="M{self._left} {self._y(y):.1f}H{end}"/>')
            parts.append(_text("tick", f"{y:g}", self._left - 4, self._y(y) + 3, "end"))
        parts.append(_text("label", self.x_label, (self._left + end) / 2, self.height - 4))
        middle = (self._top + base) / 2
        parts.append(f'<g transform="translate(9 {middle:g}) rotate(-90)">{_text("label", self.y_label, 0, 0)}</g>')
        return "".join(parts)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point is in the drawing."""
        return self._x(x), self._y(y)

    @property
    def area(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what the axes enclose."""
        return self._left, self._top, self.width - self._right, self.height - self._bottom

    def _x(self, x: float) -> float:
        low, high = self.x_range
        if self.log_x:
            low, high, x = math.log10(low), math.log10(high), math.log10(x)
        return self._left + (x - low) / ((high - low) or 1.0) * (self.width - self._left - self._right)

    def _y(self, y: float) -> float:
        low, high = self.y_range
        share = min(max((y - low) / ((high - low) or 1.0), -0.02), 1.02)  # what leaves the chart is seen to leave it
        return self.height - self._bottom - share * (self.height - self._top - self._bottom)


def _text(style: str, text: str, x: float, y: float, anchor: str = "middle") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about so many."""
    rough = (high - low) / max(1, about)
    if rough <= 0 or not math.isfinite(rough):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """One, two and five times the powers of ten from ``low`` to ``high`` (positive)."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for power in powers for tick in (10.0**power, 2 * 10.0**power, 5 * 10.0**power) if low <= tick <= high]

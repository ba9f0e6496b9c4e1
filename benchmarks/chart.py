"""A line chart as SVG, with nothing but the standard library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 190, 40, 50
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")


def line_chart(title: str, x_axis: str, y_axis: str, lines: Mapping[str, Points]) -> str:
    """*lines* by name over a logarithmic x axis and a y axis from 0. A name that ends in ``*`` is dashed."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    top = _round_up(max(y for points in lines.values() for _, y in points))
    width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> str:
        share = math.log(x / xs[0]) / math.log(xs[-1] / xs[0]) if len(xs) > 1 else 0.5
        return f"{_LEFT + width * share:.1f},{_TOP + height * (1 - y / top):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(WIDTH / 2, 22, title, anchor="middle", size=15),
        _text(_LEFT + width / 2, HEIGHT - 12, x_axis, anchor="middle"),
        _text(12, _TOP - 10, y_axis),
    ]
    for step in range(5):
        value = top * step / 4
        left, height_there = at(xs[0], value).split(",")
        parts.append(f'<path d="M{left},{height_there} h{width}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 8, float(height_there) + 4, f"{value:g}", anchor="end"))
    parts += [_text(float(at(x, 0).split(",")[0]), HEIGHT - 32, f"{x:,.0f}", anchor="middle") for x in xs]
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number // 2 % len(_COLOURS)]
        dash = ' stroke-dasharray="6 4"' if name.endswith("*") else ""
        path = " ".join(at(x, y) for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        y = _TOP + 10 + 18 * number
        parts.append(
            f'<path d="M{WIDTH - _RIGHT + 12},{y - 4} h24" stroke="{colour}" stroke-width="2"{dash}/>'
        )
        parts.append(_text(WIDTH - _RIGHT + 42, y, name.rstrip("*")))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _round_up(value: float) -> float:
    """The next number of one digit and as many zeros as it takes; of 2, 4 or 8 for even steps."""
    size = 10.0 ** math.floor(math.log10(value))
    return next(size * digit for digit in (1, 2, 4, 8, 10) if size * digit >= value)

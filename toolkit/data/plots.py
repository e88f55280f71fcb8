"""Plots of a dataset as SVG, written by hand: they fit a page without any script or library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

WIDTH = 360
MOST_BARS = 120

Floats = NDArray[np.float64]


def bars(names: Sequence[str], train: Sequence[int], val: Sequence[int]) -> Markup:
    """A pair of bars for each class, the most frequent first."""
    order = sorted(range(len(names)), key=lambda i: (-train[i] - val[i], i))[:MOST_BARS]
    most = max([*train, *val, 1])
    room = min(130, 8 + 7 * max((_width(name) for name in names), default=4))
    scale = (WIDTH - room - 14 - 7 * len(f"{most} + {most}")) / most
    parts = []
    for place, i in enumerate(order):
        y = place * 18
        name = shortened(names[i], room)
        parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(room - 6, y + 12, name))
        for j, (kind, count) in enumerate((("t", train[i]), ("v", val[i]))):
            title = escape(f"{names[i]}: {count}")
            bar = '<rect class="{}" x="{}" y="{}" width="{:.1f}" height="6"><title>{}</title></rect>'
            parts.append(Markup(bar).format(kind, room, y + 2 + 7 * j, max(count * scale, 0.5), title))
        x = room + max(train[i], val[i]) * scale + 5
        parts.append(Markup('<text x="{:.1f}" y="{}">{} + {}</text>').format(x, y + 12, train[i], val[i]))
    return svg(len(order) * 18 + 4, parts)


def histogram(train: Floats, val: Floats, edges: Floats, labels: Sequence[str], axis: str) -> Markup:
    """Shares of the values between the edges, one label for each bin."""
    shares = [np.histogram(v.clip(edges[0], edges[-1]), edges)[0] / max(len(v), 1) for v in (train, val)]
    most = max(float(max(s.max(initial=0) for s in shares)), 1e-9)
    high, left = 130, 8
    step = (WIDTH - 2 * left) / len(labels)
    parts = []
    for i, label in enumerate(labels):
        for j, kind in enumerate("tv"):
            tall = shares[j][i] / most * high
            x = left + i * step + step * (0.1 + 0.4 * j)
            bar = '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{:.1%}</title></rect>'
            parts.append(Markup(bar).format(kind, x, 14 + high - tall, step * 0.38, tall, shares[j][i]))
        if label:
            text = '<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
            parts.append(Markup(text).format(left + (i + 0.5) * step, high + 30, label))
    parts.append(Markup('<text x="{}" y="11">{:.0%}</text>').format(left, most))
    parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(WIDTH - left, high + 46, axis))
    return svg(high + 52, parts)


def heat(x: Floats, y: Floats, cells: int = 18) -> Markup:
    """Where in the picture the centres lie; `x` and `y` in parts of its sides."""
    counts = np.histogram2d(y.clip(0, 1), x.clip(0, 1), bins=cells, range=[[0, 1], [0, 1]])[0]
    most = max(float(counts.max(initial=0)), 1.0)
    side = 240 / cells
    left = (WIDTH - 240) / 2
    parts = [
        Markup('<rect class="t" opacity="{:.3f}" x="{:.1f}" y="{:.1f}" width="{:.2f}" height="{:.2f}"></rect>').format(
            0.05 + 0.95 * counts[row, column] / most, left + column * side, 2 + row * side, side - 0.6, side - 0.6
        )
        for row in range(cells)
        for column in range(cells)
    ]
    return svg(246, parts)


def scatter(train: Floats, val: Floats, axis: str) -> Markup:
    """Widths and heights `[n, 2]` of pictures; larger dots where many are alike."""
    most = max(float(np.concatenate([train, val]).max(initial=1)), 1.0)
    left, high = 40, 200
    parts = []
    for kind, sizes in (("t", train), ("v", val)):
        places, counts = np.unique(np.round(sizes / most * 60), axis=0, return_counts=True)
        for (across, down), count in zip(places.tolist(), counts.tolist(), strict=True):
            x, y = left + across / 60 * (WIDTH - left - 20), 10 + high - down / 60 * high
            radius = 2.5 + 6 * (count / len(sizes)) ** 0.5
            dot = '<circle class="{}" opacity="0.55" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>'
            parts.append(Markup(dot).format(kind, x, y, radius, count))
    line = '<path d="M{0} 6V{1}H{2}" fill="none" stroke="currentColor" opacity="0.3"></path>'
    parts.append(Markup(line).format(left, high + 10, WIDTH - 12))
    text = '<text x="{}" y="{}" text-anchor="end">{:.0f}</text>'
    parts += [Markup(text).format(left - 4, 16, most), Markup(text).format(WIDTH - 20, high + 26, most)]
    parts.append(Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(WIDTH / 2, high + 26, axis))
    return svg(high + 34, parts)


def standing_alone(plot: Markup) -> str:
    """The plot as a file of its own."""
    style = "<style>text{font:11px sans-serif;fill:#555}.t{fill:#2f6fde}.v{fill:#e8862c}</style>"
    return str(plot).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(">", f">{style}", 1)


def svg(height: float, parts: Sequence[Markup]) -> Markup:
    """A plot `WIDTH` wide."""
    return Markup('<svg viewBox="0 0 {} {}" role="img">{}</svg>').format(WIDTH, height, Markup("").join(parts))


def _width(name: str) -> float:
    """In letters of the Latin alphabet."""
    return sum(1 if ord(c) < 0x2E80 else 1.8 for c in name)


def shortened(name: str, room: float) -> str:
    """The name, cut to what fits into `room` units."""
    most = (room - 8) / 6.2
    while _width(name) > most:
        name = name.rstrip("…")[:-1] + "…"
    return name

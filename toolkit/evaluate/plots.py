"""Plots of an evaluation as SVG, in the manner of `toolkit.data.plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from toolkit.data.plots import WIDTH, shortened, svg

HIGH = 210
LEFT, TOP, RIGHT = 34, 10, 12
STROKES = ("a", "b", "c", "d")
"""Classes of lines; the page gives their colours."""

Line = Sequence[tuple[float, float]]
Bar = tuple[str, float | None, float | None, float | None]
"""Name, value, and the ends of its interval."""


def lines(curves: Mapping[str, Line], across: str, up: str) -> Markup:
    """Curves from 0 to 1 on both axes, with their names beneath."""
    parts = [*_frame(across, up)]
    for i, (name, points) in enumerate(curves.items()):
        path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
        parts.append(Markup('<polyline class="line {}" points="{}"></polyline>').format(STROKES[i % 4], path))
        x, y = LEFT + 2 + (i % 2) * (WIDTH - LEFT) / 2, TOP + HIGH + 52 + 16 * (i // 2)
        key = '<line class="line {0}" x1="{1}" x2="{2}" y1="{3}" y2="{3}"></line><text x="{4}" y="{5}">{6}</text>'
        parts.append(Markup(key).format(STROKES[i % 4], x, x + 18, y - 4, x + 24, y, shortened(name, 150)))
    return svg(TOP + HIGH + 46 + 16 * ((len(curves) + 1) // 2) + 4, parts)


def reliability(bins: Sequence[Mapping[str, float | None]], across: str, up: str) -> Markup:
    """The share of right detections in each bin of scores; the diagonal is where both are alike."""
    parts = [*_frame(across, up)]
    step = 1 / max(len(bins), 1)
    for i, one in enumerate(bins):
        if one["right"] is None:
            continue
        bar = '<rect class="t" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{} – {:.0%}</title></rect>'
        x, y = _x(i * step) + 1, _y(one["right"])
        parts.append(Markup(bar).format(x, y, _x(step) - _x(0) - 2, max(_y(0) - y, 0.8), one["count"], one["right"]))
    diagonal = '<line class="line diagonal" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"></line>'
    parts.append(Markup(diagonal).format(_x(0), _y(0), _x(1), _y(1)))
    return svg(TOP + HIGH + 40, parts)


def bars(rows: Sequence[Bar], *, kind: str = "t", digits: int = 1) -> Markup:
    """Horizontal bars of shares in per cent, with their intervals as lines."""
    room = min(150.0, 10 + 7 * max((len(name) * (1.8 if not name.isascii() else 1) for name, *_ in rows), default=4))
    most = max([0.01, *(max(value or 0, high or 0) for _, value, _, high in rows)])
    scale = (WIDTH - room - 50) / most
    parts = []
    for i, (name, value, low, high) in enumerate(rows):
        y = i * 22
        parts.append(
            Markup('<text x="{:.0f}" y="{}" text-anchor="end">{}</text>').format(
                room - 6, y + 14, shortened(name, room)
            )
        )
        if value is not None:
            bar = '<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="12"></rect>'
            parts.append(Markup(bar).format(kind, room, y + 4, max(value * scale, 0.6)))
        if low is not None and high is not None:
            whisker = '<line class="line whisker" x1="{0:.1f}" x2="{1:.1f}" y1="{2}" y2="{2}"></line>'
            parts.append(Markup(whisker).format(room + low * scale, room + high * scale, y + 10))
        text = "–" if value is None else f"{100 * value:.{digits}f}"
        x = room + max(value or 0, high or 0) * scale + 6
        parts.append(Markup('<text x="{:.1f}" y="{}">{}</text>').format(x, y + 14, text))
    return svg(len(rows) * 22 + 4, parts)


def points(rows: Sequence[tuple[str, float, float, float | None, float | None]], across: str, up: str) -> Markup:
    """Names at their place: milliseconds to the right from 0, AP (0 to 1) up, with its interval."""
    most = max((x for _, x, *_ in rows), default=1) * 1.25
    low = min((y if below is None else below for _, _, y, below, _ in rows), default=0)
    high = max((y if above is None else above for _, _, y, _, above in rows), default=1)
    margin = max(0.02, 0.15 * (high - low))
    low, high = max(0.0, low - margin), min(1.0, high + margin)
    labels = (0.0, most), (100 * low, 100 * high)
    parts = [*_frame(across, up, *labels)]
    for i, (name, x, y, below, above) in enumerate(rows):
        px, py = _x(x / most), _y((y - low) / (high - low))
        if below is not None and above is not None:
            whisker = '<line class="line whisker" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"></line>'
            parts.append(Markup(whisker).format(px, _y((below - low) / (high - low)), _y((above - low) / (high - low))))
        dot = '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4.5"></circle>'
        parts.append(Markup(dot).format("v" if i else "t", px, py))
        end = px > WIDTH * 0.6
        text = '<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>'
        parts.append(
            Markup(text).format(px - 8 if end else px + 8, py - 6, "end" if end else "start", shortened(name, 200))
        )
    return svg(TOP + HIGH + 40, parts)


def _frame(across: str, up: str, xs: tuple[float, float] = (0, 1), ys: tuple[float, float] = (0, 1)) -> list[Markup]:
    """Axes, their ends and what they are of."""
    axes = '<path class="line axis" d="M{:.1f} {:.1f}V{:.1f}H{:.1f}"></path>'
    text = '<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>'
    return [
        Markup(axes).format(_x(0), _y(1), _y(0), _x(1)),
        *(
            Markup(text).format(x, y, anchor, label)
            for x, y, anchor, label in (
                (_x(0), _y(0) + 14, "start", f"{xs[0]:.3g}"),
                (_x(1), _y(0) + 14, "end", f"{xs[1]:.3g}"),
                ((_x(0) + _x(1)) / 2, _y(0) + 14, "middle", across),
                (_x(0) - 5, _y(0), "end", f"{ys[0]:.3g}"),
                (_x(0) - 5, _y(1) + 8, "end", f"{ys[1]:.3g}"),
            )
        ),
        Markup('<text transform="translate({:.1f} {:.1f}) rotate(-90)" text-anchor="middle">{}</text>').format(
            LEFT - 12, _y(0.5), up
        ),
    ]


def _x(part: float) -> float:
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def _y(part: float) -> float:
    return TOP + (1 - part) * HIGH

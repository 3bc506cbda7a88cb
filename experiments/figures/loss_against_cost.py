"""Loss against what a model costs: FLOPs per token, and parameters to be held."""

from typing import NamedTuple

from experiments.figures.axes import means, sheet
from experiments.figures.palette import MUTED, style
from experiments.results.record import Comparison
from experiments.text import number

PANELS = (
    ("flops_per_token", "active MFLOPs per token"),
    ("params_total", "total parameters (millions)"),
)
TOGETHER = 0.08  # of the axis, within which arms share a column of names
LINE = 0.075  # of the axis, from one name to the next
ROOM = 0.75  # of the axis, for the names to the right of the last arm


class Point(NamedTuple):
    """An arm at its true cost (millions) and loss."""

    arm: str
    x: float
    y: float
    sd: float


class LossAgainstCost:
    """Each arm at its cost, named beside it; names make room for each other, points never move."""

    title = "Loss against cost"

    def draw(self, comparison: Comparison):
        figure = sheet(3.5)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (key, label) in zip(panels, PANELS, strict=True):
            points = _points(comparison, key)
            if not points:
                return None
            for point in points:
                _mark(axes, comparison, point)
            _name(axes, comparison, points)
            axes.set_xlabel(label)
        panels[0].set_ylabel("validation loss (nats per token)")
        return figure

    def caption(self, comparison: Comparison) -> str:
        bars = "" if comparison.one_seed else " Bars are ± one standard deviation over seeds."
        return (
            "Left: of arms that stand above each other, at the same FLOPs per token, the lower "
            "makes more of them. Right: the same losses against what has to be held in memory."
            f"{bars} Names stand beside their points, joined by a line; points are where their "
            "cost is."
        )

    def alt(self, comparison: Comparison) -> str:
        return f"Validation loss: {means(comparison)}."


def _points(comparison: Comparison, key: str) -> list[Point]:
    return [
        Point(arm.name, getattr(arm, key) / 1e6, arm.val_loss.mean, arm.val_loss.sd or 0.0)
        for arm in comparison.arms.values()
        if arm.val_loss.mean is not None and not arm.seeds_diverged
    ]


def _mark(axes, comparison: Comparison, point: Point) -> None:
    colour, marker = style(comparison, point.arm)
    ends = [point.y - point.sd, point.y + point.sd]
    axes.plot([point.x, point.x], ends, color=colour, lw=1.2, alpha=0.6)
    axes.plot(point.x, point.y, marker, color=colour, ms=6.5)


def _name(axes, comparison: Comparison, points: list[Point]) -> None:
    """Names every point to the right of its column, and sets the limits that leave room."""
    low, high = min(p.x for p in points), max(p.x for p in points)
    width = (high - low) or high or 1.0
    axes.set_xlim(low - 0.12 * width, high + ROOM * width)
    bottom, top = axes.get_ylim()
    span, reach = top - bottom, (1.12 + ROOM) * width
    for column in _columns(points, TOGETHER * reach):
        x = max(point.x for point in column) + 0.06 * reach
        for point, y in zip(column, spread([p.y for p in column], LINE * span), strict=True):
            colour = style(comparison, point.arm).colour
            sd = f" ± {number(point.sd, 3)}" if point.sd else ""
            axes.plot([point.x, x], [point.y, y], color=MUTED, lw=0.6, zorder=1)
            axes.plot(x, y, style(comparison, point.arm).marker, color=colour, ms=4, zorder=3)
            axes.annotate(
                f"{point.arm}{sd}", (x, y), (5, 0), textcoords="offset points", va="center", size=8
            )


def _columns(points: list[Point], reach: float) -> list[list[Point]]:
    """Points whose costs are near each other, from the lowest loss up."""
    columns: list[list[Point]] = []
    for point in sorted(points, key=lambda point: point.x):
        if columns and point.x - columns[-1][0].x <= reach:
            columns[-1].append(point)
        else:
            columns.append([point])
    return [sorted(column, key=lambda point: point.y) for column in columns]


def spread(values: list[float], gap: float) -> list[float]:
    """Places near ascending values, at least a gap apart, with the same mean."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap) if places else value)
    shift = sum(v - p for v, p in zip(values, places, strict=True)) / len(values)
    return [place + shift for place in places]

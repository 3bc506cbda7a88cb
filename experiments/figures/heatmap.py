"""Heat maps of expert load: colour is the ratio to the even share 1/E, and even is no colour."""

import math

from experiments.figures.palette import RULE
from experiments.results.record import Routers

OVER, UNDER = "#d9730d", "#2b7bba"
DEEPEST = 0.82  # opacity at the end of the scale, so that ink stays legible on it
DEAD = 0.01  # share of 1/E below which an expert counts as dead
CROWDED = 34  # cells across the page above which they carry no number and hardly a border
SCALE_CELLS = 26  # width of the drawing in cells of its scale
SCALE_NAMES = {-3: "⅛ ×", -2: "¼ ×", -1: "½ ×", 0: "even", 1: "2 ×", 2: "4 ×", 3: "8 ×"}


def ratios(router: Routers, loads: list[list[float]]) -> list[list[float]]:
    """Shares of the assignments over the even share."""
    return [[share * router.num_experts for share in load] for load in loads]


def limit(matrices: list[list[list[float]]]) -> int:
    """End of the scale in powers of two: the smallest of 1, 2, 3 that holds 95 % of the excess.

    Cells below the even share do not count: their logarithm has no bottom.
    """
    cells = [_power(ratio) for rows in matrices for row in rows for ratio in row if ratio > 1]
    for end in (1, 2):
        if sum(cell <= end for cell in cells) >= 0.95 * len(cells):
            return end
    return 3


def _power(ratio: float) -> float:
    return math.log2(ratio) if ratio > 0 else -math.inf


def _colour(power: float, limit: int):
    from matplotlib.colors import to_rgba

    depth = DEEPEST * min(1.0, abs(power) / limit)
    return to_rgba(OVER if power > 0 else UNDER, depth)


def grid(figure, heights: list[float], columns: int, count: int) -> list:
    """The scale's axes over the whole width, then the panels row by row, rows of given height."""
    places = figure.add_gridspec(len(heights) + 1, columns, height_ratios=[0.17, *heights])
    panels = [figure.add_subplot(places[1 + i // columns, i % columns]) for i in range(count)]
    return [figure.add_subplot(places[0, :]), *panels]


def _cells(axes, rows: list[list[float]], limit: int) -> None:
    """Draws one square per value (powers of two) and sets the limits to the edge of the cells."""
    from matplotlib.collections import PolyCollection

    corners, colours = [], []
    for y, row in enumerate(rows):
        for x, power in enumerate(row):
            corners.append([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)])
            colours.append(_colour(power, limit))
    line = 0.7 if len(rows[0]) <= CROWDED else 0.1
    cells = PolyCollection(corners, facecolors=colours, edgecolors=RULE, linewidths=line)
    axes.add_collection(cells)
    axes.set(xlim=(0, len(rows[0])), ylim=(len(rows), 0))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def matrix(axes, rows: list[list[float]], labels: list[str], limit: int, columns: int = 2) -> None:
    """One heat map: rows of ratios to the even share; cells show percent where there is room."""
    experts = len(rows[0])
    _cells(axes, [[_power(ratio) for ratio in row] for row in rows], limit)
    axes.set_yticks([y + 0.5 for y in range(len(labels))], labels)
    every = max(1, math.ceil(experts * columns / 26))
    ticks = range(0, experts, every)
    axes.set_xticks([x + 0.5 for x in ticks], [str(x) for x in ticks])
    if experts * columns > CROWDED:
        return
    for y, row in enumerate(rows):
        for x, ratio in enumerate(row):
            text = "×" if ratio < DEAD else f"{100 * ratio / experts:.0f}"
            axes.text(x + 0.5, y + 0.54, text, ha="center", va="center", fontsize=7.5)


def scale(axes, limit: int) -> None:
    """Draws the colour scale: named powers of two with half steps between them."""
    powers = [step / 2 for step in range(-2 * limit, 2 * limit + 1)]
    _cells(axes, [powers], limit)
    marks = [i for i, power in enumerate(powers) if power == round(power)]
    names = [SCALE_NAMES[round(powers[i])] for i in marks]
    names[0], names[-1] = f"≤ {names[0]}", f"≥ {names[-1]}"
    axes.set_xticks([i + 0.5 for i in marks], names, fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(0, SCALE_CELLS)
    axes.set_title("share of tokens, against the even share 1/E", fontweight="normal", fontsize=8.5)

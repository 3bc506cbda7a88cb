"""Heat maps of expert load: colour is the ratio to the even share 1/E, and even is no colour."""

import math

from experiments.figures.palette import RULE

OVER, UNDER = "#d9730d", "#2b7bba"
DEEPEST = 0.82  # opacity at the end of the scale, so that ink stays legible on it
DEAD = 0.01  # share of 1/E below which an expert counts as dead
MAX_LAYERS = 4
CROWDED = 34  # cells across the page above which they carry no number and hardly a border
SCALE_CELLS = 26  # width of the drawing in cells of its scale
SCALE_NAMES = {-3: "⅛ ×", -2: "¼ ×", -1: "½ ×", 0: "even", 1: "2 ×", 2: "4 ×", 3: "8 ×"}


def expert_load(record: dict):
    """Load per expert and MoE layer, one panel per routed arm; None when no arm routes."""
    from matplotlib.figure import Figure

    arms = _routed(record)
    if not arms:
        return None
    columns = 1 if len(arms) == 1 else 2
    layers = [len(router["layers"]) for router in arms.values()]
    heights = [0.3 * max(layers[i : i + columns]) for i in range(0, len(arms), columns)]
    height = 0.75 + sum(heights) + 0.62 * len(heights)
    figure = Figure(figsize=(8.6, height), layout="constrained")
    limit = _limit([_ratios(router, router["load"]) for router in arms.values()])
    scale, *panels = _grid(figure, heights, columns, len(arms))
    _scale(scale, limit)
    for axes, (arm, router) in zip(panels, arms.items(), strict=True):
        labels = [f"layer {layer}" for layer in router["layers"]]
        _matrix(axes, _ratios(router, router["load"]), labels, limit, router["num_experts"])
        axes.set_title(arm)
        axes.set_xlabel("expert")
    return figure


def desks_by_expert(record: dict):
    """Share of each desk's tokens that each expert serves: a row per arm, a column per layer."""
    from matplotlib.figure import Figure

    arms = _routed(record)
    if not arms:
        return None
    chosen = {arm: shown_layers(router["layers"]) for arm, router in arms.items()}
    columns = max(len(layers) for layers in chosen.values())
    heights = [0.235 * len(router["desk_load"]) for router in arms.values()]
    height = 0.75 + sum(heights) + 0.55 * len(heights)
    figure = Figure(figsize=(8.6, height), layout="constrained")
    per_desk = {
        arm: {layer: _desk_ratios(router, layer) for layer in chosen[arm]}
        for arm, router in arms.items()
    }
    limit = _limit([rows for layers in per_desk.values() for rows in layers.values()])
    scale, *panels = _grid(figure, heights, columns, len(arms) * columns)
    _scale(scale, limit)
    for index, axes in enumerate(panels):
        arm = list(arms)[index // columns]
        place, router = index % columns, arms[arm]
        if place >= len(chosen[arm]):
            axes.set_axis_off()
            continue
        layer = chosen[arm][place]
        labels = list(router["desk_load"]) if place == 0 else [""] * len(router["desk_load"])
        experts = router["num_experts"]
        _matrix(axes, per_desk[arm][layer], labels, limit, experts, columns)
        axes.set_title(f"{arm}, layer {layer}")
    for axes in panels[-columns:]:
        axes.set_xlabel("expert")
    return figure


def shown_layers(layers: list[int]) -> list[int]:
    """At most MAX_LAYERS of the MoE layers, evenly spread, first and last always among them."""
    if len(layers) <= MAX_LAYERS:
        return layers
    step = (len(layers) - 1) / (MAX_LAYERS - 1)
    return [layers[round(step * i)] for i in range(MAX_LAYERS)]


def _routed(record: dict) -> dict[str, dict]:
    routers = {arm: record["arms"][arm]["router"] for arm in record["arm_order"]}
    return {arm: router for arm, router in routers.items() if router is not None}


def _ratios(router: dict, loads: list[list[float]]) -> list[list[float]]:
    return [[share * router["num_experts"] for share in load] for load in loads]


def _desk_ratios(router: dict, layer: int) -> list[list[float]]:
    place = router["layers"].index(layer)
    return _ratios(router, [loads[place] for loads in router["desk_load"].values()])


def _limit(matrices: list[list[list[float]]]) -> int:
    """End of the scale in powers of two: the smallest of 1, 2, 3 that holds 95 % of the excess.

    Cells below the even share do not count: their logarithm has no bottom.
    """
    cells = [_power(ratio) for rows in matrices for row in rows for ratio in row if ratio > 1]
    for limit in (1, 2):
        if sum(cell <= limit for cell in cells) >= 0.95 * len(cells):
            return limit
    return 3


def _power(ratio: float) -> float:
    return math.log2(ratio) if ratio > 0 else -math.inf


def _colour(power: float, limit: int):
    from matplotlib.colors import to_rgba

    depth = DEEPEST * min(1.0, abs(power) / limit)
    return to_rgba(OVER if power > 0 else UNDER, depth)


def _grid(figure, heights: list[float], columns: int, count: int) -> list:
    """The scale's axes over the whole width, then the panels row by row, rows of given height."""
    grid = figure.add_gridspec(len(heights) + 1, columns, height_ratios=[0.17, *heights])
    panels = [figure.add_subplot(grid[1 + i // columns, i % columns]) for i in range(count)]
    return [figure.add_subplot(grid[0, :]), *panels]


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


def _matrix(axes, ratios, labels: list[str], limit: int, experts: int, columns: int = 2) -> None:
    """One heat map: rows of ratios to the even share; cells show percent where there is room."""
    _cells(axes, [[_power(ratio) for ratio in row] for row in ratios], limit)
    axes.set_yticks([y + 0.5 for y in range(len(labels))], labels)
    every = max(1, math.ceil(experts * columns / 26))
    ticks = range(0, experts, every)
    axes.set_xticks([x + 0.5 for x in ticks], [str(x) for x in ticks])
    if experts * columns > CROWDED:
        return
    for y, row in enumerate(ratios):
        for x, ratio in enumerate(row):
            text = "×" if ratio < DEAD else f"{100 * ratio / experts:.0f}"
            axes.text(x + 0.5, y + 0.54, text, ha="center", va="center", fontsize=7.5)


def _scale(axes, limit: int) -> None:
    """The colour scale: named powers of two with half steps between them."""
    powers = [step / 2 for step in range(-2 * limit, 2 * limit + 1)]
    _cells(axes, [powers], limit)
    marks = [i for i, power in enumerate(powers) if power == round(power)]
    names = [SCALE_NAMES[round(powers[i])] for i in marks]
    names[0], names[-1] = f"≤ {names[0]}", f"≥ {names[-1]}"
    axes.set_xticks([i + 0.5 for i in marks], names, fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(0, SCALE_CELLS)
    axes.set_title("share of tokens, against the even share 1/E", fontweight="normal", fontsize=8.5)

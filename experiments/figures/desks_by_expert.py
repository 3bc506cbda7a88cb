"""Which experts serve which desk."""

from experiments.figures import heatmap
from experiments.figures.axes import routers, sheet
from experiments.results.record import Comparison, Routers
from experiments.text import listing

MAX_LAYERS = 4


class DesksByExpert:
    """Heat maps: a row of panels per arm that routes, a column per layer; rows are desks."""

    title = "Which desks each expert serves"

    def draw(self, comparison: Comparison):
        arms = routers(comparison)
        if not arms:
            return None
        chosen = {arm: shown_layers(router.layers) for arm, router in arms.items()}
        columns = max(len(layers) for layers in chosen.values())
        heights = [0.235 * len(router.desk_load) for router in arms.values()]
        figure = sheet(0.75 + sum(heights) + 0.55 * len(heights))
        panels_of = {
            arm: [_desk_ratios(router, layer) for layer in chosen[arm]]
            for arm, router in arms.items()
        }
        end = heatmap.limit([rows for panels in panels_of.values() for rows in panels])
        scale, *panels = heatmap.grid(figure, heights, columns, len(arms) * columns)
        heatmap.scale(scale, end)
        for index, axes in enumerate(panels):
            arm, place = list(arms)[index // columns], index % columns
            if place >= len(chosen[arm]):
                axes.set_axis_off()
                continue
            labels = [desk if place == 0 else "" for desk in arms[arm].desk_load]
            heatmap.matrix(axes, panels_of[arm][place], labels, end, columns)
            axes.set_title(f"{arm}, layer {chosen[arm][place]}")
        for axes in panels[-columns:]:
            axes.set_xlabel("expert")
        return figure

    def caption(self, comparison: Comparison) -> str:
        caption = (
            "Percent of a desk's tokens that each expert takes; each row sums to 100. Colour as "
            "above. Rows that look alike mean that experts do not follow the desk; a coloured cell "
            "is an expert that serves this desk more or less than an even split would."
        )
        if any(len(router.layers) > MAX_LAYERS for router in routers(comparison).values()):
            caption += f" {MAX_LAYERS} layers of each arm are shown."
        return caption

    def alt(self, comparison: Comparison) -> str:
        peaks = {arm: router.peak for arm, router in routers(comparison).items()}
        strongest = [
            f"{arm} {100 * peak.share:.0f} % of {peak.desk} to expert {peak.expert} of layer "
            f"{peak.layer}"
            for arm, peak in peaks.items()
            if peak.share
        ]
        return f"Strongest ties: {listing(strongest)}."


def shown_layers(layers: tuple[int, ...]) -> list[int]:
    """At most MAX_LAYERS of the MoE layers, evenly spread, first and last always among them."""
    if len(layers) <= MAX_LAYERS:
        return list(layers)
    step = (len(layers) - 1) / (MAX_LAYERS - 1)
    return [layers[round(step * i)] for i in range(MAX_LAYERS)]


def _desk_ratios(router: Routers, layer: int) -> list[list[float]]:
    place = router.layers.index(layer)
    return heatmap.ratios(router, [loads[place] for loads in router.desk_load.values()])

"""Load per expert and MoE layer."""

from experiments.figures import heatmap
from experiments.figures.axes import routers, sheet
from experiments.results.record import Comparison
from experiments.text import listing


class ExpertLoad:
    """A heat map for each arm that routes: rows are layers."""

    title = "Load per expert"

    def draw(self, comparison: Comparison):
        arms = routers(comparison)
        if not arms:
            return None
        columns = 1 if len(arms) == 1 else 2
        layers = [len(router.layers) for router in arms.values()]
        heights = [0.3 * max(layers[i : i + columns]) for i in range(0, len(arms), columns)]
        figure = sheet(0.75 + sum(heights) + 0.62 * len(heights))
        ratios = {arm: heatmap.ratios(router, router.load) for arm, router in arms.items()}
        end = heatmap.limit(list(ratios.values()))
        scale, *panels = heatmap.grid(figure, heights, columns, len(arms))
        heatmap.scale(scale, end)
        for axes, (arm, router) in zip(panels, arms.items(), strict=True):
            labels = [f"layer {layer}" for layer in router.layers]
            heatmap.matrix(axes, ratios[arm], labels, end)
            axes.set_title(arm)
            axes.set_xlabel("expert")
        return figure

    def caption(self, comparison: Comparison) -> str:
        shown = {router.shown_seed for router in routers(comparison).values()}
        seeds = listing([str(seed) for seed in sorted(shown)])
        one = (
            ""
            if comparison.one_seed
            else f"One seed is shown ({seeds}), because expert numbers mean nothing across seeds. "
        )
        return (
            "Percent of the held-out tokens' assignments that each expert takes, per MoE layer. No "
            "colour is the even share 1/E, orange is more and blue is less; × marks a dead expert. "
            f"{one}Even rows say that load is balanced over all text together; they do not say "
            "that a given token or desk is spread evenly, which is the next figure."
        )

    def alt(self, comparison: Comparison) -> str:
        parts = [f"{a} {', '.join(r.told())}" for a, r in routers(comparison).items()]
        return f"Heat map of load per expert: {listing(parts)}."

"""Differences to the baseline against the length of training, each length with its own decay."""

from experiments.figures.axes import legend, sheet
from experiments.figures.palette import INK, style
from experiments.results.record import Comparison
from experiments.text import listing, number


class LossByLength:
    """A line of each arm over whole runs of several lengths, with its 95 % intervals."""

    title = "Loss by length of training"

    def draw(self, comparison: Comparison):
        lengths = comparison.by_length()
        arms = [arm.name for arm in comparison.others if arm.difference]
        if len(lengths) < 2 or not arms:
            return None
        figure = sheet(3.9)
        axes = figure.subplots()
        for place, name in enumerate(arms):
            _line(axes, comparison, name, 1 + 0.012 * (place - (len(arms) - 1) / 2))
        axes.axhline(0, color=INK, lw=1)
        axes.set_xscale("log")
        axes.minorticks_off()
        millions = [tokens / 1e6 for tokens, _ in lengths]
        axes.set_xticks(millions, [f"{count:.3g}" for count in millions])
        axes.set(xlabel="training tokens of a whole run (millions)")
        axes.set_ylabel(f"nats per token minus {comparison.baseline}")
        legend(figure, axes)
        return figure

    def caption(self, comparison: Comparison) -> str:
        return (
            f"Paired difference in validation loss to {comparison.baseline} after whole runs of "
            "each length, with 95 % t intervals. Points of one length share an order from left to "
            "right, so that bars do not lie on each other; the learning rate was tuned once."
        )

    def alt(self, comparison: Comparison) -> str:
        ends = [
            f"{name} {listing([number(gap, sign=True) for _, gap, _, _ in found])}"
            for name in (arm.name for arm in comparison.others)
            if (found := _points(comparison, name))
        ]
        return f"Difference to {comparison.baseline} by length: {'; '.join(ends)}."


def _points(comparison: Comparison, name: str) -> list[tuple[float, float, float, float]]:
    """Millions of tokens, mean difference, and what its interval has below and above."""
    found = []
    for tokens, each in comparison.by_length():
        gap = each.arms[name].difference if name in each.arms else None
        if gap is not None and gap.mean is not None:
            low, high = (gap.mean if end is None else end for end in (gap.low, gap.high))
            found.append((tokens / 1e6, gap.mean, gap.mean - low, high - gap.mean))
    return found


def _line(axes, comparison: Comparison, name: str, aside: float) -> None:
    found = _points(comparison, name)
    if not found:
        return
    colour, marker = style(comparison, name)
    x, y, below, above = map(list, zip(*found, strict=True))
    shown = {"color": colour, "ms": 4, "lw": 1.2, "elinewidth": 1, "capsize": 2, "label": name}
    axes.errorbar([aside * at for at in x], y, yerr=[below, above], fmt=f"{marker}-", **shown)

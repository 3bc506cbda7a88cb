"""Differences to the baseline on all text and on each desk."""

from experiments.figures.axes import NARROW, legend, sheet
from experiments.figures.palette import INK, RULE, style
from experiments.results.record import Arm, Comparison
from experiments.text import listing, number

ALL = "all text"


class LossByDesk:
    """Dot plot: paired difference to the baseline, all text first, then each desk."""

    title = "Loss by desk"

    def draw(self, comparison: Comparison):
        arms = _compared(comparison)
        if not arms:
            return None
        groups = [ALL, *_desks(arms)]
        pitch = len(arms) + 1.4
        figure = sheet(1.0 + 0.14 * pitch * len(groups), NARROW)
        axes = figure.subplots()
        for row, arm in enumerate(arms):
            _row(axes, comparison, arm, [group * pitch + row for group in range(len(groups))])
        axes.axvline(0, color=INK, lw=1)
        middle = (len(arms) - 1) / 2
        axes.set_yticks([group * pitch + middle for group in range(len(groups))], groups)
        for group in range(0, len(groups), 2):
            start = group * pitch - (pitch - len(arms) + 1) / 2
            axes.axhspan(start, start + pitch, color=RULE, alpha=0.35, lw=0)
        axes.set_ylim(len(groups) * pitch - 1.2, -1.2)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"nats per token minus {comparison.baseline} (left is better)")
        legend(figure, axes, columns=3)
        return figure

    def caption(self, comparison: Comparison) -> str:
        what = f"aired difference in validation loss to {comparison.baseline}"
        where = (
            f"on all held-out text and on each of the {len(_desks(_compared(comparison)))} desks"
        )
        if comparison.one_seed:
            return f"P{what}, {where}."
        return (
            f"Mean p{what}, with its 95 % t interval, {where}. An interval that crosses the line "
            "is no evidence of a difference. Intervals are not corrected for the number of desks; "
            "the sentence above is."
        )

    def alt(self, comparison: Comparison) -> str:
        gaps = [
            f"{arm.name} {number(arm.difference.mean, sign=True)}" for arm in _compared(comparison)
        ]
        return f"Difference to {comparison.baseline} on all text: {listing(gaps)}."


def _compared(comparison: Comparison) -> list[Arm]:
    return [arm for arm in comparison.others if arm.difference]


def _desks(arms: list[Arm]) -> list[str]:
    return list(dict.fromkeys(desk for arm in arms for desk in arm.desk_difference))


def _row(axes, comparison: Comparison, arm: Arm, places: list[float]) -> None:
    """The dots of one arm, one in each group that it has a difference for."""
    colour, marker = style(comparison, arm.name)
    differences = {ALL: arm.difference, **arm.desk_difference}
    names = [ALL, *_desks(_compared(comparison))]
    for name, y in zip(names, places, strict=True):
        one = differences.get(name)
        if one is None:
            continue
        if one.low is not None:
            axes.plot([one.low, one.high], [y, y], color=colour, lw=1.6)
        label = arm.name if name == ALL else ""
        axes.plot(one.mean, y, marker, color=colour, ms=5.5, label=label)

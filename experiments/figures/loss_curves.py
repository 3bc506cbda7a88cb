"""Loss over training: every arm, and each arm minus the baseline."""

from collections.abc import Mapping

from experiments.figures.axes import floats, legend, means, millions, sheet
from experiments.figures.palette import INK, MUTED, style
from experiments.results.record import Arm, Band, Comparison
from experiments.text import listing, number

START = 0.03  # of training that is off the top, where every arm falls alike
EARLY = 0.2  # of training that does not set the scale of the differences
FAR = 0.1  # of the curves' range, by which a level may lie outside it and still be on the axis
REFERENCES = (("unigram_nats", "unigram entropy"), ("fivegram_nats", "5-gram model"))


class LossCurves:
    """Training and validation loss on the left; paired differences to the baseline on the right."""

    title = "Loss during training"

    def draw(self, comparison: Comparison):
        arms = _shown(comparison)
        if not arms:
            return None
        figure = sheet(4.1)
        loss, gap = figure.subplots(1, 2, width_ratios=[1, 1])
        off = _off_the_panel(comparison)
        for name, arm in arms.items():
            _losses(loss, comparison, arm)
            if name != comparison.baseline and name not in off:
                _difference(gap, comparison, arm)
        _limit_loss(loss, arms)
        _references(loss, comparison)
        _limit_differences(gap, comparison, off)
        gap.axhline(0, color=INK, lw=1)
        loss.set(xlabel="training tokens (millions)", ylabel="nats per token", title="Loss")
        gap.set(xlabel="training tokens (millions)", ylabel="nats per token")
        gap.set_title(f"Validation loss minus {comparison.baseline}")
        legend(figure, loss)
        return figure

    def caption(self, comparison: Comparison) -> str:
        base = comparison.baseline
        band = "" if comparison.one_seed else "; the band spans the lowest to the highest seed"
        left = (
            f"Left: training loss (line, running mean) and validation loss (markers){band}; the "
            "first 3 % of training is off the top"
        )
        off = [name for _, name, _ in _levels_off(comparison)]
        beyond = (
            f" The {listing(off)} {'lie' if len(off) > 1 else 'lies'} beyond the axis; its edge"
        )
        left += f".{beyond} says where." if off else "."
        right = (
            f" Right: validation loss minus that of {base} at the same seed and step, before "
            "the end on a part of the held-out windows, which is where arms that lie on top of "
            "each other on the left come apart."
        )
        for arm in _off_the_panel(comparison).values():
            end = number(arm.curve.eval_difference.mean[-1], 3, sign=True)
            right += (
                f" {arm.name} would take more than half of the axis and is left off it; it ends "
                f"at {end}."
            )
        look = (
            " Where the learning rate falls along the axis, points along a curve are at different "
            "rates and compare with those above and below them alone; a curve on the right that "
            "still moves at its end says that a longer run may rank the arms differently."
        )
        return left + right + look

    def alt(self, comparison: Comparison) -> str:
        return f"Loss over training tokens per arm. Final validation loss: {means(comparison)}."


def _shown(comparison: Comparison) -> dict[str, Arm]:
    return {name: arm for name, arm in comparison.arms.items() if arm.curve.train.tokens}


def _smooth(values: tuple, share: float = 0.05) -> list[float]:
    """Centred running mean over about that share of the points; a gap stays a gap."""
    import numpy

    values = numpy.array(floats(values))
    half = int(share * len(values) / 2)
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [float(window.mean()) for window in windows]


def _losses(axes, comparison: Comparison, arm: Arm) -> None:
    colour, marker = style(comparison, arm.name)
    train, points = arm.curve.train, arm.curve.eval
    label = arm.name if arm.curve.finished else f"{arm.name} (unfinished)"
    x, low, high = millions(train.tokens), _smooth(train.low), _smooth(train.high)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    axes.plot(x, _smooth(train.mean), color=colour, lw=1.2)
    x = millions(points.tokens)
    axes.plot(x, floats(points.mean), marker, color=colour, ms=3.5, label=label)


def _difference(axes, comparison: Comparison, arm: Arm) -> None:
    (colour, marker), band = style(comparison, arm.name), arm.curve.eval_difference
    x, low, high = millions(band.tokens), floats(band.low), floats(band.high)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    axes.plot(x, floats(band.mean), marker + "-", color=colour, ms=4, lw=1.2)


def _range(arms: Mapping[str, Arm]) -> tuple[float, float] | None:
    """Lowest and highest of the loss curves after the start."""
    last = max(arm.curve.train.tokens[-1] for arm in arms.values())
    values = [
        value
        for arm in arms.values()
        for band in (arm.curve.train, arm.curve.eval)
        for tokens, *ends in zip(band.tokens, band.mean, band.low, strict=True)
        if tokens >= START * last
        for value in ends
        if value is not None
    ]
    tops = [
        value
        for arm in arms.values()
        for tokens, value in zip(arm.curve.train.tokens, arm.curve.train.mean, strict=True)
        if tokens >= START * last and value is not None
    ]
    return (min(values), max(tops)) if tops and max(tops) > min(values) else None


def _limit_loss(axes, arms: Mapping[str, Arm]) -> None:
    axes.set_xlim(left=0)
    if ends := _range(arms):
        axes.set_ylim(ends[0] - FAR * (ends[1] - ends[0]), ends[1])


def _levels_off(comparison: Comparison) -> list[tuple[float, str, bool]]:
    """Count-based levels that the axis does not reach, and whether they lie above it."""
    ends = _range(_shown(comparison))
    found = []
    for key, name in REFERENCES:
        level = comparison.baselines.get(key)
        if level is not None and ends:
            bottom = ends[0] - FAR * (ends[1] - ends[0])
            if not bottom <= level <= ends[1]:
                found.append((level, name, level > ends[1]))
    return found


def _references(axes, comparison: Comparison) -> None:
    """Unigram entropy and 5-gram loss: lines, or words at the edge beyond which they lie."""
    off = _levels_off(comparison)
    small = {"color": MUTED, "fontsize": 8}
    for level, name, above in off:
        text = f"{name} {number(level, 2)} {'↑' if above else '↓'}"
        place, side = (0.99, 0.985) if above else (0.02, 0.015), "right" if above else "left"
        vertical = "top" if above else "bottom"
        axes.text(*place, text, transform=axes.transAxes, ha=side, va=vertical, **small)
    middle = sum(axes.get_ylim()) / 2
    for key, name in REFERENCES:
        level = comparison.baselines.get(key)
        if level is None or name in [one[1] for one in off]:
            continue
        axes.axhline(level, color=MUTED, lw=0.9, ls=(0, (4, 3)))
        above = level > middle
        axes.annotate(
            name,
            (0.99 if above else 0.02, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2 if above else -2),
            textcoords="offset points",
            ha="right" if above else "left",
            va="bottom" if above else "top",
            **small,
        )


def _settled(band: Band, last: int) -> list[float]:
    """Ends of a band after the early part of training."""
    ends = zip(band.tokens, band.low, band.high, strict=True)
    return [
        end
        for tokens, low, high in ends
        if tokens >= EARLY * last and low is not None
        for end in (low, high)
    ]


def _differences(comparison: Comparison) -> dict[str, list[float]]:
    """Of each arm that has some, the values that set the scale."""
    bands = {arm.name: arm.curve.eval_difference for arm in comparison.others}
    last = max((band.tokens[-1] for band in bands.values() if band.tokens), default=0)
    values = {name: _settled(band, last) for name, band in bands.items()}
    return {name: found for name, found in values.items() if found}


def _off_the_panel(comparison: Comparison) -> dict[str, Arm]:
    """The arm without which the axis would be less than half as long, where others remain."""
    values = _differences(comparison)

    def span(names) -> float:
        ends = [0.0, *(value for name in names for value in values[name])]
        return max(ends) - min(ends)

    whole = span(values)
    for name in values:
        rest = span(set(values) - {name})
        if 0 < rest < whole / 2:
            return {name: comparison.arms[name]}
    return {}


def _limit_differences(axes, comparison: Comparison, off: Mapping[str, Arm]) -> None:
    """Fits what is on the panel; an arm that is not is named at the edge beyond which it lies."""
    found = _differences(comparison)
    ends = [0.0, *(value for name in found if name not in off for value in found[name])]
    margin = 0.06 * (max(ends) - min(ends))
    if margin > 0:
        axes.set_ylim(min(ends) - margin, max(ends) + margin)
    axes.set_xlim(left=0)
    for name, arm in off.items():
        end = arm.curve.eval_difference.mean[-1]
        above = end is not None and end > 0
        text = f"{name} {number(end, 3, sign=True)} {'↑' if above else '↓'}"
        place, vertical = (0.98, 0.985 if above else 0.015), "top" if above else "bottom"
        colour = style(comparison, name).colour
        axes.text(*place, text, transform=axes.transAxes, ha="right", va=vertical, color=colour)

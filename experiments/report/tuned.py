"""What tuning found in each arm, and what every value came to."""

from experiments.results.record import Comparison
from experiments.results.tuning import Choice
from experiments.text import NONE


def sentences(comparison: Comparison) -> list[str]:
    """How the arms were tuned, and every arm whose best value is the last that was tried."""
    choices = comparison.tuned
    if not choices:
        return []
    first, seeds = choices[0], len(next(iter(choices[0].losses.values())))
    lines = [
        f"Tuned alike before the runs: {' and '.join(dict.fromkeys(one.path for one in choices))}, "
        f"each value on {seeds} seeds of {first.steps:,} steps that no run has."
    ]
    for one in choices:
        if one.at_edge:
            end = "highest" if one.at_edge > 0 else "lowest"
            lines.append(
                f"{one.arm}: its {one.path}={one.value:g} is the {end} that was tried, so its best "
                "may lie beyond."
            )
    return lines


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: per arm what it took, and the mean loss of every value."""
    choices = comparison.tuned
    tried = sorted({value for one in choices for value in one.losses})
    heads = ["Arm", "Field", "Taken", *(f"{value:g}" for value in tried)]
    return heads, [
        [one.arm, one.path, f"{one.value:g}", *(_cell(one, value) for value in tried)]
        for one in choices
    ]


def lines(comparison: Comparison) -> list[str]:
    """What each value came to, a line for each arm and field."""
    return [
        f"{one.arm}: {one.path}={one.value:g} of "
        + ", ".join(f"{value:g} ({_cell(one, value)})" for value in one.tried)
        for one in comparison.tuned
    ]


def _cell(choice: Choice, value: float) -> str:
    if value not in choice.losses:
        return NONE
    return "diverged" if None in choice.losses[value] else f"{choice.mean(value):.4f}"

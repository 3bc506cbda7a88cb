"""How differences to the baseline change with the length of training, each with its own decay."""

from typing import Any

from experiments.results.record import Arm, Comparison, plain
from experiments.text import NONE, bracketed, number


def heads(comparison: Comparison) -> list[str]:
    """The columns: what is told, and the tokens of each length."""
    return ["", *(f"{tokens / 1e6:.3g} M tokens" for tokens, _ in comparison.by_length())]


def rows(comparison: Comparison) -> list[list[str]]:
    """Of each arm its difference at every length, then its place on each scale.

    None where the study has one length.
    """
    lengths = [each for _, each in comparison.by_length()]
    if len(lengths) < 2:
        return []
    names = [arm.name for arm in comparison.others]
    found = [[name, *(_gap(each.arms.get(name)) for each in lengths)] for name in names]
    for scale in comparison.declared.scales:
        for name in names:
            places = [_place(each.arms.get(name), scale.name) for each in lengths]
            if set(places) != {NONE}:
                found.append([f"{name}: {scale.name}", *places])
    return found


def lines(comparison: Comparison) -> list[str]:
    """The rows as lines of text."""
    titles = heads(comparison)[1:]
    return [
        f"{name}: {', '.join(map(' at '.join, zip(cells, titles, strict=True)))}"
        for name, *cells in rows(comparison)
    ]


def content(comparison: Comparison) -> list[dict[str, Any]]:
    """The numbers behind the rows, as results.json holds them."""
    return [
        {
            "tokens": tokens,
            "differences": {arm.name: plain(arm.difference) for arm in each.others},
            "scales": {arm.name: plain(arm.scales) for arm in each.others},
        }
        for tokens, each in (comparison.by_length() if comparison.shorter else ())
    ]


def _gap(arm: Arm | None) -> str:
    found = arm and arm.difference
    if not found or found.mean is None:
        return NONE
    return number(found.mean, 3, sign=True) + bracketed(found.low, found.high, 3)


def _place(arm: Arm | None, scale: str) -> str:
    found = arm and arm.scales.get(scale)
    if not found or found.value is None:
        return NONE
    return number(found.value, 2) + bracketed(found.low, found.high, 2, sign=False)

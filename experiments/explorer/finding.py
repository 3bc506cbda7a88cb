"""The sentence that the page opens with, and the example that shows it; both are counted."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.explorer.given import Given
from experiments.explorer.pairs import Pair
from experiments.explorer.passages import Passage
from experiments.text import listing, percent, shown
from moe.analysis.trace import LayerTrace, Trace

WORDS = 5


class Finding(NamedTuple):
    """What the page opens on: runs and depth by number, a passage and a token in it.

    Attributes:
      mode: "disagree", or "expert" where there is one run.
      expert: of the first run, shown at once; None shows the token.
    """

    sentence: str
    runs: tuple[int, int]
    depth: int
    passage: Passage
    token: int
    mode: str
    expert: int | None


class Run(NamedTuple):
    """A trace, its number among all, and what the page calls it."""

    trace: Trace
    number: int
    name: str


def between(one: Run, other: Run, pairs: Mapping[int, Pair], found: Sequence[Passage]) -> Finding:
    """Where two runs disagree most: the layer, in it the passage, in it the token.

    Args:
      one, other: the two.
      pairs: theirs, by depth.
      found: every passage of the text.
    """
    a, b = one.trace, other.trace
    depth = min(pairs, key=lambda depth: (pairs[depth].agreement, depth))
    differs_T = ~pairs[depth].same_T
    legible = _legible(a, found)
    passage = max(legible, key=lambda p: (differs_T[p.start : p.stop].mean(), -p.start))
    gap_T = np.nan_to_num(np.abs(a.loss_T - b.loss_T)) * differs_T
    token = int(gap_T[passage.start : passage.stop].argmax())
    share, null = 1 - pairs[depth].agreement, 1 - pairs[depth].null
    sentence = (
        f"In layer {depth}, {one.name} and {other.name} send {percent(share)} of the tokens to "
        f"different experts, matched as well as can be (shuffled: {percent(null)})"
        f"{_extremes(a, differs_T)}."
    )
    return Finding(sentence, (one.number, other.number), depth, passage, token, "disagree", None)


def _extremes(trace: Trace, differs_T: np.ndarray) -> str:
    """On which desk most and least, where there are several."""
    shares = {
        name: float(differs_T[trace.desk_T == desk].mean())
        for desk, name in enumerate(trace.about.desks)
        if (trace.desk_T == desk).any()
    }
    if len(shares) < 2:
        return ""
    most, least = max(shares, key=lambda d: shares[d]), min(shares, key=lambda d: shares[d])
    return (
        f", most on {most} ({percent(shares[most])}), least on {least} ({percent(shares[least])})"
    )


def within(one: Run, given: Mapping[int, Given], found: Sequence[Passage]) -> Finding:
    """The expert whose share of one desk stands highest over its share of all, and its words."""
    trace = one.trace
    gaps = {
        (depth, e): float((had.share_YE[:, e] - had.share_E[e]).max(initial=0))
        for depth, had in given.items()
        for e in range(len(had.share_E))
    }
    depth, e = max(gaps, key=lambda key: gaps[key])
    layer = next(layer for layer in trace.layers if layer.layer == depth)
    had = given[depth]
    served_T = _served(layer, e)
    legible = _legible(trace, found)
    passage = max(legible, key=lambda p: (served_T[p.start : p.stop].mean(), -p.start))
    token = int(served_T[passage.start : passage.stop].argmax())
    words = told(trace, had.top_EM[e][:WORDS])
    served = f", above all {listing(words)}" if words else ""
    where = ""
    if gaps[depth, e] > 0:
        y = int(had.share_YE[:, e].argmax())
        where = f" and {percent(had.share_YE[y, e])} of those on {trace.about.desks[y]}"
    sentence = (
        f"In layer {depth} of {one.name}, expert {e} serves {percent(had.share_E[e])} of all "
        f"choices{where}{served}."
    )
    return Finding(sentence, (one.number, one.number), depth, passage, token, "expert", e)


def _legible(trace: Trace, found: Sequence[Passage]) -> Sequence[Passage]:
    """Passages whose tokens are whole characters but for one in fifty; all, where none are."""
    broken_V = np.array(["\ufffd" in text for text in trace.about.vocabulary])
    broken_T = broken_V[trace.id_T]
    return [p for p in found if broken_T[p.start : p.stop].mean() <= 0.02] or found


def _served(layer: LayerTrace, e: int) -> np.ndarray:
    return (layer.expert_TK == e).any(1)


def told(trace: Trace, ids: np.ndarray) -> list[str]:
    """The texts of ids as a reader sees them, in quotation marks; -1 is left out."""
    return [f"“{shown(trace.about.vocabulary[i])}”" for i in ids if i >= 0]

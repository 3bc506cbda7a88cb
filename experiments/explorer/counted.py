"""What is counted over a whole text, before tokens are chosen for a page."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from experiments.explorer.finding import Finding, Run, between, within
from experiments.explorer.given import Given, given
from experiments.explorer.pairs import Pair, pair
from experiments.explorer.passages import Passage, passages
from moe.analysis.trace import Trace
from moe.registry import Mistake

MOST = 12  # ids of an expert's table


class Read(NamedTuple):
    """The counts of several traces of one text.

    Attributes:
      traces: those with experts.
      names: what each is called, without the study where all are of one.
      without: labels of those that have none.
      depths: layers of any of them, rising.
      given: of each trace by depth.
      pairs: of two traces by depth, where both have experts.
      found: every passage.
      finding: what the page opens on.
    """

    traces: tuple[Trace, ...]
    names: tuple[str, ...]
    without: tuple[str, ...]
    depths: tuple[int, ...]
    given: tuple[dict[int, Given], ...]
    pairs: dict[tuple[int, int], dict[int, Pair]]
    found: list[Passage]
    finding: Finding


def read(traces: Sequence[Trace]) -> Read:
    """Counts and matches all; raises Mistake unless the traces are of one text, with experts."""
    _check(traces)
    kept = tuple(trace for trace in traces if trace.layers)
    without = tuple(trace.about.label for trace in traces if not trace.layers)
    layers = [{layer.layer: layer for layer in trace.layers} for trace in kept]
    found = passages(kept[0])
    counted = tuple(
        {depth: given(trace, layer, MOST) for depth, layer in by_depth.items()}
        for trace, by_depth in zip(kept, layers, strict=True)
    )
    pairs = {
        (i, j): {d: pair(layers[i][d], layers[j][d]) for d in layers[i] if d in layers[j]}
        for i, j in combinations(range(len(kept)), 2)
    }
    names = _names(kept)
    called = [Run(trace, i, name) for i, (trace, name) in enumerate(zip(kept, names, strict=True))]
    opens = _opens(kept, pairs)
    if opens is None:
        finding = within(called[0], counted[0], found)
    else:
        finding = between(called[opens[0]], called[opens[1]], pairs[opens], found)
    depths = tuple(sorted({depth for by_depth in layers for depth in by_depth}))
    return Read(kept, names, without, depths, counted, pairs, found, finding)


def _check(traces: Sequence[Trace]) -> None:
    if not any(trace.layers for trace in traces):
        raise Mistake("the explorer: no trace of a model with experts, needs one at least")
    first, *others = traces
    if not first.tokens:
        raise Mistake(f"{first.about.label}: its trace has no tokens")
    labels = [trace.about.label for trace in traces]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise Mistake(f"the explorer: {twice[0]} was given twice")
    for other in others:
        same = other.about.vocabulary == first.about.vocabulary and all(
            np.array_equal(getattr(first, name), getattr(other, name))
            for name in ("id_T", "position_T")
        )
        if not same:
            raise Mistake(
                f"{other.about.label}: is not traced over the text of {first.about.label}; "
                "analyze both on one text, tokeniser and sequence length"
            )


def _names(traces: Sequence[Trace]) -> tuple[str, ...]:
    studies = {trace.about.study for trace in traces}
    prefix = f"{studies.pop()}/" if len(studies) == 1 else ""
    return tuple(trace.about.label.removeprefix(prefix) for trace in traces)


def _opens(traces: Sequence[Trace], pairs: dict) -> tuple[int, int] | None:
    """The first runs of two arms, or else the first two that share a layer."""
    shared = [runs for runs, by_depth in pairs.items() if by_depth]
    arms = [(trace.about.study, trace.about.arm) for trace in traces]
    return next((r for r in shared if arms[r[0]] != arms[r[1]]), shared[0] if shared else None)

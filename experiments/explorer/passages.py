"""Which passages of a text a page shows: whole windows, spread evenly over its desks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moe.analysis.trace import Trace

LONGEST = 256  # tokens of a passage; a longer window is several


class Passage(NamedTuple):
    """Tokens start to stop - 1 of a trace, and the desk that most of them are of."""

    start: int
    stop: int
    desk: int


def passages(trace: Trace) -> list[Passage]:
    """All of a text, in order; none goes over the edge of a window."""
    edges = np.flatnonzero(trace.position_T % LONGEST == 0)
    stops = [*edges[1:], trace.tokens]
    return [
        Passage(int(start), int(stop), _most(trace.desk_T[start:stop]))
        for start, stop in zip(edges, stops, strict=True)
    ]


def _most(label_T: np.ndarray) -> int:
    """The most frequent label, the lowest of equals; -1 is none."""
    return int(np.bincount(label_T.astype(np.int64) + 1).argmax()) - 1


def spread(found: Sequence[Passage], count: int, first: Passage) -> list[Passage]:
    """`count` passages, `first` among them, in the order of the text.

    Each desk has as many as the others, as far as it has them, at even distances.
    """
    desks = sorted({p.desk for p in found})
    of_desk = {desk: [p for p in found if p.desk == desk] for desk in desks}
    quota = dict.fromkeys(of_desk, 0)
    left = min(count, len(found))
    while left:
        open_desks = [desk for desk, quote in quota.items() if quote < len(of_desk[desk])]
        for desk in open_desks[:left]:
            quota[desk] += 1
            left -= 1
    chosen = [
        of_desk[desk][int((i + 0.5) * len(of_desk[desk]) / quote)]
        for desk, quote in quota.items()
        for i in range(quote)
    ]
    if first not in chosen:
        same = [p for p in chosen if p.desk == first.desk] or chosen
        chosen.remove(min(same, key=lambda p: abs(p.start - first.start)))
        chosen.append(first)
    return sorted(chosen)
